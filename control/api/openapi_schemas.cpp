// The resources' and bodies' schemas. `required` lists what every answer has; a test holds real answers against them,
// and refuses fields that stand in no schema.
#include <boost/json.hpp>

#include "control/api/openapi.h"

namespace backhaul {
namespace {

// As short as the document's language allows: "name": type, where "!" marks a required one, "[]" a list, "#" another
// schema. Expanded below.
constexpr std::string_view kSchemas = R"json({
  "Resource": {"id!": "string", "name!": "string", "type!": "string", "properties!": "object"},

  "Fabric": {"id!": "string", "name!": "string", "type!": "string", "properties!": "#FabricProperties"},
  "FabricProperties": {"friendlyName!": "string", "internalIdentifier!": "string", "bcdrState!": "string",
    "health!": "string", "healthErrorDetails!": "[]object", "customDetails!": "object"},
  "Container": {"id!": "string", "name!": "string", "type!": "string", "properties!": "#ContainerProperties"},
  "ContainerProperties": {"fabricFriendlyName!": "string", "friendlyName!": "string", "fabricType!": "string",
    "protectedItemCount!": "integer", "pairingStatus!": "string", "role!": "string"},

  "Item": {"id!": "string", "name!": "string", "type!": "string", "properties!": "#ItemProperties"},
  "ItemProperties": {"friendlyName!": "string", "protectedItemType!": "string", "primaryFabricFriendlyName!": "string",
    "primaryFabricProvider!": "string", "recoveryFabricFriendlyName!": "string", "recoveryFabricId!": "string",
    "recoveryContainerId!": "string", "protectionState!": "string", "protectionStateDescription!": "string",
    "activeLocation!": "string", "allowedOperations!": "[]string", "replicationHealth!": "string",
    "failoverHealth!": "string", "healthErrors!": "[]#HealthError", "currentScenario!": "#Scenario",
    "providerSpecificDetails!": "#ProviderDetails", "backhaul!": "#ItemFacts"},
  "HealthError": {"errorSource!": "string", "errorType!": "string", "errorLevel!": "string", "errorCode!": "string",
    "errorMessage!": "string", "possibleCauses": "string", "recommendedAction": "string",
    "creationTimeUtc": "time", "entityId!": "string"},
  "Scenario": {"scenarioName!": "string", "jobId!": "string", "startTime": "time"},
  "ProviderDetails": {"instanceType!": "string", "vmId!": "string", "vmProtectionState!": "string",
    "vmProtectionStateDescription!": "string", "sourceVmRamSizeInMB!": "integer", "sourceVmCpuCount!": "integer",
    "recoveryAzureVmName!": "string", "lastReplicatedTime": "time", "rpoInSeconds": "integer",
    "lastRpoCalculatedTime": "time", "vmNics!": "[]object"},
  "ItemFacts": {"version!": "integer", "direction!": "string", "removeRequested!": "boolean",
    "declaration!": "#Declaration", "currentJob": "string", "failoverJob": "string", "replicationJob": "string",
    "lastError": "string", "lagSeconds": "integer", "protectedUntil": "time", "commitDeadline": "time",
    "measured!": "#Measured"},
  "Measured": {"bytesPerSecond": "number", "digestBytesPerSecond": "number", "downtime": "#DowntimeParts"},
  "DowntimeParts": {"shutdownSeconds!": "number", "deltaSeconds!": "number", "verifySeconds!": "number",
    "swapSeconds!": "number", "waitSeconds": "number", "startSeconds!": "number", "bootSeconds": "number"},
  "ProjectedDowntime": {"seconds!": "number", "parts!": "#DowntimeParts"},
  "Downtime": {"from!": "string", "fromTime!": "time", "until": "string", "untilTime": "time", "seconds": "number",
    "parts": "#DowntimeParts", "unsureSeconds": "number", "whyNoFirstWrite": "string",
    "projected!": "#ProjectedDowntime"},
  "Declaration": {"id": "string", "vm!": "object", "recovery!": "object", "primary!": "object",
    "earlier_failover_committed": "boolean", "commit_policy": "object", "transfer": "object", "shutdown": "object",
    "boot": "object", "replication_minutes": "integer"},
  "ItemDeclaration": {"properties!": "#Declaration"},

