// The table of routes: only these are served. docs/http_api.md describes them to people, /openapi.json to machines.
#include "control/api/api_context.h"

namespace backhaul {
namespace {

constexpr auto kReader = Role::reader, kOperator = Role::operator_, kAdminRole = Role::admin;
constexpr auto kTree = ApiBase::tree, kV1 = ApiBase::v1, kRoot = ApiBase::root;
constexpr std::string_view kFabrics = "replicationFabrics";
constexpr std::string_view kContainers = "replicationFabrics/{fabric}/replicationProtectionContainers";
constexpr std::string_view kBelowContainer =
    "replicationFabrics/{fabric}/replicationProtectionContainers/{container}/replicationProtectedItems";

// Method, base, path, role, handler, operation, summary, body, whether it is needed, query, answers.
constexpr ApiRoute kRoutes[] = {
    {"GET", kTree, kFabrics, kReader, list_fabrics, "fabric.list", "All fabrics: the appliance", "", false, "",
     "200:FabricList"},
    {"GET", kTree, "replicationFabrics/{fabric}", kReader, get_fabric, "fabric.get", "The fabric", "", false, "",
     "200:Fabric"},
    {"GET", kTree, kContainers, kReader, list_containers, "container.list", "All containers of the fabric: one", "",
     false, "", "200:ContainerList"},
    {"GET", kTree, "replicationFabrics/{fabric}/replicationProtectionContainers/{container}", kReader, get_container,
     "container.get", "The container", "", false, "", "200:Container"},
    {"GET", kTree, "replicationProtectionContainers", kReader, list_containers, "container.listAll",
     "All containers: one", "", false, "", "200:ContainerList"},

    {"GET", kTree, "replicationProtectedItems", kReader, list_items, "item.list", "All items", "", false,
     "$filter skipToken", "200:ItemList"},
    {"GET", kTree, kBelowContainer, kReader, list_items, "item.listByContainer", "All items of the container", "",
     false, "$filter skipToken", "200:ItemList"},
    {"GET", kTree, "ITEM", kReader, get_item, "item.get", "One item", "", false, "", "200:Item"},
    {"PUT", kTree, "ITEM", kAdminRole, put_item, "item.put", "Create or update an item", "ItemDeclaration", true, "",
     "200:Item 201:Item"},
    {"DELETE", kTree, "ITEM", kAdminRole, remove_item, "item.delete", "Delete an item", "", false, "", "202 204"},
    {"POST", kTree, "ITEM/remove", kAdminRole, remove_item, "item.remove", "Disable protection: delete an item",
     "RemoveInput", false, "", "202 204"},
    {"POST", kTree, "ITEM/preflight", kOperator, item_preflight, "item.preflight",
     "The checks before a planned failover, and an estimate; changes nothing", "PlannedFailoverInput", false, "",
     "200:Preflight"},
    {"POST", kTree, "ITEM/plannedFailover", kOperator, item_planned_failover, "item.plannedFailover",
     "Start a planned failover", "PlannedFailoverInput", false, "", "202"},
    {"POST", kTree, "ITEM/failoverCommit", kOperator, item_commit, "item.failoverCommit", "Commit the failover",
     "CommitInput", false, "", "200:Item 202"},
    {"POST", kTree, "ITEM/failoverCancel", kOperator, item_cancel, "item.failoverCancel",
     "Cancel the failover, or undo it until it is committed", "EmptyInput", false, "", "202"},
    {"POST", kTree, "ITEM/reProtect", kOperator, item_reprotect, "item.reProtect",
     "Reverse replicate: protect the VM from its primary site", "ReProtectInput", false, "", "202"},

    {"GET", kTree, "replicationJobs", kReader, list_jobs, "job.list", "Jobs, newest first", "", false,
     "$filter skipToken", "200:JobList"},
    {"GET", kTree, "replicationJobs/{job}", kReader, get_job, "job.get", "One job, with live progress", "", false, "",
     "200:Job"},
    {"POST", kTree, "replicationJobs/{job}/resume", kOperator, resume_job, "job.resume",
     "Complete Failover, or confirm a manual action of a plan", "ResumeInput", false, "", "202"},
    {"POST", kTree, "replicationJobs/{job}/cancel", kOperator, cancel_job, "job.cancel", "Cancel a job", "EmptyInput",
     false, "", "202"},
    {"POST", kTree, "replicationJobs/{job}/restart", kOperator, restart_job, "job.restart",
     "Restart a failed job: only what failed is done again", "EmptyInput", false, "", "202"},
    {"GET", kTree, "operationStatuses/{verb}/{object}", kReader, operation_status, "operation.status",
     "Status of an asynchronous verb", "", false, "", "200:OperationStatus"},
    {"GET", kTree, "operationResults/{verb}/{object}", kReader, operation_result, "operation.result",
     "Result of an asynchronous verb", "", false, "", "200:Resource 202 204"},

    {"GET", kTree, "replicationRecoveryPlans", kReader, list_plans, "plan.list", "All recovery plans", "", false,
     "skipToken", "200:PlanList"},
    {"GET", kTree, "replicationRecoveryPlans/{plan}", kReader, get_plan, "plan.get", "One recovery plan", "", false, "",
     "200:Plan"},
    {"PUT", kTree, "replicationRecoveryPlans/{plan}", kAdminRole, put_plan, "plan.put",
     "Create or update a recovery plan", "PlanInput", true, "", "200:Plan 201:Plan"},
    {"PATCH", kTree, "replicationRecoveryPlans/{plan}", kAdminRole, patch_plan, "plan.patch",
     "Replace a recovery plan's groups", "PlanInput", true, "", "200:Plan"},
    {"DELETE", kTree, "replicationRecoveryPlans/{plan}", kAdminRole, remove_plan, "plan.delete",
     "Delete a recovery plan", "", false, "", "204"},
    {"POST", kTree, "replicationRecoveryPlans/{plan}/plannedFailover", kOperator, plan_planned_failover,
     "plan.plannedFailover", "Start the planned failover of all items of a plan", "PlannedFailoverInput", false, "",
     "202"},
    {"POST", kTree, "replicationRecoveryPlans/{plan}/failoverCommit", kOperator, plan_commit, "plan.failoverCommit",
     "Commit all items of a plan", "CommitInput", false, "", "202"},
    {"POST", kTree, "replicationRecoveryPlans/{plan}/reProtect", kOperator, plan_reprotect, "plan.reProtect",
     "Reverse replicate all items of a plan", "ReProtectInput", false, "", "202"},

    {"GET", kV1, "tokens", kAdminRole, list_tokens, "token.list", "Tokens, without their secrets", "", false,
     "skipToken", "200:TokenList"},
    {"PUT", kV1, "tokens/{token}", kAdminRole, put_token, "token.put", "Create a token; its secret is shown once",
     "TokenInput", true, "", "201:Token"},
    {"DELETE", kV1, "tokens/{token}", kAdminRole, remove_token, "token.delete", "Revoke a token", "", false, "", "204"},
    {"GET", kV1, "audit", kReader, list_audit, "audit.list", "Audit log, newest first", "", false,
     "object before limit", "200:AuditList"},
    {"GET", kV1, "events", kReader, events, "events", "Events: what changes, as it happens", "", false, "",
     "200:EventStream", "text/event-stream"},

    {"GET", kRoot, "metrics", kReader, metrics, "metrics", "Prometheus metrics", "", false, "", "200:Text",
     "text/plain"},
    {"GET", kRoot, "livez", {}, livez, "livez", "Liveness of the process", "", false, "", "200:Text", "text/plain"},
    {"GET",
     kRoot,
     "readyz",
     {},
     readyz,
     "readyz",
     "Readiness of the appliance",
     "",
     false,
     "",
     "200:Text 503:Text",
     "text/plain"},
    {"GET", kRoot, "openapi.json", {}, openapi, "openapi", "This document", "", false, "", "200:Document"},
};

}  // namespace

std::span<const ApiRoute> api_routes() { return kRoutes; }

}  // namespace backhaul
