#include "control/model/phases.h"

#include <cctype>

namespace backhaul {
namespace {

constexpr auto N(auto value) { return static_cast<std::size_t>(value); }

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::tolower(static_cast<unsigned char>(a[i])) != std::tolower(static_cast<unsigned char>(b[i]))) return false;
  return true;
}

template <class Enum, std::size_t Count, class Row>
std::optional<Enum> parse_name(const Row (&rows)[Count], std::string_view text) {
  for (std::size_t i = 0; i < Count; ++i)
    if (equal_ignoring_case(rows[i].name, text)) return static_cast<Enum>(i);
  return std::nullopt;
}

struct Named {
  std::string_view name;
  std::string_view description = {};
};

constexpr Named kDataSyncs[] = {{"ForDownTime"}, {"ForSynchronization"}};
constexpr Named kDirections[] = {{"RecoveryToPrimary"}, {"PrimaryToRecovery"}};

constexpr Named kItemNames[kItemStates] = {
    {"FailoverCommitPending", "Runs at the recovery site; the earlier failover is not committed"},
    {"FailoverCommitted", "Runs at the recovery site; may be failed back"},
    {"PlannedFailoverInProgress", "A planned failover is in progress"},
    {"PlannedFailoverFailed", "The planned failover failed; restart or cancel it"},
    {"PlannedFailoverCommitPending", "Runs at the target; commit or undo"},
    {"CommitInProgress", "The failover is being committed"},
    {"CommitFailed", "Committing the failover failed; commit again"},
    {"CancelFailoverInProgress", "The source VM is being brought back"},
    {"CancelFailoverFailed", "Bringing the source VM back failed; cancel again"},
    {"PlannedFailoverCommitted", "Runs at the primary site; not protected"},
    {"ReprotectInProgress", "First replication to the recovery site"},
    {"Protected", "Runs at the primary site; replicated to the recovery site"},
};

// Row: from. A set bit: that state may follow.
constexpr unsigned bit(ItemState state) { return 1u << N(state); }
using IS = ItemState;
constexpr unsigned kItemFollows[kItemStates] = {
    /* failover_commit_pending */ bit(IS::failover_committed),
    /* failover_committed */ bit(IS::planned_failover_in_progress),
    /* planned_failover_in_progress */ bit(IS::planned_failover_failed) | bit(IS::planned_failover_commit_pending) |
        bit(IS::failover_committed) | bit(IS::protected_),
    /* planned_failover_failed */ bit(IS::planned_failover_in_progress) | bit(IS::cancel_failover_in_progress),
    /* planned_failover_commit_pending */ bit(IS::commit_in_progress) | bit(IS::cancel_failover_in_progress),
    /* commit_in_progress */ bit(IS::commit_failed) | bit(IS::planned_failover_committed) | bit(IS::failover_committed),
    /* commit_failed */ bit(IS::commit_in_progress),
    /* cancel_failover_in_progress */ bit(IS::cancel_failover_failed) | bit(IS::failover_committed) |
        bit(IS::protected_),
    /* cancel_failover_failed */ bit(IS::cancel_failover_in_progress),
    /* planned_failover_committed */ bit(IS::reprotect_in_progress),
    /* reprotect_in_progress */ bit(IS::planned_failover_committed) | bit(IS::protected_),
    /* protected_ */ bit(IS::planned_failover_in_progress),
};

struct VerbRow {
  std::string_view name, operation;
};
constexpr VerbRow kItemVerbNames[kItemVerbs] = {
    {"plannedFailover", "PlannedFailover"},
    {"failoverCommit", "Commit"},
    {"failoverCancel", "CancelFailover"},
    {"reProtect", "ReverseReplicate"},
    {"update", "Update"},
    {"remove", "DisableProtection"},
    {"preflight", "Preflight"},
};

// Columns: plannedFailover, failoverCommit, failoverCancel, reProtect, update, remove, preflight.
constexpr bool kItemVerbTable[kItemStates][kItemVerbs] = {
    /* failover_commit_pending */ {0, 1, 0, 0, 1, 1, 1},
    /* failover_committed */ {1, 0, 0, 0, 1, 1, 1},
    /* planned_failover_in_progress */ {0, 0, 1, 0, 0, 0, 0},
    /* planned_failover_failed */ {0, 0, 1, 0, 0, 0, 1},
    /* planned_failover_commit_pending */ {0, 1, 1, 0, 0, 0, 0},
    /* commit_in_progress */ {0, 0, 0, 0, 0, 0, 0},
    /* commit_failed */ {0, 1, 0, 0, 0, 0, 0},
    /* cancel_failover_in_progress */ {0, 0, 0, 0, 0, 0, 0},
    /* cancel_failover_failed */ {0, 0, 1, 0, 0, 0, 0},
    /* planned_failover_committed */ {0, 0, 0, 1, 1, 1, 0},
    /* reprotect_in_progress */ {0, 0, 0, 0, 0, 0, 0},
    /* protected_ */ {1, 0, 0, 0, 0, 1, 1},
};

