#include "control/api/api_shapes.h"

#include <boost/json.hpp>

#include <algorithm>

#include "control/api/api_json.h"
#include "control/model/declaration.h"
#include "control/model/iso_time.h"

namespace backhaul {
namespace {

namespace json = boost::json;

constexpr std::string_view kType = "Microsoft.RecoveryServices/vaults/";

std::string container_id(std::string_view base) {
  return std::string(base) + "/replicationFabrics/" + std::string(kFabric) + "/replicationProtectionContainers/" +
         std::string(kContainer);
}

json::object resource(std::string id, std::string_view name, std::string_view type, json::object properties) {
  return {{"id", std::move(id)},
          {"name", name},
          {"type", std::string(kType) + std::string(type)},
          {"properties", std::move(properties)}};
}

// The site where the VM runs or should run.
std::string_view active_location(const Item& item) {
  const bool home = item.direction == Direction::recovery_to_primary;  // of the present planned failover
  switch (item.state) {
    case ItemState::failover_commit_pending:
    case ItemState::failover_committed: return "Recovery";
    case ItemState::planned_failover_in_progress:
    case ItemState::planned_failover_failed:
    case ItemState::cancel_failover_in_progress:
    case ItemState::cancel_failover_failed: return home ? "Recovery" : "Primary";
    case ItemState::planned_failover_commit_pending:
    case ItemState::commit_in_progress:
    case ItemState::commit_failed: return home ? "Primary" : "Recovery";
    case ItemState::planned_failover_committed:
    case ItemState::reprotect_in_progress:
    case ItemState::protected_: return "Primary";
  }
  return "Recovery";
}

bool is_failed(ItemState state) {
  return state == ItemState::planned_failover_failed || state == ItemState::commit_failed ||
         state == ItemState::cancel_failover_failed;
}

// Late by more than two cycles: a warning; by more than six, or with an error: critical.
std::string_view replication_health(const Item& item, std::int64_t now_unix_s) {
  const auto lag = lag_seconds(item, now_unix_s);
  if (!lag) return "None";
  const std::int64_t cycle_s = std::int64_t{item.replication_minutes} * 60;
  if (!item.last_error.empty() || *lag > 6 * cycle_s) return "Critical";
  return *lag > 2 * cycle_s ? "Warning" : "Normal";
}

json::array health_errors(const Item& item, const std::optional<Job>& current) {
  json::array errors;
  if (!item.last_error.empty())
    errors.push_back({{"errorSource", "Backhaul"},
                      {"errorType", "Replication"},
                      {"errorLevel", "Error"},
                      {"errorCode", "ReplicationCycleFailed"},
                      {"errorMessage", item.last_error},
                      {"entityId", item.id}});
  if (is_failed(item.state) && current && !current->errors.empty()) {
    const JobError& error = current->errors.back();
    errors.push_back({{"errorSource", "Backhaul"},
                      {"errorType", "Failover"},
                      {"errorLevel", "Error"},
                      {"errorCode", error.code},
                      {"errorMessage", error.cause},
                      {"possibleCauses", error.cause},
                      {"recommendedAction", error.fix},
                      {"creationTimeUtc", iso_time(error.at_unix_s)},
                      {"entityId", item.id}});
  }
  return errors;
}

json::object current_scenario(std::string_view base, const std::optional<Job>& current) {
  if (!current) return {{"scenarioName", "None"}, {"jobId", "None"}};
  json::object scenario{{"scenarioName", to_string(current->kind)}, {"jobId", job_id(base, current->id)}};
  put_time(scenario, "startTime", current->started_unix_s != 0 ? current->started_unix_s : current->created_unix_s);
  return scenario;
}

json::object item_extras(const Item& item, std::int64_t now_unix_s) {
  json::object extras{{"version", item.version},
                      {"direction", to_string(item.direction)},
                      {"removeRequested", item.remove_requested},
                      {"declaration", declared_json(item)}};
  put_text(extras, "currentJob", item.current_job);
  put_text(extras, "failoverJob", item.failover_job);
  put_text(extras, "replicationJob", item.replication_job);
  put_text(extras, "lastError", item.last_error);
  if (const auto lag = lag_seconds(item, now_unix_s)) extras["lagSeconds"] = *lag;
  put_time(extras, "protectedUntil", item.protected_until_unix_s);
  put_time(extras, "commitDeadline", item.commit_deadline_unix_s);
  json::object measured;
  put_positive(measured, "bytesPerSecond", item.bytes_per_s);
  put_positive(measured, "digestBytesPerSecond", item.digest_bytes_per_s);
  if (item.downtime_measured) measured["downtime"] = downtime_parts_json(item.downtime, item.boot_measured);
  extras["measured"] = std::move(measured);
  return extras;
}

json::object provider_details(const Item& item, std::int64_t now_unix_s) {
  json::object details{{"instanceType", "HyperVReplicaAzure"},
                       {"vmId", item.primary.vm.empty() ? item.id : item.primary.vm},
                       {"vmProtectionState", to_string(item.state)},
                       {"vmProtectionStateDescription", describe(item.state)},
                       {"sourceVmRamSizeInMB", item.vm.memory_mib},
                       {"sourceVmCpuCount", item.vm.cpus},
                       {"recoveryAzureVmName", item.recovery.vm.empty() ? item.id : item.recovery.vm}};
  put_time(details, "lastReplicatedTime", item.protected_until_unix_s);
  if (const auto lag = lag_seconds(item, now_unix_s)) {
    details["rpoInSeconds"] = *lag;
    details["lastRpoCalculatedTime"] = iso_time(now_unix_s);
  }
  json::array nics;
  for (const auto& nic : item.vm.nics)
    nics.push_back({{"nicId", nic.name}, {"vMNetworkName", nic.network}, {"selectionType", "SelectedByUser"}});
  details["vmNics"] = std::move(nics);
  return details;
}

}  // namespace

std::string_view last_segment(std::string_view id) noexcept {
  while (id.ends_with('/')) id.remove_suffix(1);
  const auto slash = id.rfind('/');
  return slash == id.npos ? id : id.substr(slash + 1);
}

std::string item_id(std::string_view base, std::string_view item) {
  return container_id(base) + "/replicationProtectedItems/" + std::string(item);
}
std::string job_id(std::string_view base, std::string_view job) {
  return std::string(base) + "/replicationJobs/" + std::string(job);
}
std::string plan_id(std::string_view base, std::string_view plan) {
  return std::string(base) + "/replicationRecoveryPlans/" + std::string(plan);
}

std::optional<std::int64_t> lag_seconds(const Item& item, std::int64_t now_unix_s) {
  if (item.state != ItemState::protected_ || item.protected_until_unix_s == 0) return std::nullopt;
  return std::max<std::int64_t>(0, now_unix_s - item.protected_until_unix_s);
}

json::object fabric_json(std::string_view base) {
  return resource(std::string(base) + "/replicationFabrics/" + std::string(kFabric), kFabric, "replicationFabrics",
                  {{"friendlyName", "Backhaul appliance"},
                   {"internalIdentifier", kFabric},
                   {"bcdrState", "Valid"},
                   {"health", "Normal"},
                   {"healthErrorDetails", json::array()},
                   {"customDetails", {{"instanceType", "HyperVSite"}}}});
}

json::object container_json(std::string_view base, std::size_t items) {
  return resource(container_id(base), kContainer, "replicationFabrics/replicationProtectionContainers",
                  {{"fabricFriendlyName", "Backhaul appliance"},
                   {"friendlyName", "Items"},
                   {"fabricType", "HyperVSite"},
                   {"protectedItemCount", items},
                   {"pairingStatus", "Paired"},
                   {"role", "Primary"}});
}

json::object item_json(std::string_view base, const Item& item, const std::optional<Job>& current,
                       std::int64_t now_unix_s) {
  json::array operations;
  for (const auto name : allowed_operations(item.state)) operations.emplace_back(name);
  return resource(item_id(base, item.id), item.id,
                  "replicationFabrics/replicationProtectionContainers/replicationProtectedItems",
                  {{"friendlyName", item.vm.name},
                   {"protectedItemType", "HyperVVirtualMachine"},
                   {"primaryFabricFriendlyName", item.primary.host},
                   {"primaryFabricProvider", "HyperVSite"},
                   {"recoveryFabricFriendlyName", "Backhaul appliance"},
                   {"recoveryFabricId", std::string(base) + "/replicationFabrics/" + std::string(kFabric)},
                   {"recoveryContainerId", container_id(base)},
                   {"protectionState", to_string(item.state)},
                   {"protectionStateDescription", describe(item.state)},
                   {"activeLocation", active_location(item)},
                   {"allowedOperations", std::move(operations)},
                   {"replicationHealth", replication_health(item, now_unix_s)},
                   {"failoverHealth", is_failed(item.state) ? "Critical" : "Normal"},
                   {"healthErrors", health_errors(item, current)},
                   {"currentScenario", current_scenario(base, current)},
                   {"providerSpecificDetails", provider_details(item, now_unix_s)},
                   {"backhaul", item_extras(item, now_unix_s)}});
}

namespace {

// The declaration's actions as Site Recovery's.
json::array actions_json(const std::vector<PlanAction>& actions) {
  json::array all;
  for (const auto& action : actions) {
    json::object details;
    if (action.manual)
      details = {{"instanceType", "ManualActionDetails"}, {"description", action.text}};
    else
      details = {{"instanceType", "ScriptActionDetails"},
                 {"path", action.command.empty() ? "" : action.command.front()},
                 {"timeout", std::to_string(action.timeout_s)},
                 {"fabricLocation", "Recovery"}};
    json::array directions;
    for (const auto way : {Direction::primary_to_recovery, Direction::recovery_to_primary})
      if (action.direction == "both" || action.direction == to_string(way)) directions.emplace_back(to_string(way));
    all.push_back({{"actionName", action.name},
                   {"failoverTypes", json::array{"PlannedFailover"}},
                   {"failoverDirections", std::move(directions)},
                   {"customDetails", std::move(details)}});
  }
  return all;
}

json::object group_json(std::string_view type, json::array items, json::array start, json::array end) {
  return {{"groupType", type},
          {"replicationProtectedItems", std::move(items)},
          {"startGroupActions", std::move(start)},
          {"endGroupActions", std::move(end)}};
}

}  // namespace

json::object plan_json(std::string_view base, const RecoveryPlan& plan, const std::optional<Job>& current,
                       const std::vector<std::string_view>& allowed_operations) {
  json::array groups;
  if (!plan.groups.empty()) {
    const bool in_order = plan.shutdown_in_boot_order;
    const PlanGroup& first = in_order ? plan.groups.front() : plan.groups.back();  // to be shut down
    const PlanGroup& last = in_order ? plan.groups.back() : plan.groups.front();
    groups.push_back(
        group_json("Shutdown", {}, actions_json(first.before_shutdown), actions_json(last.after_shutdown)));
    groups.push_back(group_json("Failover", {}, {}, {}));
  }
  for (const auto& group : plan.groups) {
    json::array items;
    for (const auto& item : group.items) items.push_back({{"id", item_id(base, item)}, {"virtualMachineId", item}});
    auto shape = group_json("Boot", std::move(items), actions_json(group.before_boot), actions_json(group.after_boot));
    shape["backhaul"] = {{"name", group.name}};
    groups.push_back(std::move(shape));
  }
  json::array operations;
  for (const auto name : allowed_operations) operations.emplace_back(name);
  json::object extras{{"version", plan.version}, {"declaration", declared_json(plan)}};
  put_text(extras, "currentJob", plan.current_job);
  const std::string fabric = std::string(base) + "/replicationFabrics/" + std::string(kFabric);
  json::object properties{{"friendlyName", plan.id},
                          {"primaryFabricId", fabric},
                          {"primaryFabricFriendlyName", "Primary site"},
                          {"recoveryFabricId", fabric},
                          {"recoveryFabricFriendlyName", "Backhaul appliance"},
                          {"failoverDeploymentModel", "NotApplicable"},
                          {"replicationProviders", {"HyperVReplicaAzure"}},
                          {"allowedOperations", std::move(operations)},
                          {"groups", std::move(groups)},
                          {"backhaul", std::move(extras)}};
  const bool running = current && !has_ended(current->state);
  properties["currentScenario"] = current_scenario(base, running ? current : std::nullopt);
  properties["currentScenarioStatus"] = current ? to_string(current->state) : "None";
  if (current) put_text(properties, "currentScenarioStatusDescription", current->waiting_for);
  return resource(plan_id(base, plan.id), plan.id, "replicationRecoveryPlans", std::move(properties));
}

json::object preflight_json(const PreflightReport& report) {
  json::array checks;
  for (const auto& check : report.checks) {
    json::object shape{{"name", check.name},
                       {"level", check.level == CheckLevel::ok        ? "Passed"
                                 : check.level == CheckLevel::warning ? "Warning"
                                                                      : "Failed"}};
    put_text(shape, "code", check.code);
    put_text(shape, "cause", check.cause);
    put_text(shape, "recommendedAction", check.fix);
    checks.push_back(std::move(shape));
  }
  const Estimate& estimate = report.estimate;
  return {{"properties",
           {{"passed", report.passed},
            {"checks", std::move(checks)},
            {"estimate",
             {{"bytes", estimate.bytes},
              {"seconds", estimate.seconds},
              {"downtimeSeconds", estimate.downtime_s},
              {"adviseForSynchronization", estimate.advise_for_synchronization},
              {"reason", estimate.reason}}}}}};
}

json::object token_json(const TokenRecord& token, std::string_view secret) {
  json::object properties{{"role", to_string(token.role)}, {"createdTime", iso_time(token.created_unix_s)}};
  put_time(properties, "expiresTime", token.expires_unix_s);
  put_text(properties, "secret", secret);
  return {{"id", "/v1/tokens/" + token.name},
          {"name", token.name},
          {"type", "Backhaul/tokens"},
          {"properties", std::move(properties)}};
}

json::object audit_json(const AuditEntry& entry) {
  return {
      {"id", entry.id},         {"time", iso_time(entry.at_unix_s)}, {"actor", entry.actor},  {"action", entry.action},
      {"object", entry.object}, {"outcome", entry.outcome},          {"detail", entry.detail}};
}

json::object event_json(const Event& event) {
  json::object shape{{"kind", event.kind}, {"id", event.id}, {"time", iso_time(event.at_unix_s)}};
  put_text(shape, "state", event.state);
  return shape;
}

}  // namespace backhaul
