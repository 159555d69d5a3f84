#include "control/jobs/job_flow.h"

#include <algorithm>

#include "control/jobs/operations.h"

namespace backhaul {
namespace {

void end_job(Job& job, JobState state, std::int64_t now_unix_s) {
  set_state(job, state);
  job.ended_unix_s = now_unix_s;
  job.waiting_for.clear();
}

// After a planned failover the item is at the target.
void end_failover(const Job& job, Item& item, std::int64_t now_unix_s, std::chrono::seconds minute) {
  Location& here = job.direction == Direction::recovery_to_primary ? item.primary : item.recovery;
  here = job.target;
  here.vm_exists = true;
  item.failover_job = job.id;
  set_state(item, ItemState::planned_failover_commit_pending);
  if (item.commit_policy.mode != CommitMode::none)
    item.commit_deadline_unix_s = now_unix_s + minute.count() * std::int64_t{item.commit_policy.minutes};
}

void end_commit(const Job& job, Item& item) {
  item.commit_deadline_unix_s = 0;
  if (job.direction == Direction::recovery_to_primary) {
    item.recovery.vm_exists = false;
    if (job.delete_source_disks) {
      item.protected_until_unix_s = 0;
      item.forget_start();  // its base, the kept disks, is gone
    }
    set_state(item, ItemState::planned_failover_committed);
  } else {
    item.earlier_failover_committed = true;
    item.protected_until_unix_s = 0;
    set_state(item, ItemState::failover_committed);
  }
}

// Cancel and undo lead back to the resting state.
void end_back(Transaction& transaction, const Job& job, Item& item, std::int64_t now_unix_s,
              const std::string& spare_id) {
  item.commit_deadline_unix_s = 0;
  item.forget_start();
  if (job.kind == JobKind::cancel_failover && job.target_started)
    (job.direction == Direction::recovery_to_primary ? item.primary : item.recovery) = job.target_before;
  set_state(item, item.resting_state);
  if (item.resting_state == ItemState::protected_) add_replication_job(transaction, item, spare_id, now_unix_s);
}

void end_item(Transaction& transaction, const Job& job, Item& item, std::int64_t now_unix_s,
              const std::string& spare_id, std::chrono::seconds minute) {
  if (job.kind == JobKind::replication) {
    item.replication_job.clear();
    if (item.remove_requested) transaction.remove_item(item.id);
    return;
  }
  item.current_job.clear();
  if (job.rolling_back) return end_back(transaction, job, item, now_unix_s, spare_id);
  switch (job.kind) {
    case JobKind::planned_failover: return end_failover(job, item, now_unix_s, minute);
    case JobKind::commit: return end_commit(job, item);
    case JobKind::cancel_failover: return end_back(transaction, job, item, now_unix_s, spare_id);
    case JobKind::reprotect:
      item.protected_until_unix_s = job.round.point_unix_s;
      set_state(item, ItemState::protected_);
      return add_replication_job(transaction, item, spare_id, now_unix_s, job.round.base_token);
    default: return;
  }
}

ItemState failed_state(const Job& job) {
  switch (job.kind) {
    case JobKind::commit: return ItemState::commit_failed;
    case JobKind::cancel_failover: return ItemState::cancel_failover_failed;
    case JobKind::reprotect: return ItemState::planned_failover_committed;
    default: return ItemState::planned_failover_failed;
  }
}

}  // namespace

Job make_job(JobKind kind, std::string id, DataSync sync, std::string actor, std::int64_t now_unix_s) {
  Job job;
  job.id = std::move(id);
  job.kind = kind;
  job.started_by = std::move(actor);
  job.created_unix_s = now_unix_s;
  for (TaskKind task : tasks_of(kind, sync)) job.tasks.push_back({task});
  return job;
}

void enter_task(Job& job, std::int64_t now_unix_s) {
  Task& task = job.tasks[job.current_task];
  task.state = TaskState::in_progress;
  if (task.started_unix_s == 0) task.started_unix_s = now_unix_s;
  if (job.started_unix_s == 0) job.started_unix_s = now_unix_s;
  job.ended_unix_s = 0;
  const bool waits =
      (task.kind == TaskKind::wait_for_complete || task.kind == TaskKind::plan_wait) && !job.complete_requested;
  set_state(job, JobState::in_progress);
  job.waiting_for.clear();
  if (waits) {
    set_state(job, JobState::suspended);
    job.waiting_for = "Complete Failover";
  }
}

void complete_task(Transaction& transaction, Job& job, Item* item, std::int64_t now_unix_s, const std::string& spare_id,
                   std::chrono::seconds minute) {
  Task& task = job.tasks[job.current_task];
  task.state = TaskState::succeeded;
  task.ended_unix_s = now_unix_s;
  job.actions.clear();
  job.group = job.step = 0;
  set_state(job, JobState::in_progress);
  if (job.current_task + 1 < job.tasks.size()) {
    ++job.current_task;
    return enter_task(job, now_unix_s);
  }
  end_job(job, job.rolling_back ? JobState::cancelled : JobState::succeeded, now_unix_s);
  if (item != nullptr) end_item(transaction, job, *item, now_unix_s, spare_id, minute);
}

void begin_rollback(Transaction& transaction, Job& job, Item* item, std::int64_t now_unix_s,
                    const std::string& spare_id, std::chrono::seconds minute) {
  set_state(job, JobState::in_progress);
  for (std::size_t i = job.current_task; i < job.tasks.size(); ++i) {
    Task& task = job.tasks[i];
    task.state = task.state == TaskState::not_started ? TaskState::skipped : TaskState::cancelled;
    task.ended_unix_s = now_unix_s;
  }
  job.actions.clear();
  job.rolling_back = true;
  const auto rollback = rollback_tasks(job.kind);
  if (rollback.empty()) {
    end_job(job, JobState::cancelled, now_unix_s);
    if (item != nullptr) end_item(transaction, job, *item, now_unix_s, spare_id, minute);
    return;
  }
  job.current_task = static_cast<std::uint32_t>(job.tasks.size());
  for (TaskKind task : rollback) job.tasks.push_back({task});
  enter_task(job, now_unix_s);
}

void note_error(Job& job, JobError error) {
  if (!job.errors.empty() && job.errors.back().code == error.code && job.errors.back().cause == error.cause)
    job.errors.pop_back();
  job.errors.push_back(std::move(error));
  if (job.errors.size() > kMaxJobErrors) job.errors.erase(job.errors.begin());
}

void fail_job(Job& job, Item* item, JobError error) {
  job.tasks[job.current_task].state = TaskState::failed;
  job.tasks[job.current_task].ended_unix_s = error.at_unix_s;
  set_state(job, JobState::in_progress);
  end_job(job, JobState::failed, error.at_unix_s);
  note_error(job, std::move(error));
  if (item != nullptr && job.kind != JobKind::replication) set_state(*item, failed_state(job));
}

bool must_go_forward(const Job& job) {
  return std::any_of(job.actions.begin(), job.actions.end(),
                     [](const ActionRecord& action) { return action.key.starts_with("swap/"); }) &&
         (job.task() == TaskKind::cycle || job.task() == TaskKind::initial_replication);
}

bool cancel_is_due(const Job& job) { return job.cancel_requested && !job.rolling_back && !must_go_forward(job); }

}  // namespace backhaul
