// A recovery plan's job: starts its items' jobs, opens their gates group by group, runs the actions between. The items'
// jobs move the data.
#include <fmt/format.h>
#include <boost/json.hpp>

#include <algorithm>

#include "control/jobs/estimate.h"
#include "control/jobs/job_flow.h"
#include "control/jobs/operations.h"
#include "control/jobs/tasks.h"

namespace backhaul {
namespace {

struct Child {
  std::string item;
  std::optional<Job> job;
};

std::vector<std::string> plan_items_of(const RecoveryPlan& plan) {
  std::vector<std::string> items;
  for (const auto& group : plan.groups) items.insert(items.end(), group.items.begin(), group.items.end());
  return items;
}

// The newest job that this plan job started for each item of `items`.
Result<std::vector<Child>> children_of(JobContext& c, const std::vector<std::string>& items) {
  std::vector<Child> children;
  children.reserve(items.size());
  for (const auto& item : items) children.push_back({item, {}});
  for (const auto& id : c.job.children) {
    BH_TRY(Job child, c.services.records.job(id));
    const auto slot =
        std::find_if(children.begin(), children.end(), [&](const Child& known) { return known.item == child.item; });
    if (slot != children.end()) slot->job = std::move(child);
  }
  return children;
}

std::size_t index_of(const Job& job, TaskKind task) {
  for (std::size_t i = 0; i < job.tasks.size(); ++i)
    if (job.tasks[i].kind == task) return i;
  return job.tasks.size();
}

bool lost(const Child& child) {
  return !child.job || child.job->state == JobState::failed || child.job->state == JobState::cancelled ||
         child.job->rolling_back;
}
bool is_past(const Child& child, TaskKind task) {
  return child.job && !lost(child) && child.job->current_task > index_of(*child.job, task);
}
bool succeeded(const Child& child) { return child.job && child.job->state == JobState::succeeded; }

// True when all have `reached`; an error when all but the failed ones have; else false.
template <class Reached>
Result<bool> all_reached(const std::vector<Child>& children, Reached reached) {
  std::string failed;
  for (const auto& child : children) {
    if (lost(child))
      failed += (failed.empty() ? "" : ", ") + child.item + (child.job ? " (job " + child.job->id + ")" : "");
    else if (!reached(child))
      return false;
  }
  if (!failed.empty()) return make_error(ControlErrc::item_failed, failed);
  return true;
}

using StartChild = std::function<Result<bool>(Transaction&, const std::string& item, const Start&)>;

// Starts the jobs that are missing. An item that refuses becomes an error of the plan; the others go on.
Result<void> start_children(JobContext& c, const std::vector<std::string>& items, const StartChild& start_child) {
  BH_TRY(auto children, children_of(c, items));
  for (const auto& child : children) {
    if (child.job && child.job->state != JobState::cancelled) continue;
    BH_TRY(std::string id, c.new_job_id());
    auto started = c.services.records.transact([&](Transaction& transaction) -> Result<void> {
      BH_TRY(Job * plan_job, transaction.job(c.job.id));
      if (cancel_is_due(*plan_job)) return make_error(BaseErrc::cancelled, "plan");
      BH_TRY(bool added,
             start_child(transaction, child.item, {id, c.job.started_by, c.now_unix_s(), c.job.plan, c.job.id}));
      if (added) plan_job->children.push_back(id);
      return {};
    });
    if (!started && started.error().code() == BaseErrc::cancelled) return started;
    if (!started)
      BH_RETURN_IF_ERROR(
          c.update([&](Job& job, Item&) { note_error(job, to_job_error(started.error(), c.now_unix_s())); }));
  }
  return c.refresh();
}

Result<void> open_gates(JobContext& c, const std::vector<Child>& children, bool boot) {
  for (const auto& child : children) {
    if (lost(child) || has_ended(child.job->state)) continue;
    if (boot ? child.job->gates.boot : child.job->gates.shutdown && child.job->complete_requested) continue;
    const auto open = [&](Transaction& transaction) -> Result<void> {
      BH_TRY(Job * job, transaction.job(child.job->id));
      if (has_ended(job->state)) return {};
      if (boot) job->gates.boot = true;
      job->gates.shutdown = true;
      job->complete_requested = true;
      if (job->state == JobState::suspended) set_state(*job, JobState::in_progress);
      job->waiting_for.clear();
      return {};
    };
    BH_RETURN_IF_ERROR(c.services.records.transact(open));
  }
  return {};
}

Result<void> next_step(JobContext& c) {
  return c.update([](Job& job, Item&) { ++job.step; });
}

// One action: a command, recorded before and after; or a manual step that suspends the plan until resume.
Result<Step> run_action(JobContext& c, const PlanGroup& group, const char* when, const PlanAction& action) {
  if (action.direction != "both" && action.direction != to_string(c.job.direction)) {
    BH_RETURN_IF_ERROR(next_step(c));
    return Step::repeat();
  }
  if (action.manual) {
    bool confirmed = false;
    BH_RETURN_IF_ERROR(c.update([&](Job& job, Item&) {
      confirmed = job.manual_confirmed;
      if (confirmed) {
        job.manual_confirmed = false;
        ++job.step;
      } else if (!job.cancel_requested) {
        set_state(job, JobState::suspended);
        job.waiting_for = action.name + ": " + action.text;
      }
    }));
    return confirmed ? Step::repeat() : Step::after(c.pace.look);
  }
  const auto run = [&]() -> Result<boost::json::value> {
    boost::json::array items(group.items.begin(), group.items.end());
    boost::json::object about{{"plan", c.job.plan},    {"group", group.name}, {"when", when},
                              {"action", action.name}, {"job", c.job.id},     {"items", std::move(items)}};
    auto done = c.services.run_action(action, about);
    if (!done) return std::move(done).error().with_context("action " + action.name);
    return boost::json::value(nullptr);
  };
  BH_RETURN_IF_ERROR(c.once({ActionKind::command, fmt::format("{}/{}/{}", group.name, when, c.job.step)}, run, {},
                            [](Job& job, Item&, const boost::json::value&) { ++job.step; }));
  return Step::repeat();
}

struct Phase {
  bool boot;
  const char* before_name;
  const char* after_name;
  std::vector<PlanAction> PlanGroup::*before;
  std::vector<PlanAction> PlanGroup::*after;
};
constexpr Phase kShutdown{false, "before-shutdown", "after-shutdown", &PlanGroup::before_shutdown,
                          &PlanGroup::after_shutdown};
constexpr Phase kBoot{true, "before-boot", "after-boot", &PlanGroup::before_boot, &PlanGroup::after_boot};

// job.group counts groups in this phase's order; job.step counts the group's actions before, its items, its actions
// after.
Result<Step> run_groups(JobContext& c, const Phase& phase) {
  BH_TRY(RecoveryPlan plan, c.services.records.plan(c.job.plan));
  if (c.job.group >= plan.groups.size()) return Step::finished();
  const bool reversed = !phase.boot && !plan.shutdown_in_boot_order;
  const PlanGroup& group = plan.groups[reversed ? plan.groups.size() - 1 - c.job.group : c.job.group];
  const auto& before = group.*phase.before;
  const auto& after = group.*phase.after;
  const std::size_t step = c.job.step;
  if (step < before.size()) return run_action(c, group, phase.before_name, before[step]);
  if (step == before.size()) {
    BH_TRY(auto children, children_of(c, group.items));
    BH_RETURN_IF_ERROR(open_gates(c, children, phase.boot));
    BH_TRY(children, children_of(c, group.items));
    BH_TRY(bool reached, all_reached(children, [&](const Child& child) {
             return phase.boot ? succeeded(child) : succeeded(child) || is_past(child, TaskKind::shutdown_source);
           }));
    if (!reached) return Step::after(c.pace.look);
    BH_RETURN_IF_ERROR(next_step(c));
    return Step::repeat();
  }
  if (step - before.size() - 1 < after.size())
    return run_action(c, group, phase.after_name, after[step - before.size() - 1]);
  BH_RETURN_IF_ERROR(c.update([](Job& job, Item&) {
    ++job.group;
    job.step = 0;
  }));
  return Step::repeat();
}

}  // namespace

Result<Step> plan_replicate(JobContext& c) {
  BH_TRY(RecoveryPlan plan, c.services.records.plan(c.job.plan));
  const auto items = plan_items_of(plan);
  const StartChild start_child = [&](Transaction& transaction, const std::string& item,
                                     const Start& start) -> Result<bool> {
    PlannedFailoverRequest request = c.job.request;
    request.complete = {};  // the plan decides when
    BH_RETURN_IF_ERROR(start_planned_failover(transaction, item, request, start));
    return true;
  };
  BH_RETURN_IF_ERROR(start_children(c, items, start_child));
  BH_TRY(auto children, children_of(c, items));
  const TaskKind waits_in =
      c.job.request.data_sync == DataSync::for_down_time ? TaskKind::wait_for_complete : TaskKind::shutdown_source;
  BH_TRY(bool ready, all_reached(children, [&](const Child& child) {
           return succeeded(child) || child.job->current_task >= index_of(*child.job, waits_in);
         }));
  return ready ? Step::finished() : Step::after(c.pace.look);
}

Result<Step> plan_wait(JobContext& c) {
  if (c.job.complete_requested) return Step::finished();
  double projected = 0;
  std::uint64_t next = 0;
  for (const auto& id : c.job.children) {
    BH_TRY(Job child, c.services.records.job(id));
    projected = std::max(projected, child.projected_downtime_s);
    next += child.next_delta_bytes;
  }
  if (projected != c.job.projected_downtime_s || next != c.job.next_delta_bytes)
    BH_RETURN_IF_ERROR(c.update(
        [&](Job& job, Item&) {
          job.projected_downtime_s = projected;
          job.next_delta_bytes = next;
        },
        Durability::relaxed));
  if (completes_now(c.job.request.complete, projected, c.now_unix_s())) {
    BH_RETURN_IF_ERROR(c.update([](Job& job, Item&) {
      if (!job.cancel_requested) job.complete_requested = true;
    }));
    return Step::repeat();
  }
  return Step::after(c.pace.look);
}

Result<Step> plan_shutdown(JobContext& c) { return run_groups(c, kShutdown); }
Result<Step> plan_boot(JobContext& c) { return run_groups(c, kBoot); }

Result<Step> plan_items(JobContext& c) {
  BH_TRY(RecoveryPlan plan, c.services.records.plan(c.job.plan));
  const bool commit = c.job.kind == JobKind::plan_commit;
  std::vector<std::string> items;
  for (const auto& id : plan_items_of(plan)) {
    // An item that is done is skipped: a restart tries only what failed.
    BH_TRY(Item item, c.services.records.item(id));
    const bool done = item.state == (commit ? ItemState::planned_failover_committed : ItemState::protected_) ||
                      (commit && item.state == ItemState::failover_committed);
    if (!done) items.push_back(id);
  }
  const StartChild start_child = [&](Transaction& transaction, const std::string& item,
                                     const Start& start) -> Result<bool> {
    if (commit) return start_commit(transaction, item, c.job.delete_source_disks, start);
    BH_RETURN_IF_ERROR(start_reprotect(transaction, item, start));
    return true;
  };
  BH_RETURN_IF_ERROR(start_children(c, items, start_child));
  BH_TRY(auto children, children_of(c, items));
  BH_TRY(bool ended, all_reached(children, succeeded));
  return ended ? Step::finished() : Step::after(c.pace.look);
}

Result<bool> cancel_plan_items(JobContext& c) {
  bool resting = true;
  for (const auto& id : c.job.children) {
    BH_TRY(Job child, c.services.records.job(id));
    if (child.state == JobState::succeeded || child.state == JobState::cancelled) continue;
    if (child.state == JobState::failed) {
      // A job that failed before its target ran gets one Undo job.
      BH_TRY(std::string undo, c.new_job_id());
      const auto bring_back = [&](Transaction& transaction) -> Result<void> {
        BH_TRY(Item * item, transaction.item(child.item));
        if (item->state != ItemState::planned_failover_failed || item->current_job != child.id) return {};
        auto started =
            start_cancel(transaction, child.item, {undo, c.job.started_by, c.now_unix_s(), c.job.plan, c.job.id});
        if (!started) return started.error();
        return {};
      };
      BH_RETURN_IF_ERROR(c.services.records.transact(bring_back));
      continue;
    }
    resting = false;
    const auto cancel = [&](Transaction& transaction) -> Result<void> {
      BH_TRY(Job * job, transaction.job(id));
      if (!is_allowed(JobVerb::cancel, *job)) return {};  // its target starts: too late to cancel
      return request_cancel(transaction, id);
    };
    BH_RETURN_IF_ERROR(c.services.records.transact(cancel));
  }
  return resting;
}

}  // namespace backhaul
