// The rules of declared items and plans that no single field says.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "control/model/control_error.h"
#include "control/model/declaration.h"
#include "dataplane/nbd/nbd.h"

namespace backhaul {
namespace {

Error invalid(std::string what) { return make_error(ControlErrc::invalid, std::move(what)); }

// A disk that is only exported can be a source, so not one at the primary site.
Result<void> check_export(const DiskPlace& disk, const Location& location, const char* name) {
  if (!is_nbd_uri(disk.path)) return {};
  const auto wrong = [&](std::string_view why) {
    return invalid(fmt::format("{}.disks.{}: {}", name, disk.name, why));
  };
  if (!location.host.empty()) return wrong("a failback writes here, and an NBD export is only read");
  if (disk.format != DiskFormat::raw) return wrong("an NBD export is raw");
  if (auto checked = check_nbd_uri(disk.path); !checked)
    return wrong(checked.error().message() + ": " + checked.error().cause());
  return {};
}

Result<void> check_location(const Location& location, const char* name) {
  std::set<std::string> names;
  for (const auto& disk : location.disks) {
    if (!is_valid_id(disk.name)) return invalid(fmt::format("{}.disks: '{}' is no valid name", name, disk.name));
    if (!names.insert(disk.name).second) return invalid(fmt::format("{}.disks: '{}' is named twice", name, disk.name));
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
  BH_RETURN_IF_ERROR(check_location(item.recovery, "recovery"));
  BH_RETURN_IF_ERROR(check_location(item.primary, "primary"));
  if (!item.recovery.host.empty())
    return invalid("recovery.host must be empty: the recovery site is the appliance's own");
  for (const auto& disk : item.recovery.disks)
    if (std::none_of(item.primary.disks.begin(), item.primary.disks.end(),
                     [&](const auto& other) { return other.name == disk.name; }))
      return invalid(fmt::format("primary.disks lacks disk '{}'", disk.name));
  if (item.primary.disks.size() != item.recovery.disks.size()) return invalid("both locations have the same disks");
  if (item.commit_policy.mode != CommitMode::none && item.commit_policy.minutes == 0)
    return invalid("commit_policy.minutes is needed with this mode");
  return {};
}

Result<void> check_plan(const RecoveryPlan& plan) {
  if (!is_valid_id(plan.id))
    return invalid("a plan's id has 1 to 63 letters, digits, '.', '_' or '-', and starts with a letter or digit");
  std::set<std::string> items, names;
  for (const auto& group : plan.groups) {
    if (!is_valid_id(group.name)) return invalid(fmt::format("group name '{}' is not valid", group.name));
    if (!names.insert(group.name).second) return invalid(fmt::format("group '{}' is named twice", group.name));
    for (const auto& item : group.items)
      if (!items.insert(item).second) return invalid(fmt::format("item '{}' is in the plan twice", item));
    for (const auto* actions : {&group.before_shutdown, &group.after_shutdown, &group.before_boot, &group.after_boot})
      for (const auto& action : *actions)
        if (action.manual == !action.command.empty())
          return invalid(fmt::format("group {}, action {}: either manual or a command", group.name, action.name));
  }
  return {};
}

}  // namespace backhaul
