#include "control/model/declaration.h"

#include <boost/json.hpp>

#include "control/model/control_error.h"
#include "control/model/model_json.h"
#include "control/model/toml_reader.h"

namespace backhaul {
namespace {

using Need = TableReader::Need;

void read_vm(TableReader& t, VmDescription& vm) {
  t.text("name", vm.name, Need::required);
  t.number("generation", vm.generation, 1, 2);
  vm.firmware = vm.generation == 1 ? "bios" : "uefi";
  t.number("memory_mib", vm.memory_mib, 1, 1u << 26, Need::required);
  t.number("cpus", vm.cpus, 1, 4096);
  t.choice("firmware", vm.firmware, {"bios", "uefi"});
  t.boolean("secure_boot", vm.secure_boot);
  t.tables("nics", [&](TableReader& n) {
    Nic& nic = vm.nics.emplace_back();
    n.text("name", nic.name, Need::required);
    n.text("network", nic.network, Need::required);
    n.text("mac", nic.mac);
  });
}

void read_location(TableReader& t, Location& location, bool primary) {
  if (primary) t.text("host", location.host, Need::required);
  t.text("driver", location.driver, Need::required);
  t.text("vm", location.vm);
  t.object("settings", location.settings);
  t.tables(
      "disks",
      [&](TableReader& d) {
        DiskPlace& disk = location.disks.emplace_back();
        d.text("name", disk.name, Need::required);
        d.text("path", disk.path, Need::required);
        d.choice("format", disk.format, {"raw", "vhdx", "vhdx-fixed"});
        d.number("size_bytes", disk.size_bytes);
      },
      Need::required);
}

void read_item(TableReader& t, Item& item) {
  t.text("id", item.id, Need::required);
  t.boolean("earlier_failover_committed", item.earlier_failover_committed);
  t.number("replication_minutes", item.replication_minutes, 1, 24 * 60);
  t.table(
      "vm", [&](TableReader& v) { read_vm(v, item.vm); }, Need::required);
  t.table(
      "recovery", [&](TableReader& l) { read_location(l, item.recovery, false); }, Need::required);
  t.table(
      "primary", [&](TableReader& l) { read_location(l, item.primary, true); }, Need::required);
  t.table("commit_policy", [&](TableReader& p) {
    std::string mode(to_string(item.commit_policy.mode));
    p.choice("mode", mode, {"none", "commit-after", "undo-after"});
    item.commit_policy.mode = *parse_commit_mode(mode);
    p.number("minutes", item.commit_policy.minutes, 1, 30 * 24 * 60);
    p.boolean("health_check", item.commit_policy.health_check);
  });
  t.table("transfer", [&](TableReader& x) {
    x.number("lanes", item.transfer.lanes, 0, 64);
    x.number("limit_bytes_per_s", item.transfer.limit_bytes_per_s);
    x.choice("verify", item.transfer.verify, {"none", "written", "full"});
    x.choice("compress", item.transfer.compress, {"auto", "off", "zstd"});
  });
  t.table("shutdown", [&](TableReader& s) {
    s.number("timeout_s", item.shutdown.timeout_s, 1, 24 * 3600);
    s.boolean("allow_force", item.shutdown.allow_force);
  });
  t.table("boot", [&](TableReader& b) { b.number("wait_s", item.boot.wait_s, 0, 3600); });
}

void read_actions(TableReader& t, const char* key, std::vector<PlanAction>& actions) {
  t.tables(key, [&](TableReader& a) {
    PlanAction& action = actions.emplace_back();
    a.text("name", action.name, Need::required);
    a.boolean("manual", action.manual);
    a.text("text", action.text);
    a.texts("command", action.command);
    a.number("timeout_s", action.timeout_s, 1, 24 * 3600);
    a.choice("direction", action.direction, {"both", "RecoveryToPrimary", "PrimaryToRecovery"});
  });
}

void read_plan(TableReader& t, RecoveryPlan& plan) {
  t.text("id", plan.id, Need::required);
  t.boolean("shutdown_in_boot_order", plan.shutdown_in_boot_order);
  t.tables(
      "groups",
      [&](TableReader& g) {
        PlanGroup& group = plan.groups.emplace_back();
        g.text("name", group.name, Need::required);
        g.texts("items", group.items);
        read_actions(g, "before_shutdown", group.before_shutdown);
        read_actions(g, "after_shutdown", group.after_shutdown);
        read_actions(g, "before_boot", group.before_boot);
        read_actions(g, "after_boot", group.after_boot);
      },
      Need::required);
}

// Reads, then applies the rules that span several keys.
template <class T, class Read, class Check>
Result<T> declared(const toml::table& table, Mistakes& mistakes, Read read, Check check) {
  T value;
  {
    TableReader reader(table, "", mistakes);
    read(reader, value);
  }
  if (mistakes.none())
    if (auto checked = check(value); !checked) mistakes.add(table.source(), "", checked.error().cause());
  if (!mistakes.none()) return mistakes.to_error();
  return value;
}

template <class T, class Read, class Check>
Result<T> from_toml(std::string_view text, std::string_view name, Read read, Check check) {
  Mistakes mistakes(name);
  auto table = parse_toml(text, mistakes);
  if (!table) return mistakes.to_error();
  return declared<T>(*table, mistakes, read, check);
}

template <class T, class Read, class Check>
Result<T> from_json(const boost::json::object& body, std::string_view id, std::string_view what, Read read,
                    Check check) {
  boost::json::object named = body;
  Mistakes mistakes(what);
  if (const auto* given = named.if_contains("id"); given != nullptr && *given != boost::json::value(id))
    return make_error(ControlErrc::bad_file,
                      std::string(what) + ": id: must be '" + std::string(id) + "', as in the path");
  named["id"] = id;
  return declared<T>(to_toml(named), mistakes, read, check);
}

// The stored form without what the runner keeps; its keys are the declaration's.
boost::json::object only(std::string_view stored, std::initializer_list<std::string_view> keys) {
  boost::json::object all = boost::json::parse(stored).as_object(), kept;
  for (auto key : keys) kept[key] = all[key];
  return kept;
}

}  // namespace

Result<Item> parse_item_toml(std::string_view text, std::string_view name) {
  return from_toml<Item>(text, name, read_item, check_item);
}
Result<RecoveryPlan> parse_plan_toml(std::string_view text, std::string_view name) {
  return from_toml<RecoveryPlan>(text, name, read_plan, check_plan);
}
Result<Item> parse_item_json(const boost::json::object& body, std::string_view id) {
  return from_json<Item>(body, id, "item", read_item, check_item);
}
Result<RecoveryPlan> parse_plan_json(const boost::json::object& body, std::string_view id) {
  return from_json<RecoveryPlan>(body, id, "plan", read_plan, check_plan);
}

boost::json::object declared_json(const Item& item) {
  auto object = only(to_json(item), {"id", "vm", "recovery", "primary", "earlier_failover_committed", "commit_policy",
                                     "transfer", "shutdown", "boot", "replication_minutes"});
  for (const char* site : {"recovery", "primary"}) object[site].as_object().erase("vm_exists");
  object["recovery"].as_object().erase("host");
  if (item.commit_policy.mode == CommitMode::none) object.erase("commit_policy");
  return object;
}
boost::json::object declared_json(const RecoveryPlan& plan) {
  return only(to_json(plan), {"id", "groups", "shutdown_in_boot_order"});
}

}  // namespace backhaul