  "Job": {"id!": "string", "name!": "string", "type!": "string", "properties!": "#JobProperties"},
  "JobProperties": {"activityId!": "string", "scenarioName!": "string", "friendlyName!": "string", "state!": "string",
    "stateDescription!": "string", "tasks!": "[]#Task", "errors!": "[]#JobError", "allowedActions!": "[]string",
    "targetObjectId!": "string", "targetObjectName!": "string", "targetInstanceType!": "string",
    "customDetails!": "#JobDetails", "startTime": "time", "endTime": "time", "backhaul!": "#JobFacts"},
  "JobDetails": {"instanceType!": "string", "affectedObjectDetails!": "object", "protectedItemDetails": "[]object"},
  "Task": {"taskId!": "string", "name!": "string", "friendlyName!": "string", "state!": "string",
    "stateDescription!": "string", "taskType!": "string", "allowedActions!": "[]string", "errors!": "[]#JobError",
    "startTime": "time", "endTime": "time", "backhaul!": "#TaskFacts"},
  "TaskFacts": {"progress!": "#Progress", "seconds": "number"},
  "Progress": {"bytesDone!": "integer", "bytesTotal!": "integer", "bytesPerSecond!": "number", "secondsLeft": "number"},
  "JobError": {"serviceErrorDetails!": "object", "providerErrorDetails!": "object", "errorLevel!": "string",
    "creationTime!": "time", "taskId!": "string", "backhaul!": "object"},
  "JobFacts": {"startedBy!": "string", "direction!": "string", "completeRequested!": "boolean",
    "cancelRequested!": "boolean", "rollingBack!": "boolean", "item": "string", "plan": "string", "parent": "string",
    "waitingFor": "string", "createdTime": "time", "children": "[]string", "dataSyncOption": "string",
    "complete": "#CompletePolicy", "allowForcedShutdown": "boolean", "deleteSourceDisks": "boolean",
    "currentTask": "string", "progress": "#Progress", "source": "#Location", "target": "#Location", "round": "#Round",
    "nextDeltaBytes": "integer", "projectedDowntimeSeconds": "number", "downtimeSeconds": "number",
    "downtime": "#Downtime", "sourceDownTime": "time", "targetUpTime": "time", "estimate": "#Estimate"},
  "Location": {"site!": "string", "host": "string", "driver!": "string", "vm": "string", "disks!": "[]object"},
  "Round": {"number!": "integer", "open!": "boolean", "final!": "boolean", "pointInTime": "time",
    "disks!": "[]#DiskRound"},
  "DiskRound": {"name!": "string", "done!": "boolean", "diskBytes!": "integer", "bytesRead!": "integer",
    "blocksCompared!": "integer", "blocksChanged!": "integer", "payloadBytes!": "integer", "wireBytes!": "integer",
    "resumedBytes!": "integer", "seconds!": "number", "verifySeconds": "number", "rootDigestSource": "string", "rootDigestTarget": "string"},
  "Estimate": {"bytes!": "integer", "seconds!": "number", "downtimeSeconds!": "number",
    "adviseForSynchronization!": "boolean", "reason!": "string"},
  "CompletePolicy": {"mode": "string", "downtimeBudgetSeconds": "integer", "at": "time", "windowStart": "time",
    "windowEnd": "time"},

  "Plan": {"id!": "string", "name!": "string", "type!": "string", "properties!": "#PlanProperties"},
  "PlanProperties": {"friendlyName!": "string", "primaryFabricId!": "string", "primaryFabricFriendlyName!": "string",
    "recoveryFabricId!": "string", "recoveryFabricFriendlyName!": "string", "failoverDeploymentModel!": "string",
    "replicationProviders!": "[]string", "allowedOperations!": "[]string", "groups!": "[]#ArmGroup",
    "currentScenario!": "#Scenario", "currentScenarioStatus!": "string", "currentScenarioStatusDescription": "string",
    "backhaul!": "#PlanFacts"},
  "ArmGroup": {"groupType!": "string", "replicationProtectedItems!": "[]object", "startGroupActions!": "[]object",
    "endGroupActions!": "[]object", "backhaul": "object"},
  "PlanFacts": {"version!": "integer", "currentJob": "string", "declaration!": "#PlanDeclaration"},
  "PlanDeclaration": {"id": "string", "groups!": "[]object", "shutdown_in_boot_order": "boolean"},
  "PlanInput": {"properties!": "object"},

