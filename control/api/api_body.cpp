#include "control/api/api_body.h"

#include <fmt/format.h>

#include "control/api/api_error.h"
#include "control/http/http_wire.h"
#include "control/model/control_error.h"
#include "control/model/declaration.h"
#include "control/model/iso_time.h"
#include "control/model/model_fields.h"

namespace backhaul {
namespace {

// Reads {"properties": {...}}; both may be missing. `read`: a value with fields, or a function of FieldReader.
template <class Read>
Result<void> read_body(const boost::json::object& body, Read&& read, Need need = Need::optional) {
  Mistakes mistakes(From::people, "body");
  return read_fields(
      body, [&](FieldReader& r) { r("properties", read, need); }, mistakes, ApiErrc::bad_field);
}

constexpr std::string_view kTime = "a time in ISO 8601, as 2026-01-31T12:00:00Z";

// Fields that are accepted and mean nothing here.
void ignored(FieldReader& t, std::initializer_list<std::string_view> keys) {
  for (const auto key : keys) {
    std::string text;
    t(key, text);
  }
}

void read_direction(FieldReader& t, std::optional<Direction>& direction) {
  t.parsed("failoverDirection", direction, parse_direction, "RecoveryToPrimary or PrimaryToRecovery");
}

void read_provider(FieldReader& t, PlannedFailoverRequest& request) {
  std::string instance;
  t("instanceType", instance, Need::required);
  if (!instance.empty() && instance != "HyperVReplicaAzureFailback" && instance != "HyperVReplicaAzure")
    t.mistake("instanceType", "must be HyperVReplicaAzureFailback or HyperVReplicaAzure");
  t.parsed("dataSyncOption", request.data_sync, parse_data_sync, "ForDownTime or ForSynchronization");
  t("providerIdForAlternateRecovery", request.alternate_host);
  const auto creation = [](std::string_view text) -> std::optional<bool> {
    if (to_lower(text) == "createvmifnotfound") return true;
    if (to_lower(text) == "noaction") return false;
    return std::nullopt;
  };
  t.parsed("recoveryVmCreationOption", request.create_vm_if_not_found, creation, "CreateVmIfNotFound or NoAction");
}

void read_complete(FieldReader& t, CompletePolicy& policy) {
  t.parsed("mode", policy.mode, parse_complete_mode, "manual, automatic, scheduled or window");
  std::uint64_t budget_s = 0;
  t("downtimeBudgetSeconds", budget_s, Within{1, 30 * 24 * 3600});
  policy.downtime_budget_s = static_cast<double>(budget_s);
  t.parsed("at", policy.at_unix_s, parse_iso_time, kTime);
  t.parsed("windowStart", policy.window_start_unix_s, parse_iso_time, kTime);
  t.parsed("windowEnd", policy.window_end_unix_s, parse_iso_time, kTime);
  const bool window = policy.window_start_unix_s != 0 && policy.window_start_unix_s < policy.window_end_unix_s;
  if (policy.mode == CompleteMode::automatic && budget_s == 0)
    t.mistake("downtimeBudgetSeconds", "is needed with mode automatic");
  if (policy.mode == CompleteMode::scheduled && policy.at_unix_s == 0) t.mistake("at", "is needed with mode scheduled");
  if (policy.mode == CompleteMode::window && !window)
    t.mistake("windowEnd", "windowStart and a later windowEnd are needed with mode window");
}

}  // namespace

Result<PlannedFailoverRequest> read_planned_failover(const boost::json::object& body) {
  PlannedFailoverRequest request;
  BH_RETURN_IF_ERROR(read_body(body, [&](FieldReader& t) {
    read_direction(t, request.direction);
    std::size_t count = 0;
    const auto one = [&](FieldReader& p) {
      ++count;
      read_provider(p, request);
    };
    // The SDK sends an object for an item and an array for a plan; one of them, whichever it is.
    const auto* provider = t.get("providerSpecificDetails");
    const bool list = provider != nullptr && provider->is_array();
    list ? t.each("providerSpecificDetails", one) : t("providerSpecificDetails", one);
    if (count > 1) t.mistake("providerSpecificDetails", "must have at most one entry");
    t("backhaul", [&](FieldReader& b) {
      b("complete", [&](FieldReader& c) { read_complete(c, request.complete); });
      b("allowForcedShutdown", request.allow_forced_shutdown);
    });
  }));
  return request;
}

Result<bool> read_commit(const boost::json::object& body) {
  bool delete_disks = false;
  BH_RETURN_IF_ERROR(read_body(
      body, [&](FieldReader& t) { t("backhaul", [&](FieldReader& b) { b("deleteSourceDisks", delete_disks); }); }));
  return delete_disks;
}

Result<void> read_reprotect(const boost::json::object& body) {
  return read_body(body, [&](FieldReader& t) {
    std::optional<Direction> direction;
    read_direction(t, direction);
    if (direction == Direction::recovery_to_primary)
      t.mistake("failoverDirection", "must be PrimaryToRecovery: that is where protection goes");
    t("providerSpecificDetails", [&](FieldReader& p) {
      ignored(p,
              {"instanceType", "hvHostVmId", "vmName", "osType", "vHDId", "storageAccountId", "logStorageAccountId"});
    });
  });
}

Result<void> read_remove(const boost::json::object& body) {
  return read_body(body, [&](FieldReader& t) {
    ignored(t, {"disableProtectionReason"});
    t("replicationProviderInput", [&](FieldReader& p) { ignored(p, {"instanceType"}); });
  });
}

Result<std::string> read_resume(const boost::json::object& body) {
  std::string comments;
  BH_RETURN_IF_ERROR(read_body(body, [&](FieldReader& t) { t("comments", comments, AtMost{1000}); }));
  return comments;
}

Result<void> read_nothing(const boost::json::object& body) {
  return read_body(body, [](FieldReader&) {});
}

Result<TokenRequest> read_token(const boost::json::object& body) {
  TokenRequest request;
  const auto read = [&](FieldReader& t) {
    t.parsed("role", request.role, parse_role, "Reader, Operator or Admin", Need::required);
    t("lifetimeSeconds", request.lifetime_s, Within{1, kMaxTokenLifetime_s});
  };
  BH_RETURN_IF_ERROR(read_body(body, read, Need::required));
  return request;
}

Result<Item> read_item(const boost::json::object& body, std::string_view id) {
  boost::json::object properties;
  BH_RETURN_IF_ERROR(read_body(body, properties, Need::required));
  return parse_item_json(properties, id);
}

namespace {

struct ArmPlan {
  std::vector<PlanGroup> boot;
  std::vector<PlanAction> shutdown_start, shutdown_end, failover_start, failover_end;
  bool has_shutdown = false, has_failover = false;
};

// Seconds, or HH:MM:SS; up to a day.
std::optional<std::uint32_t> parse_timeout(std::string_view text) {
  std::uint32_t total = 0, part = 0, colons = 0;
  bool digit = false;
  for (const char c : text) {
    if (c >= '0' && c <= '9') {
      part = part * 10 + static_cast<std::uint32_t>(c - '0');
      digit = true;
      if (part > kTimeout_s.high) return std::nullopt;
    } else if (c == ':' && digit && ++colons <= 2) {
      total = (total + part) * 60;
      part = 0;
      digit = false;
    } else {
      return std::nullopt;
    }
  }
  total += part;
  if (!digit || (colons != 0 && colons != 2) || total < kTimeout_s.low || total > kTimeout_s.high) return std::nullopt;
  return total;
}

void read_arm_action(FieldReader& t, std::vector<PlanAction>& actions) {
  PlanAction& action = actions.emplace_back();
  t("actionName", action.name, Need::required);
  std::vector<std::string> types, directions;
  t("failoverTypes", types);
  t("failoverDirections", directions);
  if (std::find(types.begin(), types.end(), "PlannedFailover") == types.end())
    t.mistake("failoverTypes", "must contain PlannedFailover, the only failover there is");
  unsigned ways = 0;
  for (const auto& text : directions) {
    const auto way = parse_direction(text);
    if (!way) t.mistake("failoverDirections", "must be PrimaryToRecovery, RecoveryToPrimary or both");
    ways |= way ? 1U << static_cast<unsigned>(*way) : 0U;
    action.direction = way ? to_string(*way) : "both";
  }
  if (ways == 3) action.direction = "both";
  if (directions.empty()) t.mistake("failoverDirections", "is empty");
  const auto details = [&](FieldReader& d) {
    std::string kind;
    d("instanceType", kind, Need::required);
    if (kind == "ManualActionDetails") {
      action.manual = true;
      d("description", action.text);
    } else if (kind == "ScriptActionDetails") {
      d("path", action.command.emplace_back(), Need::required);
      d.parsed("timeout", action.timeout_s, parse_timeout, "seconds or HH:MM:SS, up to a day");
      ignored(d, {"fabricLocation"});
    } else if (!kind.empty()) {
      d.mistake("instanceType", "must be ManualActionDetails or ScriptActionDetails");
    }
  };
  t("customDetails", details, Need::required);
}

void read_arm_group(FieldReader& t, ArmPlan& plan) {
  std::string type;
  t("groupType", type, Need::required);
  std::vector<std::string> items;
  const auto read_item_id = [&](FieldReader& i) {
    std::string id;
    i("id", id, Need::required);
    ignored(i, {"virtualMachineId"});
    const auto slash = id.rfind('/');
    items.push_back(slash == std::string::npos ? id : id.substr(slash + 1));
  };
  t.each("replicationProtectedItems", read_item_id, kMostGroupItems);
  std::vector<PlanAction> start, end;
  t.each("startGroupActions", [&](FieldReader& a) { read_arm_action(a, start); });
  t.each("endGroupActions", [&](FieldReader& a) { read_arm_action(a, end); });
  if (type == "Boot") {
    PlanGroup& group = plan.boot.emplace_back();
    group.name = fmt::format("Group-{}", plan.boot.size());
    t("backhaul", [&](FieldReader& b) { b("name", group.name); });
    group.items = std::move(items);
    group.before_boot = std::move(start);
    group.after_boot = std::move(end);
    return;
  }
  if (type != "Shutdown" && type != "Failover") return t.mistake("groupType", "must be Shutdown, Failover or Boot");
  if (!items.empty()) t.mistake("replicationProtectedItems", "items stand in Boot groups");
  bool& had = type == "Shutdown" ? plan.has_shutdown : plan.has_failover;
  if (had) t.mistake("groupType", "there is at most one " + type + " group");
  had = true;
  (type == "Shutdown" ? plan.shutdown_start : plan.failover_start) = std::move(start);
  (type == "Shutdown" ? plan.shutdown_end : plan.failover_end) = std::move(end);
}

// Groups are shut down in reverse boot order, so the actions before everything stand at the last group.
RecoveryPlan from_arm(ArmPlan arm, std::string_view id) {
  RecoveryPlan plan;
  plan.id = id;
  plan.groups = std::move(arm.boot);
  const auto append = [](std::vector<PlanAction>& to, std::vector<PlanAction>& from) {
    to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
  };
  append(plan.groups.back().before_shutdown, arm.shutdown_start);
  append(plan.groups.front().after_shutdown, arm.shutdown_end);
  append(plan.groups.front().after_shutdown, arm.failover_start);
  append(arm.failover_end, plan.groups.front().before_boot);
  plan.groups.front().before_boot = std::move(arm.failover_end);
  return plan;
}

bool is_arm_shape(const boost::json::object& properties) {
  const auto* groups = properties.if_contains("groups");
  if (groups == nullptr || !groups->is_array()) return false;
  for (const auto& group : groups->get_array())
    if (group.is_object() && group.get_object().contains("groupType")) return true;
  return false;
}

}  // namespace

Result<RecoveryPlan> read_plan(const boost::json::object& body, std::string_view id) {
  boost::json::object properties;
  BH_RETURN_IF_ERROR(read_body(body, properties, Need::required));
  if (!is_arm_shape(properties)) return parse_plan_json(properties, id);
  ArmPlan arm;
  BH_RETURN_IF_ERROR(read_body(body, [&](FieldReader& t) {
    ignored(t, {"primaryFabricId", "recoveryFabricId", "failoverDeploymentModel"});
    t.each("providerSpecificInput", [](FieldReader& p) {
      ignored(p, {"instanceType", "primaryZone", "recoveryZone"});
    });
    t.each("groups", [&](FieldReader& g) { read_arm_group(g, arm); });
    if (arm.boot.empty()) t.mistake("groups", "has no Boot group");
    if (arm.boot.size() > kMostGroups.size) t.mistake("groups", "has too many Boot groups");
  }));
  RecoveryPlan plan = from_arm(std::move(arm), id);
  if (auto checked = check_plan(plan); !checked)
    return make_error(ControlErrc::bad_file, "plan: " + checked.error().cause());
  return plan;
}

}  // namespace backhaul
