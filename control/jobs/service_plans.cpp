// The service's recovery plans.
#include <fmt/format.h>

#include "control/jobs/job_flow.h"
#include "control/jobs/preflight.h"
#include "control/jobs/service_state.h"
#include "control/model/declaration.h"

namespace backhaul {
namespace {

Error invalid(std::string what) { return make_error(ControlErrc::invalid, std::move(what)); }

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

// Every item must allow the verb; for commit and reProtect at least one must, since items that are done are skipped.
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

Result<std::vector<RecoveryPlan>> Service::list_plans() { return state_->records.plans(); }
Result<RecoveryPlan> Service::get_plan(std::string_view id) { return state_->records.plan(id); }

Result<RecoveryPlan> Service::put_plan(const Actor& actor, const RecoveryPlan& plan,
                                       std::optional<std::uint64_t> expected_version) {
  auto& s = *state_;
  auto accepted =
      s.verb(actor, Role::admin, "plan.put", "plan/" + plan.id, [&](Transaction& transaction) -> Result<void> {
        BH_RETURN_IF_ERROR(check_plan(plan));
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
  BH_RETURN_IF_ERROR(std::move(accepted));
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
    BH_RETURN_IF_ERROR(s.require_role(actor, Role::operator_));
    BH_TRY(RecoveryPlan plan, s.records.plan(id));
    BH_TRY(auto items, items_of(s.records, plan));
    BH_RETURN_IF_ERROR(require_items(items, ItemVerb::planned_failover));
    if (items.empty()) return make_error(ControlErrc::invalid, "the plan has no items");
    for (const auto& item : items) {
      BH_TRY(FailoverPath path, failover_path(item, request));
      if (complete.direction && *complete.direction != path.direction)
        return make_error(ControlErrc::forbidden_in_phase,
                          fmt::format("item {} goes {}, others do not", item.id, to_string(path.direction)));
      complete.direction = path.direction;
      PreflightReport report = run_preflight(s.services, item, path.source, path.target, request);
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
  BH_RETURN_IF_ERROR(s.verb(actor, Role::operator_, "plan.plannedFailover", object, [&](Transaction& transaction) {
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
                           BH_RETURN_IF_ERROR(require_items(items, ItemVerb::failover_commit));
                           return start_plan_job(transaction, id, JobKind::plan_commit, start, {}, delete_source_disks);
                         });
  BH_RETURN_IF_ERROR(std::move(accepted));
  return start.job_id;
}

Result<std::string> Service::plan_reprotect(const Actor& actor, std::string_view id) {
  auto& s = *state_;
  BH_TRY(Start start, s.new_start(actor));
  auto accepted = s.verb(actor, Role::operator_, "plan.reProtect", "plan/" + std::string(id),
                         [&](Transaction& transaction) -> Result<void> {
                           BH_TRY(const RecoveryPlan* plan, transaction.plan(id));
                           BH_TRY(auto items, items_of(s.records, *plan));
                           BH_RETURN_IF_ERROR(require_items(items, ItemVerb::reprotect));
                           return start_plan_job(transaction, id, JobKind::plan_reprotect, start, {}, false);
                         });
  BH_RETURN_IF_ERROR(std::move(accepted));
  return start.job_id;
}

Result<std::vector<std::string_view>> Service::allowed_plan_operations(const RecoveryPlan& plan) {
  if (!plan.current_job.empty()) {
    auto job = state_->records.job(plan.current_job);
    if (job && !has_ended(job->state)) return std::vector<std::string_view>();
  }
  BH_TRY(auto items, items_of(state_->records, plan));
  std::vector<std::string_view> names;
  for (ItemVerb verb : {ItemVerb::planned_failover, ItemVerb::failover_commit, ItemVerb::reprotect})
    if (!items.empty() && require_items(items, verb)) names.push_back(operation_name(verb));
  return names;
}

}  // namespace backhaul
