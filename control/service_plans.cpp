// The service's recovery plans, and what declared items and plans must satisfy.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "control/job_flow.h"
#include "control/preflight.h"
#include "control/service_state.h"
#include "dataplane/nbd.h"

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
    BH_CHECK(check_export(disk, location, name));
  }
  return {};
}

Result<std::vector<Item>> items_of(Records& records, const RecoveryPlan& plan) {
  std::vector<Item> items;
  for (const auto& group : plan.groups)
    for (const auto& id : group.items) {
      BH_TRY(items.emplace_back(), records.item(id));
    }
  return items;
}

Result<void> start_plan_job(Transaction& transaction, std::string_view id, JobKind kind, const Start& start,
                            const PlannedFailoverRequest& request, bool delete_source_disks) {
  BH_TRY(RecoveryPlan * plan, transaction.plan(id));
  if (!plan->current_job.empty()) {
    auto current = transaction.job(plan->current_job);
    if (current && !has_ended((*current)->state))
      return make_error(ControlErrc::forbidden_in_phase,
                        fmt::format("plan {} is held by job {}", id, plan->current_job));
  }
  Job job = make_job(kind, start.job_id, request.data_sync, start.actor, start.now_unix_s);
  job.plan = id;
  job.request = request;
  job.direction = request.direction.value_or(Direction::recovery_to_primary);
  job.delete_source_disks = delete_source_disks;
  plan->current_job = job.id;
  transaction.add(std::move(job));
  return {};
}

// Every item must allow the verb; for commit and reProtect at least one, since what is done already is left alone.
Result<void> require_items(const std::vector<Item>& items, ItemVerb verb) {
  const bool any = verb != ItemVerb::planned_failover;
  std::string refused;
  std::size_t allowed = 0;
  for (const auto& item : items) {
    if (is_allowed(verb, item.state))
      ++allowed;
    else
      refused += fmt::format("{}{} ({})", refused.empty() ? "" : ", ", item.id, to_string(item.state));
  }
  if (any ? allowed > 0 : refused.empty()) return {};
  return make_error(ControlErrc::forbidden_in_phase,
                    fmt::format("{}: {}", to_string(verb), refused.empty() ? "the plan has no items" : refused));
}

}  // namespace

