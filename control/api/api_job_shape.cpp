// A job as JSON.
#include <boost/json.hpp>

#include "control/api/api_json.h"
#include "control/api/api_shapes.h"
#include "control/model/iso_time.h"
#include "control/model/model_json.h"

namespace backhaul {
namespace {

namespace json = boost::json;

std::string_view friendly_name(JobKind kind) {
  switch (kind) {
    case JobKind::planned_failover: return "Planned failover";
    case JobKind::commit: return "Commit";
    case JobKind::cancel_failover: return "Cancel failover";
    case JobKind::reprotect: return "Reverse replicate";
    case JobKind::replication: return "Replication";
    case JobKind::plan_planned_failover: return "Planned failover of a recovery plan";
    case JobKind::plan_commit: return "Commit of a recovery plan";
    case JobKind::plan_reprotect: return "Reverse replicate of a recovery plan";
  }
  return "Job";
}

json::object error_json(const JobError& error, const Job& job) {
  json::object details{{"code", error.code},
                       {"message", error.cause},
                       {"possibleCauses", error.cause},
                       {"recommendedAction", error.fix},
                       {"activityId", job.id}};
  json::object provider{{"errorId", error.code},
                        {"errorMessage", error.cause},
                        {"possibleCauses", error.cause},
                        {"recommendedAction", error.fix}};
  return {{"serviceErrorDetails", std::move(details)},
          {"providerErrorDetails", std::move(provider)},
          {"errorLevel", job.state == JobState::failed ? "Error" : "Warning"},
          {"creationTime", iso_time(error.at_unix_s)},
          {"taskId", std::to_string(job.current_task + 1)},
          {"backhaul", {{"retryable", error.retryable}}}};
}

json::object progress_json(const TransferProgress& progress) {
  json::object shape{{"bytesDone", progress.bytes_done},
                     {"bytesTotal", progress.bytes_total},
                     {"bytesPerSecond", progress.bytes_per_s}};
  if (progress.seconds_left > 0) shape["secondsLeft"] = progress.seconds_left;
  return shape;
}

json::array tasks_json(const Job& job) {
  json::array tasks;
  for (std::size_t i = 0; i < job.tasks.size(); ++i) {
    const Task& task = job.tasks[i];
    const bool current = i == job.current_task;
    json::object extras{{"progress", progress_json(task.progress)}};
    if (task.seconds > 0) extras["seconds"] = task.seconds;
    json::object shape{
        {"taskId", std::to_string(i + 1)}, {"name", to_string(task.kind)},    {"friendlyName", describe(task.kind)},
        {"state", to_string(task.state)},  {"stateDescription", task.detail}, {"taskType", "TaskDetails"},
        {"allowedActions", json::array()}, {"errors", json::array()},         {"backhaul", std::move(extras)}};
    put_time(shape, "startTime", task.started_unix_s);
    put_time(shape, "endTime", task.ended_unix_s);
    if (current)
      for (const auto action : allowed_actions(job)) shape["allowedActions"].as_array().emplace_back(action);
    if (current && job.state == JobState::failed && !job.errors.empty())
      shape["errors"].as_array().push_back(error_json(job.errors.back(), job));
    tasks.push_back(std::move(shape));
  }
  return tasks;
}

json::object location_json(const Location& location, bool primary) {
  json::array disks;
  for (const auto& disk : location.disks)
    disks.push_back(
        {{"name", disk.name}, {"path", disk.path}, {"format", to_string(disk.format)}, {"sizeBytes", disk.size_bytes}});
  json::object shape{
      {"site", primary ? "Primary" : "Recovery"}, {"driver", location.driver}, {"disks", std::move(disks)}};
  put_text(shape, "host", location.host);
  put_text(shape, "vm", location.vm);
  return shape;
}

json::object round_json(const RoundState& round) {
  json::array disks;
  for (const auto& disk : round.disks) {
    json::object shape{{"name", disk.disk}, {"done", disk.done}};
    const auto put = [&]<class T>(std::string_view name, const T& value) {
      if constexpr (std::is_arithmetic_v<T>)
        shape[camel_case(name)] = value;
      else
        put_text(shape, camel_case(name), value);
    };
    fields(put, disk.stats);
    disks.push_back(std::move(shape));
  }
  json::object shape{
      {"number", round.number}, {"open", round.open}, {"final", round.final}, {"disks", std::move(disks)}};
  put_time(shape, "pointInTime", round.point_unix_s);
  return shape;
}

json::object complete_json(const CompletePolicy& policy) {
  json::object shape{{"mode", to_string(policy.mode)}};
  if (policy.downtime_budget_s > 0)
    shape["downtimeBudgetSeconds"] = static_cast<std::uint64_t>(policy.downtime_budget_s);
  put_time(shape, "at", policy.at_unix_s);
  put_time(shape, "windowStart", policy.window_start_unix_s);
  put_time(shape, "windowEnd", policy.window_end_unix_s);
  return shape;
}

bool moves_data(JobKind kind) {
  return kind == JobKind::planned_failover || kind == JobKind::reprotect || kind == JobKind::replication;
}

// The downtime so far, and what was projected at Complete Failover.
json::object downtime_json(const Job& job) {
  const auto& moments = job.moments;
  const auto began = downtime_began_unix_ms(moments), ended = downtime_ended_unix_ms(moments);
  const bool boot_known = moments.first_write_unix_ms != 0;
  json::object shape{{"from", moments.last_write_unix_ms == began ? "LastWrite" : "ShutdownRequest"}};
  shape["fromTime"] = iso_time_ms(began);
  if (job.downtime_s > 0) {
    shape["until"] = boot_known ? "FirstWrite" : "Start";
    shape["untilTime"] = iso_time_ms(ended);
    shape["seconds"] = job.downtime_s;
    shape["parts"] = downtime_parts_json(downtime_parts(moments), boot_known);
    if (boot_known) shape["unsureSeconds"] = static_cast<double>(moments.unsure_ms) / 1000;
    put_text(shape, "whyNoFirstWrite", moments.no_first_write);
  }
  shape["projected"] = {{"seconds", job.projected.sum()}, {"parts", downtime_parts_json(job.projected, true)}};
  return shape;
}

void put_transfer(const Job& job, json::object& extras) {
  const bool home = job.direction == Direction::recovery_to_primary;
  if (!is_plan_job(job.kind)) {
    extras["source"] = location_json(job.source, !home);
    extras["target"] = location_json(job.target, home);
  }
  if (moves_data(job.kind)) extras["round"] = round_json(job.round);
  if (job.next_delta_bytes > 0 || job.state == JobState::suspended) extras["nextDeltaBytes"] = job.next_delta_bytes;
  if (job.projected_downtime_s > 0) extras["projectedDowntimeSeconds"] = job.projected_downtime_s;
  if (job.downtime_s > 0) extras["downtimeSeconds"] = job.downtime_s;
  if (job.moments.asked_unix_ms != 0) extras["downtime"] = downtime_json(job);
  put_time(extras, "sourceDownTime", job.source_down_unix_s);
  put_time(extras, "targetUpTime", job.target_up_unix_s);
  if (job.estimate)
    extras["estimate"] = {{"bytes", job.estimate->bytes},
                          {"seconds", job.estimate->seconds},
                          {"downtimeSeconds", job.estimate->downtime_s},
                          {"adviseForSynchronization", job.estimate->advise_for_synchronization},
                          {"reason", job.estimate->reason}};
}

json::object extras_json(const Job& job) {
  json::object extras{{"startedBy", job.started_by},
                      {"direction", to_string(job.direction)},
                      {"completeRequested", job.complete_requested},
                      {"cancelRequested", job.cancel_requested},
                      {"rollingBack", job.rolling_back}};
  put_text(extras, "item", job.item);
  put_text(extras, "plan", job.plan);
  put_text(extras, "parent", job.parent);
  put_text(extras, "waitingFor", job.waiting_for);
  put_time(extras, "createdTime", job.created_unix_s);
  if (is_plan_job(job.kind)) extras["children"] = json::array(job.children.begin(), job.children.end());
  if (job.kind == JobKind::planned_failover || job.kind == JobKind::plan_planned_failover) {
    extras["dataSyncOption"] = to_string(job.request.data_sync);
    extras["complete"] = complete_json(job.request.complete);
    if (job.request.allow_forced_shutdown) extras["allowForcedShutdown"] = *job.request.allow_forced_shutdown;
  }
  if (job.kind == JobKind::commit || job.kind == JobKind::plan_commit)
    extras["deleteSourceDisks"] = job.delete_source_disks;
  if (!job.tasks.empty()) {
    extras["currentTask"] = to_string(job.task());
    extras["progress"] = progress_json(job.tasks[job.current_task].progress);
  }
  put_transfer(job, extras);
  return extras;
}

std::string state_description(const Job& job) {
  if (!job.waiting_for.empty()) return "Waiting for " + job.waiting_for;
  if (job.state == JobState::failed && !job.errors.empty()) return job.errors.back().cause;
  if (has_ended(job.state) || job.tasks.empty()) return std::string(to_string(job.state));
  return std::string(describe(job.task()));
}

}  // namespace

json::object downtime_parts_json(const DowntimeParts& parts, bool boot_known) {
  json::object shape{{"shutdownSeconds", parts.shutdown},
                     {"deltaSeconds", parts.delta},
                     {"verifySeconds", parts.verify},
                     {"swapSeconds", parts.swap},
                     {"startSeconds", parts.start}};
  if (parts.wait > 0) shape["waitSeconds"] = parts.wait;
  if (boot_known) shape["bootSeconds"] = parts.boot;
  return shape;
}

std::string_view target_type(JobKind kind) noexcept { return is_plan_job(kind) ? "RecoveryPlan" : "ProtectionEntity"; }

json::object job_error_json(const Job& job) {
  if (job.state == JobState::cancelled)
    return {{"code", "job.cancelled"}, {"message", "the job was cancelled"}, {"details", json::array()}};
  if (job.errors.empty()) return {{"code", "job.failed"}, {"message", "the job failed"}, {"details", json::array()}};
  const JobError& error = job.errors.back();
  return {{"code", error.code},
          {"message", error.cause},
          {"details", json::array()},
          {"innererror",
           {{"code", error.code},
            {"cause", error.cause},
            {"recommendedAction", error.fix},
            {"retryable", error.retryable}}}};
}

json::object job_json(std::string_view base, const Job& job) {
  json::array actions, errors;
  for (const auto action : allowed_actions(job)) actions.emplace_back(action);
  for (const auto& error : job.errors) errors.push_back(error_json(error, job));
  const std::string& target = is_plan_job(job.kind) ? job.plan : job.item;
  const bool failover = job.kind == JobKind::planned_failover || job.kind == JobKind::plan_planned_failover;
  json::object details{{"instanceType", failover ? "FailoverJobDetails" : "AsrJobDetails"},
                       {"affectedObjectDetails", {{is_plan_job(job.kind) ? "recoveryPlan" : "protectedItem", target}}}};
  if (failover && !job.item.empty())
    details["protectedItemDetails"] = {{{"name", job.item}, {"friendlyName", job.item}}};
  json::object properties{{"activityId", job.id},
                          {"scenarioName", to_string(job.kind)},
                          {"friendlyName", friendly_name(job.kind)},
                          {"state", to_string(job.state)},
                          {"stateDescription", state_description(job)},
                          {"tasks", tasks_json(job)},
                          {"errors", std::move(errors)},
                          {"allowedActions", std::move(actions)},
                          {"targetObjectId", target},
                          {"targetObjectName", target},
                          {"targetInstanceType", target_type(job.kind)},
                          {"customDetails", std::move(details)},
                          {"backhaul", extras_json(job)}};
  put_time(properties, "startTime", job.started_unix_s);
  put_time(properties, "endTime", job.ended_unix_s);
  return {{"id", job_id(base, job.id)},
          {"name", job.id},
          {"type", "Microsoft.RecoveryServices/vaults/replicationJobs"},
          {"properties", std::move(properties)}};
}

}  // namespace backhaul
