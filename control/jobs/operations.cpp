#include "control/jobs/operations.h"

#include <fmt/format.h>

#include <utility>

#include "control/jobs/job_flow.h"
#include "dataplane/nbd/nbd.h"

namespace backhaul {
namespace {

Job job_for(JobKind kind, const Start& start, const Item& item, DataSync sync = DataSync::for_down_time) {
  Job job = make_job(kind, start.job_id, sync, start.actor, start.now_unix_s);
  job.item = item.id;
  job.plan = start.plan;
  job.parent = start.parent;
  return job;
}

// Commit and undo take over what the planned failover's job knew.
Result<Job> job_after_failover(Transaction& transaction, JobKind kind, const Start& start, const Item& item) {
  Job job = job_for(kind, start, item);
  const std::string& id = item.failover_job.empty() ? item.current_job : item.failover_job;
  BH_TRY(const Job* failover, transaction.job(id));
  job.direction = failover->direction;
  job.source = failover->source;
  job.target = failover->target;
  job.target_before = failover->target_before;
  job.round = failover->round;
  job.source_shut_down = failover->source_shut_down;
  job.target_touched = failover->target_touched;
  job.target_started = failover->target_started;
  return job;
}

// When the kept disks at the target are known to be what the VM was started from, the first round sends only what it
// has written since.
void begin_with_start(Job& job, const Item& item) {
  if (item.start_roots.empty()) return;
  job.round.base_token = item.start_token;
  job.round.base_roots = item.start_roots;
}

ItemState running_state(JobKind kind) {
  switch (kind) {
    case JobKind::commit: return ItemState::commit_in_progress;
    case JobKind::cancel_failover: return ItemState::cancel_failover_in_progress;
    case JobKind::reprotect: return ItemState::reprotect_in_progress;
    default: return ItemState::planned_failover_in_progress;
  }
}

}  // namespace

Result<void> require_verb(const Item& item, ItemVerb verb) {
  if (is_allowed(verb, item.state)) return {};
  return make_error(ControlErrc::forbidden_in_phase,
                    fmt::format("{} of item {} in state {}", to_string(verb), item.id, to_string(item.state)));
}

Result<void> require_verb(const Job& job, JobVerb verb) {
  if (is_allowed(verb, job)) return {};
  return make_error(ControlErrc::forbidden_in_phase, fmt::format("{} of job {} in state {} at task {}", to_string(verb),
                                                                 job.id, to_string(job.state), to_string(job.task())));
}

Result<FailoverPath> failover_path(const Item& item, const PlannedFailoverRequest& request) {
  BH_RETURN_IF_ERROR(require_verb(item, ItemVerb::planned_failover));
  FailoverPath path;
  path.direction = *planned_failover_direction(item.state);
  if (request.direction && *request.direction != path.direction)
    return make_error(
        ControlErrc::forbidden_in_phase,
        fmt::format("plannedFailover {} of item {} in state {}, where only {} is possible",
                    to_string(*request.direction), item.id, to_string(item.state), to_string(path.direction)));
  path.source = item.at(path.direction, true);
  path.target = item.at(path.direction, false);
  if (!request.alternate_host.empty()) {
    if (path.direction != Direction::recovery_to_primary)
      return make_error(ControlErrc::invalid, "an alternate location is possible only for RecoveryToPrimary");
    if (request.alternate_host != path.target.host) path.target.vm_exists = false;
    path.target.host = request.alternate_host;
  }
  if (!path.target.vm_exists && !request.create_vm_if_not_found && !request.alternate_host.empty())
    return make_error(ControlErrc::invalid,
                      "the alternate location has no such VM: recoveryVmCreationOption must be CreateVmIfNotFound");
  return path;
}

Result<void> start_planned_failover(Transaction& transaction, std::string_view id,
                                    const PlannedFailoverRequest& request, const Start& start) {
  BH_TRY(Item * item, transaction.item(id));
  BH_TRY(FailoverPath path, failover_path(*item, request));
  Job job = job_for(JobKind::planned_failover, start, *item, request.data_sync);
  job.request = request;
  // To the recovery site waiting gains nothing: manual becomes automatic, except in a plan.
  if (path.direction == Direction::primary_to_recovery && request.complete.mode == CompleteMode::manual &&
      start.parent.empty())
    job.request.complete.mode = CompleteMode::automatic;
  job.direction = path.direction;
  job.source = std::move(path.source);
  job.target = std::move(path.target);
  job.target_before = item->at(path.direction, false);
  if (!start.parent.empty()) job.gates = {false, false};
  if (!item->replication_job.empty()) {
    BH_TRY(Job * replication, transaction.job(item->replication_job));
    if (!has_ended(replication->state)) replication->cancel_requested = true;
  }
  // The VM here was started from the disks kept at the primary site; an alternate location has none.
  if (path.direction == Direction::recovery_to_primary && job.target.host == item->primary.host)
    begin_with_start(job, *item);
  item->forget_start();
  item->direction = job.direction;
  item->resting_state = item->state;
  item->current_job = job.id;
  item->failover_job = job.id;
  set_state(*item, ItemState::planned_failover_in_progress);
  transaction.add(std::move(job));
  return {};
}

Result<bool> start_commit(Transaction& transaction, std::string_view id, bool delete_source_disks, const Start& start) {
  BH_TRY(Item * item, transaction.item(id));
  BH_RETURN_IF_ERROR(require_verb(*item, ItemVerb::failover_commit));
  if (item->state == ItemState::failover_commit_pending) {
    item->earlier_failover_committed = true;
    set_state(*item, ItemState::failover_committed);
    return false;
  }
  BH_TRY(Job job, job_after_failover(transaction, JobKind::commit, start, *item));
  job.delete_source_disks = delete_source_disks;
  item->current_job = job.id;
  item->commit_deadline_unix_s = 0;
  set_state(*item, ItemState::commit_in_progress);
  transaction.add(std::move(job));
  return true;
}

Result<bool> start_cancel(Transaction& transaction, std::string_view id, const Start& start) {
  BH_TRY(Item * item, transaction.item(id));
  BH_RETURN_IF_ERROR(require_verb(*item, ItemVerb::failover_cancel));
  if (item->state == ItemState::planned_failover_in_progress) {
    BH_RETURN_IF_ERROR(request_cancel(transaction, item->current_job));
    return false;
  }
  BH_TRY(Job job, job_after_failover(transaction, JobKind::cancel_failover, start, *item));
  item->current_job = job.id;
  item->commit_deadline_unix_s = 0;
  set_state(*item, ItemState::cancel_failover_in_progress);
  transaction.add(std::move(job));
  return true;
}

Result<void> start_reprotect(Transaction& transaction, std::string_view id, const Start& start) {
  BH_TRY(Item * item, transaction.item(id));
  BH_RETURN_IF_ERROR(require_verb(*item, ItemVerb::reprotect));
  for (const auto& disk : item->recovery.disks)
    if (is_nbd_uri(disk.path))
      return make_error(NbdErrc::read_only, fmt::format("disk {} at the recovery site of item {}", disk.name, id));
  Job job = job_for(JobKind::reprotect, start, *item);
  job.direction = Direction::primary_to_recovery;
  job.source = item->primary;
  job.target = item->recovery;
  begin_with_start(job, *item);
  item->forget_start();
  item->current_job = job.id;
  item->resting_state = ItemState::planned_failover_committed;
  set_state(*item, ItemState::reprotect_in_progress);
  transaction.add(std::move(job));
  return {};
}

void add_replication_job(Transaction& transaction, Item& item, const std::string& id, std::int64_t now_unix_s,
                         std::string base_token) {
  Job job = job_for(JobKind::replication, {id, "appliance", now_unix_s, {}, {}}, item);
  job.direction = Direction::primary_to_recovery;
  job.source = item.primary;
  job.target = item.recovery;
  job.round.base_token = std::move(base_token);
  job.round.point_unix_s = item.protected_until_unix_s;
  item.replication_job = id;
  transaction.add(std::move(job));
}

Result<void> request_resume(Transaction& transaction, std::string_view id) {
  BH_TRY(Job * job, transaction.job(id));
  BH_RETURN_IF_ERROR(require_verb(*job, JobVerb::resume));
  if (job->task() == TaskKind::plan_shutdown || job->task() == TaskKind::plan_boot)
    job->manual_confirmed = true;
  else
    job->complete_requested = true;
  set_state(*job, JobState::in_progress);
  job->waiting_for.clear();
  return {};
}

Result<void> request_cancel(Transaction& transaction, std::string_view id) {
  BH_TRY(Job * job, transaction.job(id));
  if (job->cancel_requested && !has_ended(job->state)) return {};  // cancelled before
  BH_RETURN_IF_ERROR(require_verb(*job, JobVerb::cancel));
  job->cancel_requested = true;
  if (job->state != JobState::not_started) set_state(*job, JobState::in_progress);
  job->waiting_for.clear();
  return {};
}

Result<void> restart_failed(Transaction& transaction, std::string_view id, std::int64_t now_unix_s) {
  BH_TRY(Job * job, transaction.job(id));
  BH_RETURN_IF_ERROR(require_verb(*job, JobVerb::restart));
  if (!job->item.empty()) {
    BH_TRY(Item * item, transaction.item(job->item));
    if (item->current_job != job->id)
      return make_error(ControlErrc::forbidden_in_phase,
                        fmt::format("job {}: item {} is held by job {}", job->id, item->id, item->current_job));
    set_state(*item, running_state(job->kind));
  }
  // A plan restarts those of its items that failed and that nobody else has taken over.
  for (const auto& child_id : job->children) {
    BH_TRY(const Job* child, transaction.job(child_id));
    if (child->state != JobState::failed) continue;
    BH_TRY(const Item* item, transaction.item(child->item));
    if (item->current_job == child_id) BH_RETURN_IF_ERROR(restart_failed(transaction, child_id, now_unix_s));
  }
  enter_task(*job, now_unix_s);
  return {};
}

}  // namespace backhaul