Result<void> check_item(const Item& item) {
  if (!is_valid_id(item.id))
    return invalid("an item's id has 1 to 63 letters, digits, '.', '_' or '-', and starts with a letter or digit");
  if (item.vm.name.empty()) return invalid("vm.name is missing");
  if (item.vm.generation != 1 && item.vm.generation != 2) return invalid("vm.generation is 1 or 2");
  if (item.vm.firmware != "bios" && item.vm.firmware != "uefi") return invalid("vm.firmware is bios or uefi");
  if (item.vm.memory_mib == 0 || item.vm.memory_mib > (1u << 26)) return invalid("vm.memory_mib is out of range");
  if (item.vm.cpus == 0 || item.vm.cpus > 4096) return invalid("vm.cpus is out of range");
  BH_CHECK(check_location(item.recovery, "recovery"));
  BH_CHECK(check_location(item.primary, "primary"));
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

Result<std::vector<RecoveryPlan>> Service::list_plans() { return state_->records.plans(); }
Result<RecoveryPlan> Service::get_plan(std::string_view id) { return state_->records.plan(id); }

Result<RecoveryPlan> Service::put_plan(const Actor& actor, const RecoveryPlan& plan,
                                       std::optional<std::uint64_t> expected_version) {
  auto& s = *state_;
  auto accepted =
      s.verb(actor, Role::admin, "plan.put", "plan/" + plan.id, [&](Transaction& transaction) -> Result<void> {
        BH_CHECK(check_plan(plan));
        for (const auto& group : plan.groups)
          for (const auto& item : group.items)
            if (!s.records.item(item)) return invalid(fmt::format("group {}: there is no item '{}'", group.name, item));
        auto found = transaction.plan(plan.id);
        if (!found && found.error() != make_error_code(ControlErrc::not_found)) return found.error();
        const std::uint64_t version = found ? (*found)->version : 0;
        if (expected_version && *expected_version != version)
          return make_error(ControlErrc::conflict,
                            fmt::format("plan {} has version {}, not {}", plan.id, version, *expected_version));
        if (!found) {
          BH_TRY(auto all, s.records.plans());
          if (all.size() >= s.limits.max_plans)
            return make_error(ControlErrc::busy, fmt::format("{} plans are declared", all.size()));
          RecoveryPlan fresh = plan;
          fresh.current_job.clear();
          transaction.add(std::move(fresh));
          return {};
        }
        RecoveryPlan& stored = **found;
        if (!stored.current_job.empty()) {
          auto job = transaction.job(stored.current_job);
          if (job && !has_ended((*job)->state))
            return make_error(ControlErrc::forbidden_in_phase,
                              fmt::format("plan {} is held by job {}", plan.id, stored.current_job));
        }
        stored.groups = plan.groups;
        stored.shutdown_in_boot_order = plan.shutdown_in_boot_order;
        return {};
      });
  BH_CHECK(std::move(accepted));
  return s.records.plan(plan.id);
}

Result<void> Service::remove_plan(const Actor& actor, std::string_view id,
                                  std::optional<std::uint64_t> expected_version) {
  return state_->verb(
      actor, Role::admin, "plan.remove", "plan/" + std::string(id), [&](Transaction& transaction) -> Result<void> {
        BH_TRY(const RecoveryPlan* plan, transaction.plan(id));
        if (expected_version && *expected_version != plan->version)
          return make_error(ControlErrc::conflict,
                            fmt::format("plan {} has version {}, not {}", id, plan->version, *expected_version));
        if (!plan->current_job.empty()) {
          auto job = transaction.job(plan->current_job);
          if (job && !has_ended((*job)->state))
            return make_error(ControlErrc::forbidden_in_phase,
                              fmt::format("plan {} is held by job {}", id, plan->current_job));
        }
        transaction.remove_plan(id);
        return {};
      });
}

Result<std::string> Service::plan_planned_failover(const Actor& actor, std::string_view id,
                                                   const PlannedFailoverRequest& request) {
  auto& s = *state_;
  const std::string object = "plan/" + std::string(id);
  BH_TRY(Start start, s.new_start(actor));
  PlannedFailoverRequest complete = request;
  const auto checked = [&]() -> Result<void> {
    BH_CHECK(s.require_role(actor, Role::operator_));
    BH_TRY(RecoveryPlan plan, s.records.plan(id));
    BH_TRY(auto items, items_of(s.records, plan));
    BH_CHECK(require_items(items, ItemVerb::planned_failover));
    if (items.empty()) return make_error(ControlErrc::invalid, "the plan has no items");
    for (const auto& item : items) {
      BH_TRY(FailoverPath path, failover_path(item, request));
      if (complete.direction && *complete.direction != path.direction)
        return make_error(ControlErrc::forbidden_in_phase,
                          fmt::format("item {} goes {}, others do not", item.id, to_string(path.direction)));
      complete.direction = path.direction;
      PreflightReport report = run_preflight(s.world, item, path.source, path.target, request);
      if (const Check* failed = first_failed(report))
        return make_error(
            ControlErrc::precondition_failed,
            fmt::format("item {}: {}: {}: {}. {}", item.id, failed->name, failed->code, failed->cause, failed->fix));
    }
    return {};
  };
  if (auto passed = checked(); !passed) {
    s.audit(actor, "plan.plannedFailover", object, "refused", passed.error().to_string());
    return passed.error();
  }
  BH_CHECK(s.verb(actor, Role::operator_, "plan.plannedFailover", object, [&](Transaction& transaction) {
    return start_plan_job(transaction, id, JobKind::plan_planned_failover, start, complete, false);
  }));
  return start.job_id;
}

Result<std::string> Service::plan_commit(const Actor& actor, std::string_view id, bool delete_source_disks) {
  auto& s = *state_;
  BH_TRY(Start start, s.new_start(actor));
  auto accepted = s.verb(actor, Role::operator_, "plan.failoverCommit", "plan/" + std::string(id),
                         [&](Transaction& transaction) -> Result<void> {
                           BH_TRY(const RecoveryPlan* plan, transaction.plan(id));
                           BH_TRY(auto items, items_of(s.records, *plan));
                           BH_CHECK(require_items(items, ItemVerb::failover_commit));
                           return start_plan_job(transaction, id, JobKind::plan_commit, start, {}, delete_source_disks);
                         });
  BH_CHECK(std::move(accepted));
  return start.job_id;
}

Result<std::string> Service::plan_re_protect(const Actor& actor, std::string_view id) {
  auto& s = *state_;
  BH_TRY(Start start, s.new_start(actor));
  auto accepted = s.verb(actor, Role::operator_, "plan.reProtect", "plan/" + std::string(id),
                         [&](Transaction& transaction) -> Result<void> {
                           BH_TRY(const RecoveryPlan* plan, transaction.plan(id));
                           BH_TRY(auto items, items_of(s.records, *plan));
                           BH_CHECK(require_items(items, ItemVerb::re_protect));
                           return start_plan_job(transaction, id, JobKind::plan_reprotect, start, {}, false);
                         });
  BH_CHECK(std::move(accepted));
  return start.job_id;
}

Result<std::vector<std::string_view>> Service::allowed_plan_operations(const RecoveryPlan& plan) {
  if (!plan.current_job.empty()) {
    auto job = state_->records.job(plan.current_job);
    if (job && !has_ended(job->state)) return std::vector<std::string_view>();
  }
  BH_TRY(auto items, items_of(state_->records, plan));
  std::vector<std::string_view> names;
  for (ItemVerb verb : {ItemVerb::planned_failover, ItemVerb::failover_commit, ItemVerb::re_protect})
    if (!items.empty() && require_items(items, verb)) names.push_back(operation_name(verb));
  return names;
}

}  // namespace backhaul
