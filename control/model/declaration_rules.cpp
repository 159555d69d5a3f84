// What declared items and plans must satisfy before they are stored.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "control/model/control_error.h"
#include "control/model/declaration.h"
#include "dataplane/nbd/nbd.h"

namespace backhaul {
namespace {

Error invalid(std::string what) { return make_error(ControlErrc::invalid, std::move(what)); }

constexpr std::string_view kFormats[] = {"raw", "vhdx", "vhdx-fixed"};
constexpr std::string_view kVerifies[] = {"none", "written", "full"};
constexpr std::string_view kCompressions[] = {"auto", "off", "zstd"};

bool one_of(std::span<const std::string_view> values, std::string_view value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

// A disk that is only exported can be a source, so not one at the primary site.
Result<void> check_export(const DiskPlace& disk, const Location& location, const char* name) {
  if (!is_nbd_uri(disk.path)) return {};
  const auto wrong = [&](std::string_view why) {
    return invalid(fmt::format("{}.disks.{}: {}", name, disk.name, why));
  };
  if (!location.host.empty()) return wrong("a failback writes here, and an NBD export is only read");
  if (disk.format != "raw") return wrong("an NBD export is raw");
  if (auto checked = check_nbd_uri(disk.path); !checked)
    return wrong(checked.error().message() + ": " + checked.error().cause());
  return {};
}

Result<void> check_location(const Location& location, const char* name) {
  if (location.driver.empty()) return invalid(fmt::format("{}.driver is missing", name));
  if (location.disks.empty()) return invalid(fmt::format("{}.disks is empty", name));
  std::set<std::string> names;
  for (const auto& disk : location.disks) {
    if (!is_valid_id(disk.name)) return invalid(fmt::format("{}.disks: '{}' is no valid name", name, disk.name));
    if (!names.insert(disk.name).second) return invalid(fmt::format("{}.disks: '{}' is named twice", name, disk.name));
    if (disk.path.empty()) return invalid(fmt::format("{}.disks.{}: path is missing", name, disk.name));
    if (!one_of(kFormats, disk.format))
      return invalid(
          fmt::format("{}.disks.{}: format '{}' is none of raw, vhdx, vhdx-fixed", name, disk.name, disk.format));
    BH_RETURN_IF_ERROR(check_export(disk, location, name));
  }
  return {};
}

}  // namespace

bool is_valid_id(std::string_view id) noexcept {
  const auto alphanumeric = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  if (id.empty() || id.size() > 63 || !alphanumeric(id.front())) return false;
  for (char c : id)
    if (!alphanumeric(c) && c != '.' && c != '_' && c != '-') return false;
  return true;
}

Result<void> check_item(const Item& item) {
  if (!is_valid_id(item.id))
    return invalid("an item's id has 1 to 63 letters, digits, '.', '_' or '-', and starts with a letter or digit");
  if (item.vm.name.empty()) return invalid("vm.name is missing");
  if (item.vm.generation != 1 && item.vm.generation != 2) return invalid("vm.generation is 1 or 2");
  if (item.vm.firmware != "bios" && item.vm.firmware != "uefi") return invalid("vm.firmware is bios or uefi");
  if (item.vm.memory_mib == 0 || item.vm.memory_mib > (1u << 26)) return invalid("vm.memory_mib is out of range");
  if (item.vm.cpus == 0 || item.vm.cpus > 4096) return invalid("vm.cpus is out of range");
  BH_RETURN_IF_ERROR(check_location(item.recovery, "recovery"));
  BH_RETURN_IF_ERROR(check_location(item.primary, "primary"));
  if (!item.recovery.host.empty())
    return invalid("recovery.host must be empty: the recovery site is the appliance's own");
  if (item.primary.host.empty()) return invalid("primary.host is missing: the id of the primary site's host agent");
  for (const auto& disk : item.recovery.disks)
    if (std::none_of(item.primary.disks.begin(), item.primary.disks.end(),
                     [&](const auto& other) { return other.name == disk.name; }))
      return invalid(fmt::format("primary.disks lacks disk '{}'", disk.name));
  if (item.primary.disks.size() != item.recovery.disks.size()) return invalid("both locations have the same disks");
  if (!one_of(kVerifies, item.transfer.verify)) return invalid("transfer.verify is none, written or full");
  if (!one_of(kCompressions, item.transfer.compress)) return invalid("transfer.compress is auto, off or zstd");
  if (item.transfer.lanes > 64) return invalid("transfer.lanes is at most 64");
  if (item.replication_minutes == 0 || item.replication_minutes > 24 * 60)
    return invalid("replication_minutes is 1 to 1440");
  if (item.shutdown.timeout_s == 0 || item.shutdown.timeout_s > 24 * 3600)
    return invalid("shutdown.timeout_s is 1 to 86400");
  if (item.boot.wait_s > 3600) return invalid("boot.wait_s is at most 3600");
  if (item.commit_policy.mode != CommitMode::none &&
      (item.commit_policy.minutes == 0 || item.commit_policy.minutes > 30 * 24 * 60))
    return invalid("commit_policy.minutes is 1 to 43200");
  return {};
}

Result<void> check_plan(const RecoveryPlan& plan) {
  if (!is_valid_id(plan.id))
    return invalid("a plan's id has 1 to 63 letters, digits, '.', '_' or '-', and starts with a letter or digit");
  if (plan.groups.empty() || plan.groups.size() > 64) return invalid("a plan has 1 to 64 groups");
  std::set<std::string> items, names;
  for (const auto& group : plan.groups) {
    if (!is_valid_id(group.name)) return invalid(fmt::format("group name '{}' is not valid", group.name));
    if (!names.insert(group.name).second) return invalid(fmt::format("group '{}' is named twice", group.name));
    if (group.items.size() > 256) return invalid(fmt::format("group {}: at most 256 items", group.name));
    for (const auto& item : group.items)
      if (!items.insert(item).second) return invalid(fmt::format("item '{}' is in the plan twice", item));
    for (const auto* actions : {&group.before_shutdown, &group.after_shutdown, &group.before_boot, &group.after_boot})
      for (const auto& action : *actions) {
        if (action.name.empty()) return invalid(fmt::format("group {}: an action without a name", group.name));
        if (action.manual == !action.command.empty())
          return invalid(fmt::format("group {}, action {}: either manual or a command", group.name, action.name));
        if (action.timeout_s == 0 || action.timeout_s > 24 * 3600)
          return invalid(fmt::format("group {}, action {}: timeout_s is 1 to 86400", group.name, action.name));
      }
  }
  return {};
}

}  // namespace backhaul
