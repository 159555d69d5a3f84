#include "control/model/model_json.h"

#include <array>

#include <fmt/format.h>

#include "control/model/control_error.h"
#include "control/model/model_fields.h"

namespace backhaul {
namespace {

template <class E, std::size_t Count>
std::optional<E> find_name(const std::array<std::string_view, Count>& names, std::string_view text) {
  for (std::size_t i = 0; i < Count; ++i)
    if (names[i] == text) return static_cast<E>(i);
  return std::nullopt;
}

constexpr std::array<std::string_view, 3> kCommitModes{"none", "commit-after", "undo-after"};
constexpr std::array<std::string_view, 4> kCompleteModes{"manual", "automatic", "scheduled", "window"};
constexpr std::array<std::string_view, 6> kTaskStates{"NotStarted", "InProgress", "Succeeded",
                                                      "Failed",     "Cancelled",  "Skipped"};

}  // namespace

std::string_view to_string(CommitMode mode) noexcept { return kCommitModes[static_cast<std::size_t>(mode)]; }
std::optional<CommitMode> parse_commit_mode(std::string_view text) noexcept {
  return find_name<CommitMode>(kCommitModes, text);
}
std::string_view to_string(CompleteMode mode) noexcept { return kCompleteModes[static_cast<std::size_t>(mode)]; }
std::optional<CompleteMode> parse_complete_mode(std::string_view text) noexcept {
  return find_name<CompleteMode>(kCompleteModes, text);
}
std::string_view to_string(TaskState state) noexcept { return kTaskStates[static_cast<std::size_t>(state)]; }
std::optional<TaskState> parse_task_state(std::string_view text) noexcept {
  return find_name<TaskState>(kTaskStates, text);
}

template <>
struct Word<ItemState> : Words<parse_item_state, ItemState::protected_> {};
template <>
struct Word<DataSync> : Words<parse_data_sync, DataSync::for_synchronization> {};
template <>
struct Word<JobState> : Words<parse_job_state, JobState::suspended> {};
template <>
struct Word<JobKind> : Words<parse_job_kind, JobKind::plan_reprotect> {};
template <>
struct Word<TaskKind> : Words<parse_task_kind, TaskKind::plan_items> {};
template <>
struct Word<TaskState> : Words<parse_task_state, TaskState::skipped> {};
template <>
struct Word<CompleteMode> : Words<parse_complete_mode, CompleteMode::window> {};

// What the store keeps beyond what is declared (control/model/model_fields.h).
template <class A>
void fields(A& a, Location& v) {
  place_fields(a, v, true), a("vm_exists", v.vm_exists);
}
template <class A>
void fields(A& a, DowntimeParts& v) {
  a("shutdown", v.shutdown), a("delta", v.delta), a("verify", v.verify), a("swap", v.swap), a("wait", v.wait);
  a("start", v.start), a("boot", v.boot);
}
template <class A>
void fields(A& a, DowntimeMoments& v) {
  a("asked", v.asked_unix_ms), a("last_write", v.last_write_unix_ms), a("off", v.off_unix_ms);
  a("delivered", v.delivered_unix_ms), a("swapped", v.swapped_unix_ms), a("boot_begun", v.boot_begun_unix_ms);
  a("started", v.started_unix_ms), a("first_write", v.first_write_unix_ms), a("unsure", v.unsure_ms);
  a("verify_s", v.verify_s), a("no_first_write", v.no_first_write);
}
template <class A>
void fields(A& a, Item& v) {
  a("id", v.id), a("vm", v.vm), a("recovery", v.recovery), a("primary", v.primary);
  setting_fields(a, v);
  a("state", v.state), a("resting_state", v.resting_state), a("direction", v.direction);
  a("failover_job", v.failover_job), a("remove_requested", v.remove_requested);
  a("current_job", v.current_job), a("replication_job", v.replication_job), a("epoch", v.epoch);
  a("commit_deadline", v.commit_deadline_unix_s), a("protected_until", v.protected_until_unix_s);
  a("start_token", v.start_token), a("start_roots", v.start_roots), a("last_error", v.last_error),
      a("bytes_per_s", v.bytes_per_s), a("digest_bytes_per_s", v.digest_bytes_per_s);
  a("downtime", v.downtime), a("downtime_measured", v.downtime_measured);
  a("boot_measured", v.boot_measured);
}
template <class A>
void fields(A& a, RecoveryPlan& v) {
  plan_fields(a, v), a("current_job", v.current_job);
}
template <class A>
void fields(A& a, JobError& v) {
  a("code", v.code), a("cause", v.cause), a("fix", v.fix), a("at", v.at_unix_s), a("retryable", v.retryable);
}
// What a task keeps of it, under names of its own.
struct KeptProgress {
  TransferProgress& of;
};
template <class A>
void fields(A& a, KeptProgress& v) {
  a("total", v.of.bytes_total), a("done", v.of.bytes_done), a("rate", v.of.bytes_per_s), a("left_s", v.of.seconds_left);
}
template <class A>
void fields(A& a, ActionRecord& v) {
  a("key", v.key), a("done", v.done), a("outcome", v.outcome), a("at", v.at_unix_s);
}
template <class A>
void fields(A& a, Task& v) {
  KeptProgress progress{v.progress};
  a("kind", v.kind), a("state", v.state), a("started", v.started_unix_s), a("ended", v.ended_unix_s);
  a("seconds", v.seconds), a("detail", v.detail), a("progress", progress);
}
template <class A>
void fields(A& a, DiskRound& v) {
  a("disk", v.disk), a("source_path", v.source_path), a("done", v.done), a("epoch", v.epoch);
  fields(a, v.stats);
}
template <class A>
void fields(A& a, RoundState& v) {
  a("number", v.number), a("open", v.open), a("final", v.final), a("snapshot", v.snapshot), a("token", v.token);
  a("base_token", v.base_token), a("base_roots", v.base_roots), a("point", v.point_unix_s), a("disks", v.disks),
      a("failures", v.failures);
}
template <class A>
void fields(A& a, CompletePolicy& v) {
  a("mode", v.mode), a("downtime_budget_s", v.downtime_budget_s), a("at", v.at_unix_s);
  a("window_start", v.window_start_unix_s), a("window_end", v.window_end_unix_s);
}
template <class A>
void fields(A& a, PlannedFailoverRequest& v) {
  a("direction", v.direction), a("data_sync", v.data_sync), a("alternate_host", v.alternate_host);
  a("create_vm", v.create_vm_if_not_found), a("complete", v.complete),
      a("allow_forced_shutdown", v.allow_forced_shutdown);
}
template <class A>
void fields(A& a, Estimate& v) {
  a("bytes", v.bytes), a("seconds", v.seconds), a("downtime_s", v.downtime_s), a("full_bytes", v.full_bytes);
  a("advise_full", v.advise_for_synchronization), a("reason", v.reason);
}
template <class A>
void fields(A& a, Gates& v) {
  a("shutdown", v.shutdown), a("boot", v.boot);
}
template <class A>
void fields(A& a, Job& v) {
  a("id", v.id), a("kind", v.kind), a("state", v.state), a("item", v.item), a("plan", v.plan), a("parent", v.parent);
  a("started_by", v.started_by), a("created", v.created_unix_s), a("started", v.started_unix_s),
      a("ended", v.ended_unix_s);
  a("tasks", v.tasks), a("current_task", v.current_task), a("errors", v.errors), a("request", v.request);
  a("direction", v.direction), a("source", v.source), a("target", v.target), a("target_before", v.target_before),
      a("delete_source_disks", v.delete_source_disks);
  a("complete_requested", v.complete_requested), a("cancel_requested", v.cancel_requested),
      a("rolling_back", v.rolling_back);
  a("gates", v.gates), a("round", v.round), a("actions", v.actions), a("source_shut_down", v.source_shut_down);
  a("target_touched", v.target_touched), a("target_started", v.target_started),
      a("projected_downtime_s", v.projected_downtime_s), a("projected", v.projected);
  a("next_delta_bytes", v.next_delta_bytes), a("estimate", v.estimate), a("source_down", v.source_down_unix_s);
  a("target_up", v.target_up_unix_s), a("downtime_s", v.downtime_s), a("moments", v.moments), a("children", v.children),
      a("group", v.group);
  a("step", v.step), a("manual_confirmed", v.manual_confirmed), a("waiting_for", v.waiting_for);
}

namespace {

template <class T>
Result<T> from_store(std::string_view text, std::string_view what) {
  boost::system::error_code failed;
  const auto json = boost::json::parse(text, failed);
  if (failed || !json.is_object())
    return make_error(ControlErrc::store_damaged, fmt::format("{} is no JSON object", what));
  const auto* id = json.get_object().if_contains("id");
  auto name = fmt::format("{} {}", what, id != nullptr && id->is_string() ? id->get_string().c_str() : "without an id");
  return read_fields<T>(json.get_object(), From::store, std::move(name), ControlErrc::store_damaged);
}

}  // namespace

std::string to_json(const Item& item) { return boost::json::serialize(write_fields(item)); }
std::string to_json(const RecoveryPlan& plan) { return boost::json::serialize(write_fields(plan)); }
std::string to_json(const Job& job) { return boost::json::serialize(write_fields(job)); }

Result<Item> item_from_json(std::string_view text) { return from_store<Item>(text, "item"); }
Result<RecoveryPlan> plan_from_json(std::string_view text) { return from_store<RecoveryPlan>(text, "plan"); }
Result<Job> job_from_json(std::string_view text) {
  BH_TRY(Job job, from_store<Job>(text, "job"));
  if (!job.tasks.empty() && job.current_task >= job.tasks.size())
    return make_error(ControlErrc::store_damaged, "job " + job.id + ": current_task is out of range");
  return job;
}

JobError to_job_error(const Error& error, std::int64_t at_unix_s) {
  std::string cause =
      error.from_peer() ? error.cause() : error.message() + (error.cause().empty() ? "" : ": " + error.cause());
  return {error.symbol(), std::move(cause), error.fix(), at_unix_s, error.retry() == Retry::later};
}

bool is_allowed(JobVerb verb, const Job& job) {
  if (!is_allowed(verb, job.state, job.task())) return false;
  switch (verb) {
    case JobVerb::resume: {
      // A plan that is past Complete Failover is resumed once more for each manual action.
      const bool acts = job.task() == TaskKind::plan_shutdown || job.task() == TaskKind::plan_boot;
      const bool said = acts ? job.manual_confirmed : job.complete_requested;
      return !said && job.parent.empty() && !job.cancel_requested && !job.rolling_back;
    }
    case JobVerb::cancel: return !job.cancel_requested && !job.rolling_back;
    case JobVerb::restart: return true;
  }
  return false;
}

std::vector<std::string_view> allowed_actions(const Job& job) {
  std::vector<std::string_view> names;
  for (std::size_t i = 0; i < kJobVerbs; ++i)
    if (auto verb = static_cast<JobVerb>(i); is_allowed(verb, job)) names.push_back(to_string(verb));
  return names;
}

}  // namespace backhaul
