// The phases of items and jobs, as tables (docs/phases.md). Each table answers one question, in one function here: may
// this state follow that one, or is this verb allowed now. A transition that the table does not know is our defect, and
// the caller asserts; a verb that it does not allow is the operator's mistake, and becomes
// ControlErrc::forbidden_in_phase. allowedOperations and allowedActions come from the same tables, so they promise
// nothing that a verb refuses.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace backhaul {

// Site Recovery's data sync options; parsed case-insensitively, emitted exactly as ForDownTime and ForSynchronization.
enum class DataSync : std::uint8_t { for_down_time, for_synchronization };
std::string_view to_string(DataSync sync) noexcept;
std::optional<DataSync> parse_data_sync(std::string_view text) noexcept;

enum class Direction : std::uint8_t { recovery_to_primary, primary_to_recovery };
std::string_view to_string(Direction direction) noexcept;  // RecoveryToPrimary, PrimaryToRecovery
std::optional<Direction> parse_direction(std::string_view text) noexcept;

enum class ItemState : std::uint8_t {
  failover_commit_pending,          // runs at the recovery site; the earlier failover is not committed yet
  failover_committed,               // runs at the recovery site; may be failed back
  planned_failover_in_progress,     // a planned failover job holds the item (either direction)
  planned_failover_failed,          // that job failed before the target ran; restart, cancel
  planned_failover_commit_pending,  // runs at the target; the source VM is off and whole
  commit_in_progress,
  commit_failed,                // only commit again: part of the source may be gone
  cancel_failover_in_progress,  // the way back: target off, old disks back where they are kept, source VM on
  cancel_failover_failed,       // only cancel again
  planned_failover_committed,   // runs at the primary site, not protected
  reprotect_in_progress,        // the first replication primary to recovery
  protected_,                   // runs at the primary site, replicated in cycles
};
inline constexpr std::size_t kItemStates = 12;
std::string_view to_string(ItemState state) noexcept;  // "PlannedFailoverCommitPending", ...
std::string_view describe(ItemState state) noexcept;   // a sentence for people
std::optional<ItemState> parse_item_state(std::string_view text) noexcept;

enum class ItemVerb : std::uint8_t {
  planned_failover,
  failover_commit,
  failover_cancel,
  reprotect,
  update,
  remove,
  preflight
};
inline constexpr std::size_t kItemVerbs = 7;
std::string_view to_string(ItemVerb verb) noexcept;       // "plannedFailover", ...: the verb in a path
std::string_view operation_name(ItemVerb verb) noexcept;  // "PlannedFailover", "Commit", "ReverseReplicate", ...

bool may_follow(ItemState from, ItemState to) noexcept;
bool is_allowed(ItemVerb verb, ItemState state) noexcept;
// The operation names of all verbs that are allowed now, in the order of ItemVerb (update and preflight are no Site
// Recovery operations and left out).
std::vector<std::string_view> allowed_operations(ItemState state);
// The direction that a planned failover has in this state; nothing where none is allowed.
std::optional<Direction> planned_failover_direction(ItemState state) noexcept;

enum class JobState : std::uint8_t { not_started, in_progress, succeeded, failed, cancelled, suspended };
inline constexpr std::size_t kJobStates = 6;
std::string_view to_string(JobState state) noexcept;  // "NotStarted", "InProgress", ...
std::optional<JobState> parse_job_state(std::string_view text) noexcept;
constexpr bool has_ended(JobState state) {
  return state == JobState::succeeded || state == JobState::failed || state == JobState::cancelled;
}

enum class JobKind : std::uint8_t {
  planned_failover,
  commit,
  cancel_failover,
  reprotect,
  replication,  // the endless cycles of a protected item; not listed unless asked for
  plan_planned_failover,
  plan_commit,
  plan_reprotect,
};
inline constexpr std::size_t kJobKinds = 8;
std::string_view to_string(JobKind kind) noexcept;  // "PlannedFailover", "Commit", ...: scenarioName of a job
std::optional<JobKind> parse_job_kind(std::string_view text) noexcept;
constexpr bool is_plan_job(JobKind kind) { return kind >= JobKind::plan_planned_failover; }

enum class TaskKind : std::uint8_t {
  prepare_failover,   // checks again what preflight checks
  replicate,          // first round, the VM running
  wait_for_complete,  // Suspended; delta rounds until Complete Failover
  shutdown_source,
  final_delta,       // what the last round lacks, verified
  full_download,     // ForSynchronization: everything, no digests
  swap_disks,        // the new disks get their names; the old ones are kept; then waits for its turn in a plan
  start_target,      // the point of no return for cancel
  delete_source_vm,  // commit
  complete_commit,
  stop_target,      // undo
  give_back_disks,  // undo and cancel
  start_source,     // undo and cancel
  prepare_reprotect,
  initial_replication,
  cycle,
  plan_replicate,  // plan jobs: until every item waits
  plan_wait,
  plan_shutdown,
  plan_boot,
  plan_items,  // commit, reprotect: the items' jobs in parallel
};
inline constexpr std::size_t kTaskKinds = 21;
std::string_view to_string(TaskKind task) noexcept;  // "Replicate", ...
std::string_view describe(TaskKind task) noexcept;
std::optional<TaskKind> parse_task_kind(std::string_view text) noexcept;
// The tasks of a job in order. A cancel replaces what is left by rollback_tasks().
std::span<const TaskKind> tasks_of(JobKind kind, DataSync sync) noexcept;
std::span<const TaskKind> rollback_tasks(JobKind kind) noexcept;

enum class JobVerb : std::uint8_t { resume, cancel, restart };
inline constexpr std::size_t kJobVerbs = 3;
std::string_view to_string(JobVerb verb) noexcept;  // "Resume", "Cancel", "Restart"

bool may_follow(JobState from, JobState to) noexcept;
// `task` is the job's current task (its last one when it ended).
bool is_allowed(JobVerb verb, JobState state, TaskKind task) noexcept;

}  // namespace backhaul