constexpr Named kJobNames[kJobStates] = {{"NotStarted"}, {"InProgress"}, {"Succeeded"},
                                         {"Failed"},     {"Cancelled"},  {"Suspended"}};
constexpr Named kJobKindNames[kJobKinds] = {
    {"PlannedFailover"},     {"Commit"},     {"CancelFailover"},       {"ReverseReplicate"}, {"Replication"},
    {"PlanPlannedFailover"}, {"PlanCommit"}, {"PlanReverseReplicate"},
};

constexpr unsigned bit(JobState state) { return 1u << N(state); }
using JS = JobState;
constexpr unsigned kJobFollows[kJobStates] = {
    /* not_started */ bit(JS::in_progress) | bit(JS::cancelled),
    /* in_progress */ bit(JS::suspended) | bit(JS::succeeded) | bit(JS::failed) | bit(JS::cancelled),
    /* succeeded */ 0,
    /* failed */ bit(JS::in_progress),
    /* cancelled */ 0,
    /* suspended */ bit(JS::in_progress),
};

// In which job states a verb is allowed, for each current task.
struct TaskRow {
  std::string_view name, description;
  unsigned cancel, resume, restart;
};
constexpr unsigned kRunning = bit(JS::not_started) | bit(JS::in_progress) | bit(JS::suspended);
constexpr unsigned kFailed = bit(JS::failed);
constexpr unsigned kInProgress = bit(JS::in_progress);
constexpr unsigned kSuspended = bit(JS::suspended);
constexpr TaskRow kTaskTable[kTaskKinds] = {
    {"PrepareFailover", "Checking both sites", kRunning, 0, kFailed},
    {"Replicate", "Sending changes while the VM runs", kRunning, kInProgress, kFailed},
    {"WaitForComplete", "Waiting for Complete Failover", kRunning, kSuspended, kFailed},
    {"ShutdownSource", "Shutting down the source VM", kRunning, 0, kFailed},
    {"FinalDelta", "Sending the last changes", kRunning, 0, kFailed},
    {"FullDownload", "Sending the whole disks", kRunning, 0, kFailed},
    {"SwapDisks", "Putting the new disks in place", kRunning, 0, kFailed},
    {"StartTarget", "Starting the VM at the target", 0, 0, kFailed},
    {"DeleteSourceVm", "Deleting the source VM", 0, 0, kFailed},
    {"SettleCommit", "Completing the commit", 0, 0, kFailed},
    {"StopTarget", "Stopping the VM at the target", 0, 0, kFailed},
    {"GiveBackDisks", "Giving the old disks back", 0, 0, kFailed},
    {"StartSource", "Starting the source VM", 0, 0, kFailed},
    {"PrepareReprotect", "Checking both sites", kRunning, 0, kFailed},
    {"InitialReplication", "First replication to the recovery site", kRunning, 0, kFailed},
    {"Cycle", "Replicating in cycles", 0, 0, 0},
    {"PlanReplicate", "Sending changes of all items", kRunning, kInProgress, kFailed},
    {"PlanWait", "Waiting for Complete Failover", kRunning, kSuspended, kFailed},
    {"PlanShutdown", "Shutting down group by group", kRunning, kSuspended, kFailed},
    {"PlanBoot", "Starting group by group", kRunning, kSuspended, kFailed},
    {"PlanItems", "Running the items' jobs", 0, 0, kFailed},
};

using TK = TaskKind;
constexpr TaskKind kDelta[] = {TK::prepare_failover, TK::replicate,  TK::wait_for_complete, TK::shutdown_source,
                               TK::final_delta,      TK::swap_disks, TK::start_target};
constexpr TaskKind kFull[] = {TK::prepare_failover, TK::shutdown_source, TK::full_download, TK::swap_disks,
                              TK::start_target};
constexpr TaskKind kCommit[] = {TK::delete_source_vm, TK::complete_commit};
constexpr TaskKind kUndo[] = {TK::stop_target, TK::give_back_disks, TK::start_source};
constexpr TaskKind kReprotect[] = {TK::prepare_reprotect, TK::initial_replication};
constexpr TaskKind kReplication[] = {TK::cycle};
constexpr TaskKind kPlanDelta[] = {TK::plan_replicate, TK::plan_wait, TK::plan_shutdown, TK::plan_boot};
constexpr TaskKind kPlanFull[] = {TK::plan_replicate, TK::plan_shutdown, TK::plan_boot};
constexpr TaskKind kPlanItems[] = {TK::plan_items};
constexpr TaskKind kRollbackFailover[] = {TK::give_back_disks, TK::start_source};
constexpr TaskKind kRollbackDisks[] = {TK::give_back_disks};

}  // namespace