  "PlannedFailoverInput": {"properties": "#PlannedFailoverProperties"},
  "PlannedFailoverProperties": {"failoverDirection": "string", "providerSpecificDetails": "any",
    "backhaul": "#PlannedFailoverExtras"},
  "PlannedFailoverExtras": {"complete": "#CompletePolicy", "allowForcedShutdown": "boolean"},
  "CommitInput": {"properties": "#CommitProperties"},
  "CommitProperties": {"backhaul": "#CommitExtras"},
  "CommitExtras": {"deleteSourceDisks": "boolean"},
  "ReProtectInput": {"properties": "#ReProtectProperties"},
  "ReProtectProperties": {"failoverDirection": "string", "providerSpecificDetails": "object"},
  "RemoveInput": {"properties": "#RemoveProperties"},
  "RemoveProperties": {"disableProtectionReason": "string", "replicationProviderInput": "object"},
  "ResumeInput": {"properties": "#ResumeProperties"},
  "ResumeProperties": {"comments": "string"},
  "EmptyInput": {"properties": "object"},
  "Preflight": {"properties!": "#PreflightProperties"},
  "PreflightProperties": {"passed!": "boolean", "checks!": "[]#Check", "estimate!": "#Estimate"},
  "Check": {"name!": "string", "level!": "string", "code": "string", "cause": "string", "recommendedAction": "string"},
  "OperationStatus": {"id!": "string", "name!": "string", "status!": "string", "startTime": "time", "endTime": "time",
    "properties": "object", "error": "#ErrorBody"},

  "Token": {"id!": "string", "name!": "string", "type!": "string", "properties!": "#TokenProperties"},
  "TokenProperties": {"role!": "string", "createdTime!": "time", "expiresTime": "time", "secret": "string"},
  "TokenInput": {"properties!": "#TokenInputProperties"},
  "TokenInputProperties": {"role!": "string", "lifetimeSeconds": "integer"},
  "AuditEntry": {"id!": "integer", "time!": "time", "actor!": "string", "action!": "string", "object!": "string",
    "outcome!": "string", "detail!": "string"},

  "Error": {"error!": "#ErrorBody"},
  "ErrorBody": {"code!": "string", "message!": "string", "target": "string", "details": "[]object",
    "innererror": "#InnerError"},
  "InnerError": {"code!": "string", "cause!": "string", "recommendedAction!": "string", "retryable!": "boolean"},

  "FabricList": {"value!": "[]#Fabric"},
  "ContainerList": {"value!": "[]#Container"},
  "ItemList": {"value!": "[]#Item", "nextLink": "string"},
  "JobList": {"value!": "[]#Job", "nextLink": "string"},
  "PlanList": {"value!": "[]#Plan", "nextLink": "string"},
  "TokenList": {"value!": "[]#Token", "nextLink": "string"},
  "AuditList": {"value!": "[]#AuditEntry", "nextLink": "string"}
})json";

boost::json::object type_of(std::string_view text) {
  if (text.starts_with("[]")) return {{"type", "array"}, {"items", type_of(text.substr(2))}};
  if (text.starts_with('#')) return {{"$ref", "#/components/schemas/" + std::string(text.substr(1))}};
  if (text == "time") return {{"type", "string"}, {"format", "date-time"}};
  if (text == "any") return {};
  return {{"type", text}};
}

boost::json::object expand(const boost::json::object& brief) {
  boost::json::object properties;
  boost::json::array required;
  for (const auto& field : brief) {
    std::string_view name = field.key();
    if (name.ends_with('!')) {
      name.remove_suffix(1);
      required.emplace_back(name);
    }
    properties[name] = type_of(field.value().as_string());
  }
  boost::json::object schema{{"type", "object"}, {"properties", std::move(properties)}};
  if (!required.empty()) schema["required"] = std::move(required);
  return schema;
}

}  // namespace

boost::json::object openapi_schemas() {
  boost::json::object schemas;
  const auto brief = boost::json::parse(kSchemas);
  for (const auto& entry : brief.as_object()) schemas[entry.key()] = expand(entry.value().as_object());
  for (const char* text : {"Text", "EventStream"}) schemas[text] = {{"type", "string"}};
  schemas["Document"] = {{"type", "object"}};
  return schemas;
}

}  // namespace backhaul
