// A job: one run of an operation, and all that its steps have to remember. A job is stored after every change; whatever
// runs a job reads it from the store, so that a new process goes on where the old one stopped.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "control/model/model.h"
#include "control/model/phases.h"
#include "dataplane/protocol/transfer_report.h"

namespace backhaul {

struct JobError {
  std::string code;   // "driver.failed"
  std::string cause;  // what happened, with the facts
  std::string fix;    // what the operator can do
  std::int64_t at_unix_s = 0;
  bool retryable = false;
};
JobError to_job_error(const Error& error, std::int64_t at_unix_s);

// Outside actions are recorded before and after (invariant 7). The key is unique within the task ("shutdown",
// "swap/os").
struct ActionRecord {
  std::string key;
  bool done = false;  // false: intended; whether it happened is not known, so it is repeated (all actions may be)
  boost::json::value outcome;
  std::int64_t at_unix_s = 0;
};

enum class TaskState : std::uint8_t { not_started, in_progress, succeeded, failed, cancelled, skipped };
std::string_view to_string(TaskState state) noexcept;

struct Task {
  TaskKind kind = TaskKind::prepare_failover;
  TaskState state = TaskState::not_started;
  std::int64_t started_unix_s = 0, ended_unix_s = 0;
  double seconds = 0;         // by the monotonic clock, only when one process ran it all
  std::string detail;         // a line for people
  TransferProgress progress;  // summed over the disks; only bytes, rate and time left
};

// One disk's part of a round.
struct DiskRound {
  std::string disk;
  std::string source_path;  // of the snapshot
  bool done = false;
  std::uint64_t epoch = 0;
  TransferStats stats;  // until it is done only `disk_bytes`
};

struct RoundState {
  std::uint32_t number = 0;        // 0: none yet; grows through all rounds of a job
  bool open = false;               // a snapshot is held or a transfer under way
  bool final = false;              // the source VM is off
  std::string snapshot;            // id given by us
  std::string token;               // tracker token of this round's snapshot; empty: no tracker
  std::string base_token;          // what the target holds; empty: digests must find the changes
  boost::json::object base_roots;  // disk -> root digest of the base, when it is what the source VM was started from
  std::int64_t point_unix_s = 0;   // when the snapshot was taken
  std::vector<DiskRound> disks;
  std::uint32_t failures = 0;  // in a row
};

// When Complete Failover happens by itself.
enum class CompleteMode : std::uint8_t { manual, automatic, scheduled, window };
struct CompletePolicy {
  CompleteMode mode = CompleteMode::manual;
  double downtime_budget_s = 0;  // automatic, and window when not 0: projected downtime must be below
  std::int64_t at_unix_s = 0;    // scheduled
  std::int64_t window_start_unix_s = 0, window_end_unix_s = 0;
};

struct PlannedFailoverRequest {
  std::optional<Direction> direction;  // checked against the state when given
  DataSync data_sync = DataSync::for_down_time;
  std::string alternate_host;           // providerIdForAlternateRecovery
  bool create_vm_if_not_found = false;  // recoveryVmCreationOption: CreateVmIfNotFound (else NoAction)
  CompletePolicy complete;
  std::optional<bool> allow_forced_shutdown;  // else the item's own
};

struct Estimate {
  std::uint64_t bytes = 0;  // to be sent before and in the failover
  double seconds = 0;       // until Complete Failover can be said
  double downtime_s = 0;
  std::uint64_t full_bytes = 0;  // what ForSynchronization would send, all of it in the downtime
  bool advise_for_synchronization = false;
  std::string reason;  // of the advice, or why nothing could be estimated
};

// A plan's gates: the item's job waits at a closed one (false).
struct Gates {
  bool shutdown = true, boot = true;
};

struct Job {
  std::string id;
  std::uint64_t version = 0;
  JobKind kind = JobKind::planned_failover;
  JobState state = JobState::not_started;
  std::string item;    // empty for a plan job
  std::string plan;    // plan jobs, and the item jobs that one started
  std::string parent;  // the plan job
  std::string started_by;
  std::int64_t created_unix_s = 0, started_unix_s = 0, ended_unix_s = 0;
  std::vector<Task> tasks;
  std::uint32_t current_task = 0;
  std::vector<JobError> errors;  // newest last, at most kMaxJobErrors

  PlannedFailoverRequest request;
  Direction direction = Direction::recovery_to_primary;
  Location source, target;           // as they were when the job started
  Location target_before;            // the item's own, which an undo restores (differs for an alternate location)
  bool delete_source_disks = false;  // commit

  // Requests that a verb has recorded and a step takes up. Once set they are never lost.
  bool complete_requested = false, cancel_requested = false;
  bool rolling_back = false;
  Gates gates;

  RoundState round;
  std::vector<ActionRecord> actions;  // of the current task
  bool source_shut_down = false;      // recorded with the intent: a cancel has to start it again
  bool target_touched = false;        // a round was started: a cancel has to give disks back
  bool target_started = false;        // recorded with the intent
  double projected_downtime_s = 0;    // the sum of:
  DowntimeParts projected;            // as it was at Complete Failover
  std::uint64_t next_delta_bytes = 0;
  std::optional<Estimate> estimate;
  std::int64_t source_down_unix_s = 0, target_up_unix_s = 0;
  DowntimeMoments moments;
  double downtime_s = 0;  // measured: the sum of downtime_parts(moments)

  // Plan jobs.
  std::vector<std::string> children;  // item jobs, by plan order
  std::uint32_t group = 0;            // within the current task
  std::uint32_t step = 0;             // within the group
  bool manual_confirmed = false;
  std::string waiting_for;  // why it is Suspended: "Complete Failover", or the text of a manual action

  TaskKind task() const { return tasks.empty() ? TaskKind::prepare_failover : tasks[current_task].kind; }
};
inline constexpr std::size_t kMaxJobErrors = 20;

// Whether the table allows the verb and nobody has requested it already. The plan resumes its items' jobs.
bool is_allowed(JobVerb verb, const Job& job);
// "Resume", "Cancel", "Restart": what is_allowed() allows now.
std::vector<std::string_view> allowed_actions(const Job& job);

}  // namespace backhaul