std::string_view to_string(DataSync sync) noexcept { return kDataSyncs[N(sync)].name; }
std::optional<DataSync> parse_data_sync(std::string_view text) noexcept {
  return parse_name<DataSync>(kDataSyncs, text);
}
std::string_view to_string(Direction direction) noexcept { return kDirections[N(direction)].name; }
std::optional<Direction> parse_direction(std::string_view text) noexcept {
  return parse_name<Direction>(kDirections, text);
}

std::string_view to_string(ItemState state) noexcept { return kItemNames[N(state)].name; }
std::string_view describe(ItemState state) noexcept { return kItemNames[N(state)].description; }
std::optional<ItemState> parse_item_state(std::string_view text) noexcept {
  return parse_name<ItemState>(kItemNames, text);
}

std::string_view to_string(ItemVerb verb) noexcept { return kItemVerbNames[N(verb)].name; }
std::string_view operation_name(ItemVerb verb) noexcept { return kItemVerbNames[N(verb)].operation; }

bool may_follow(ItemState from, ItemState to) noexcept { return (kItemFollows[N(from)] & bit(to)) != 0; }
bool is_allowed(ItemVerb verb, ItemState state) noexcept { return kItemVerbTable[N(state)][N(verb)]; }

std::vector<std::string_view> allowed_operations(ItemState state) {
  std::vector<std::string_view> names;
  for (std::size_t i = 0; i < kItemVerbs; ++i) {
    auto verb = static_cast<ItemVerb>(i);
    if (verb != ItemVerb::update && verb != ItemVerb::preflight && is_allowed(verb, state))
      names.push_back(operation_name(verb));
  }
  return names;
}

std::optional<Direction> planned_failover_direction(ItemState state) noexcept {
  if (!is_allowed(ItemVerb::planned_failover, state)) return std::nullopt;
  return state == ItemState::protected_ ? Direction::primary_to_recovery : Direction::recovery_to_primary;
}

std::string_view to_string(JobState state) noexcept { return kJobNames[N(state)].name; }
std::optional<JobState> parse_job_state(std::string_view text) noexcept {
  return parse_name<JobState>(kJobNames, text);
}
std::string_view to_string(JobKind kind) noexcept { return kJobKindNames[N(kind)].name; }
std::optional<JobKind> parse_job_kind(std::string_view text) noexcept {
  return parse_name<JobKind>(kJobKindNames, text);
}
std::string_view to_string(TaskKind task) noexcept { return kTaskTable[N(task)].name; }
std::string_view describe(TaskKind task) noexcept { return kTaskTable[N(task)].description; }
std::optional<TaskKind> parse_task_kind(std::string_view text) noexcept {
  return parse_name<TaskKind>(kTaskTable, text);
}

std::span<const TaskKind> tasks_of(JobKind kind, DataSync sync) noexcept {
  const bool delta = sync == DataSync::for_down_time;
  switch (kind) {
    case JobKind::planned_failover: return delta ? std::span<const TaskKind>(kDelta) : kFull;
    case JobKind::commit: return kCommit;
    case JobKind::cancel_failover: return kUndo;
    case JobKind::reprotect: return kReprotect;
    case JobKind::replication: return kReplication;
    case JobKind::plan_planned_failover: return delta ? std::span<const TaskKind>(kPlanDelta) : kPlanFull;
    case JobKind::plan_commit:
    case JobKind::plan_reprotect: return kPlanItems;
  }
  return {};
}

std::span<const TaskKind> rollback_tasks(JobKind kind) noexcept {
  switch (kind) {
    case JobKind::planned_failover: return kRollbackFailover;
    case JobKind::reprotect:
    case JobKind::replication: return kRollbackDisks;
    default: return {};
  }
}

std::string_view to_string(JobVerb verb) noexcept {
  constexpr std::string_view kNames[kJobVerbs] = {"Resume", "Cancel", "Restart"};
  return kNames[N(verb)];
}

bool may_follow(JobState from, JobState to) noexcept { return (kJobFollows[N(from)] & bit(to)) != 0; }

bool is_allowed(JobVerb verb, JobState state, TaskKind task) noexcept {
  const TaskRow& row = kTaskTable[N(task)];
  const unsigned states[kJobVerbs] = {row.resume, row.cancel, row.restart};
  return (states[N(verb)] & bit(state)) != 0;
}

}  // namespace backhaul
