#include "control/api/api_body.h"

#include <fmt/format.h>
#include <boost/json.hpp>

#include "control/api/api_error.h"
#include "control/http/http_wire.h"
#include "control/model/declaration.h"
#include "control/model/iso_time.h"
#include "control/model/model_json.h"
#include "control/model/toml_reader.h"

namespace backhaul {
namespace {

using Need = TableReader::Need;

// Reads {"properties": {...}}; both may be missing.
template <class Read>
Result<void> read_body(const boost::json::object& body, Read read, Need need = Need::optional) {
  Mistakes mistakes("body");
  const toml::table table = to_toml(body);
  {
    TableReader reader(table, "", mistakes);
    reader.table("properties", read, need);
  }
  if (mistakes.none()) return {};
  return make_error(ApiErrc::bad_field, mistakes.to_error().cause());
}

// A text that `parse` understands; `known` says what it may be.
template <class T, class Parse>
void parsed(TableReader& t, std::string_view key, T& value, Parse parse, std::string_view known) {
  std::string text;
  t.text(key, text);
  if (text.empty()) return;
  if (auto found = parse(text))
    value = *found;
  else
    t.mistake(key, fmt::format("must be {}", known));
}
constexpr std::string_view kTime = "a time in ISO 8601, as 2026-01-31T12:00:00Z";

// Fields that are accepted and mean nothing here.
void ignored(TableReader& t, std::initializer_list<std::string_view> keys) {
  for (const auto key : keys) {
    std::string text;
    t.text(key, text);
  }
}

void read_direction(TableReader& t, std::optional<Direction>& direction) {
  parsed(t, "failoverDirection", direction, parse_direction, "RecoveryToPrimary or PrimaryToRecovery");
}

void read_provider(TableReader& t, PlannedFailoverRequest& request) {
  std::string instance;
  t.text("instanceType", instance, Need::required);
  if (!instance.empty() && instance != "HyperVReplicaAzureFailback" && instance != "HyperVReplicaAzure")
    t.mistake("instanceType", "must be HyperVReplicaAzureFailback or HyperVReplicaAzure");
  parsed(t, "dataSyncOption", request.data_sync, parse_data_sync, "ForDownTime or ForSynchronization");
  t.text("providerIdForAlternateRecovery", request.alternate_host);
  const auto creation = [](std::string_view text) -> std::optional<bool> {
    if (to_lower(text) == "createvmifnotfound") return true;
    if (to_lower(text) == "noaction") return false;
    return std::nullopt;
  };
  parsed(t, "recoveryVmCreationOption", request.create_vm_if_not_found, creation, "CreateVmIfNotFound or NoAction");
}

void read_complete(TableReader& t, CompletePolicy& policy) {
  parsed(t, "mode", policy.mode, parse_complete_mode, "manual, automatic, scheduled or window");
  std::uint64_t budget_s = 0;
  t.number("downtimeBudgetSeconds", budget_s, 1, 30 * 24 * 3600);
  policy.downtime_budget_s = static_cast<double>(budget_s);
  parsed(t, "at", policy.at_unix_s, parse_iso_time, kTime);
  parsed(t, "windowStart", policy.window_start_unix_s, parse_iso_time, kTime);
  parsed(t, "windowEnd", policy.window_end_unix_s, parse_iso_time, kTime);
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
  // The SDK sends an object for an item and an array for a plan; one of them, whichever it is.
  const auto* properties = body.if_contains("properties");
  const auto* provider = properties != nullptr && properties->is_object()
                             ? properties->get_object().if_contains("providerSpecificDetails")
                             : nullptr;
  const bool array = provider != nullptr && provider->is_array();
  BH_RETURN_IF_ERROR(read_body(body, [&](TableReader& t) {
    read_direction(t, request.direction);
    std::size_t count = 0;
    const auto one = [&](TableReader& p) {
      ++count;
      read_provider(p, request);
    };
    array ? t.tables("providerSpecificDetails", one) : t.table("providerSpecificDetails", one);
    if (count > 1) t.mistake("providerSpecificDetails", "must have at most one entry");
    t.table("backhaul", [&](TableReader& b) {
      b.table("complete", [&](TableReader& c) { read_complete(c, request.complete); });
      bool force = false;
      b.boolean("allowForcedShutdown", force);
      if (b.has("allowForcedShutdown")) request.allow_forced_shutdown = force;
    });
  }));
  return request;
}

Result<bool> read_commit(const boost::json::object& body) {
  bool delete_disks = false;
  BH_RETURN_IF_ERROR(read_body(body, [&](TableReader& t) {
    t.table("backhaul", [&](TableReader& b) { b.boolean("deleteSourceDisks", delete_disks); });
  }));
  return delete_disks;
}

Result<void> read_reprotect(const boost::json::object& body) {
  return read_body(body, [&](TableReader& t) {
    std::optional<Direction> direction;
    read_direction(t, direction);
    if (direction == Direction::recovery_to_primary)
      t.mistake("failoverDirection", "must be PrimaryToRecovery: that is where protection goes");
    t.table("providerSpecificDetails", [&](TableReader& p) {
      ignored(p,
              {"instanceType", "hvHostVmId", "vmName", "osType", "vHDId", "storageAccountId", "logStorageAccountId"});
    });
  });
}

Result<void> read_remove(const boost::json::object& body) {
  return read_body(body, [&](TableReader& t) {
    ignored(t, {"disableProtectionReason"});
    t.table("replicationProviderInput", [&](TableReader& p) { ignored(p, {"instanceType"}); });
  });
}

Result<std::string> read_resume(const boost::json::object& body) {
  std::string comments;
  BH_RETURN_IF_ERROR(read_body(body, [&](TableReader& t) {
    t.text("comments", comments);
    if (comments.size() > 1000) t.mistake("comments", "has at most 1000 bytes");
  }));
  return comments;
}

Result<void> read_nothing(const boost::json::object& body) {
  return read_body(body, [](TableReader&) {});
}

Result<TokenRequest> read_token(const boost::json::object& body) {
  TokenRequest request;
  BH_RETURN_IF_ERROR(read_body(
      body,
      [&](TableReader& t) {
        std::string role;
        t.text("role", role, Need::required);
        if (const auto found = parse_role(role))
          request.role = *found;
        else if (!role.empty())
          t.mistake("role", "must be Reader, Operator or Admin");
        t.number("lifetimeSeconds", request.lifetime_s, 1, std::uint64_t{100} * 366 * 24 * 3600);
      },
      Need::required));
  return request;
}

namespace {

// The envelope's one field, as an object.
Result<boost::json::object> properties_of(const boost::json::object& body) {
  for (const auto& entry : body)
    if (entry.key() != "properties")
      return make_error(ApiErrc::bad_field,
                        fmt::format("body: {}: is no known key; known are properties", std::string_view(entry.key())));
  const auto* properties = body.if_contains("properties");
  if (properties == nullptr || !properties->is_object())
    return make_error(ApiErrc::bad_field, "body: properties: must be an object");
  return properties->get_object();
}

}  // namespace

Result<Item> read_item(const boost::json::object& body, std::string_view id) {
  BH_TRY(const auto properties, properties_of(body));
  return parse_item_json(properties, id);
}

namespace {

struct ArmPlan {
  std::vector<PlanGroup> boot;
  std::vector<PlanAction> shutdown_start, shutdown_end, failover_start, failover_end;
  bool has_shutdown = false, has_failover = false;
};

// Seconds, or HH:MM:SS.
std::optional<std::uint32_t> parse_timeout(std::string_view text) {
  std::uint32_t total = 0, part = 0, colons = 0;
  bool digit = false;
  for (const char c : text) {
    if (c >= '0' && c <= '9') {
      part = part * 10 + static_cast<std::uint32_t>(c - '0');
      digit = true;
      if (part > 86400) return std::nullopt;
    } else if (c == ':' && digit && ++colons <= 2) {
      total = (total + part) * 60;
      part = 0;
      digit = false;
    } else {
      return std::nullopt;
    }
  }
  if (!digit || (colons != 0 && colons != 2)) return std::nullopt;
  return total + part;
}

void read_arm_action(TableReader& t, std::vector<PlanAction>& actions) {
  PlanAction& action = actions.emplace_back();
  t.text("actionName", action.name, Need::required);
  std::vector<std::string> types, directions;
  t.texts("failoverTypes", types);
  t.texts("failoverDirections", directions);
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
  t.table(
      "customDetails",
      [&](TableReader& d) {
        std::string kind;
        d.text("instanceType", kind, Need::required);
        if (kind == "ManualActionDetails") {
          action.manual = true;
          d.text("description", action.text);
        } else if (kind == "ScriptActionDetails") {
          std::string path;
          d.text("path", path, Need::required);
          action.command = {path};
          parsed(d, "timeout", action.timeout_s, parse_timeout, "seconds, or HH:MM:SS");
          ignored(d, {"fabricLocation"});
        } else if (!kind.empty()) {
          d.mistake("instanceType", "must be ManualActionDetails or ScriptActionDetails");
        }
      },
      Need::required);
}

void read_arm_group(TableReader& t, ArmPlan& plan) {
  std::string type;
  t.text("groupType", type, Need::required);
  std::vector<std::string> items;
  t.tables("replicationProtectedItems", [&](TableReader& i) {
    std::string id;
    i.text("id", id, Need::required);
    ignored(i, {"virtualMachineId"});
    const auto slash = id.rfind('/');
    items.push_back(slash == std::string::npos ? id : id.substr(slash + 1));
  });
  std::vector<PlanAction> start, end;
  t.tables("startGroupActions", [&](TableReader& a) { read_arm_action(a, start); });
  t.tables("endGroupActions", [&](TableReader& a) { read_arm_action(a, end); });
  if (type == "Boot") {
    PlanGroup& group = plan.boot.emplace_back();
    group.name = fmt::format("Group-{}", plan.boot.size());
    t.table("backhaul", [&](TableReader& b) { b.text("name", group.name); });
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
Result<RecoveryPlan> from_arm(ArmPlan arm, std::string_view id) {
  RecoveryPlan plan;
  plan.id = id;
  plan.groups = std::move(arm.boot);
  if (plan.groups.empty()) return make_error(ApiErrc::bad_field, "body: properties.groups: has no Boot group");
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
  BH_TRY(const auto properties, properties_of(body));
  if (!is_arm_shape(properties)) return parse_plan_json(properties, id);
  ArmPlan arm;
  BH_RETURN_IF_ERROR(read_body(body, [&](TableReader& t) {
    ignored(t, {"primaryFabricId", "recoveryFabricId", "failoverDeploymentModel"});
    t.tables("providerSpecificInput", [](TableReader& p) {
      ignored(p, {"instanceType", "primaryZone", "recoveryZone"});
    });
    t.tables(
        "groups", [&](TableReader& g) { read_arm_group(g, arm); }, Need::required);
  }));
  BH_TRY(RecoveryPlan plan, from_arm(std::move(arm), id));
  // Once more as a declaration, for the rules that span several keys.
  return parse_plan_json(declared_json(plan), id);
}

}  // namespace backhaul
