// Jobs, their verbs, and how asynchronous verbs are followed.
#include <fmt/format.h>
#include <boost/json.hpp>

#include <algorithm>

#include "control/api/api_body.h"
#include "control/api/api_context.h"
#include "control/api/api_filter.h"
#include "control/http/http_wire.h"
#include "control/model/iso_time.h"

namespace backhaul {
namespace {

namespace json = boost::json;

constexpr std::string_view kVerbs[] = {"plannedFailover", "failoverCommit", "failoverCancel", "reProtect",
                                       "resume",          "cancel",         "restart",        "remove"};

// Spells a verb as the API does; not_found for others.
Result<std::string_view> verb_of(const ApiCall& call) {
  for (const auto verb : kVerbs)
    if (to_lower(call.at("verb")) == to_lower(verb)) return verb;
  return make_error(ControlErrc::not_found, "verb " + call.at("verb"));
}

enum class OperationState { running, succeeded, failed, canceled };
std::string_view to_string(OperationState state) {
  constexpr std::string_view kNames[] = {"InProgress", "Succeeded", "Failed", "Canceled"};
  return kNames[static_cast<std::size_t>(state)];
}

// A verb is done when the job waits for somebody or has ended. A verb and the state that follows from it are one write,
// so a resumed job is never seen waiting.
OperationState state_of(std::string_view verb, const Job& job) {
  const bool cancels = verb == "cancel" || verb == "failoverCancel";
  switch (job.state) {
    case JobState::not_started:
    case JobState::in_progress: return OperationState::running;
    case JobState::suspended: return cancels ? OperationState::running : OperationState::succeeded;
    case JobState::failed: return OperationState::failed;
    case JobState::cancelled: return cancels ? OperationState::succeeded : OperationState::canceled;
    case JobState::succeeded:
      return cancels && job.kind != JobKind::cancel_failover ? OperationState::failed : OperationState::succeeded;
  }
  return OperationState::running;
}

json::object operation_error(OperationState state, const Job& job) {
  if (state == OperationState::failed && job.state == JobState::succeeded)
    return {{"code", "job.not_cancelled"}, {"message", "the job ended before it could be cancelled"}};
  return job_error_json(job);
}

json::object operation_json(const ApiCall& call, std::string_view verb, std::string_view object, OperationState state) {
  return {{"id", fmt::format("{}/operationStatuses/{}/{}", call.base, verb, object)},
          {"name", object},
          {"status", to_string(state)}};
}

void poll_again(const ApiCall& call, HttpResponse& response) {
  if (response.status == 202)
    response.headers.emplace_back("location",
                                  call.base_url + "/operationResults/" + call.at("verb") + "/" + call.at("object"));
  response.headers.emplace_back("retry-after", "1");
}

// Whether an item whose removal was asked for is still there.
Result<bool> item_exists(ApiContext& context, const std::string& id) {
  auto item = context.service.get_item(id);
  if (item) return true;
  if (item.error().is(ControlErrc::not_found)) return false;
  return item.error();
}

Result<HttpResponse> result_shape(ApiContext& context, const ApiCall& call, std::string_view verb, const Job& job) {
  if (verb == "resume" || verb == "cancel" || verb == "restart") return json_response(200, job_json(call.base, job));
  if (is_plan_job(job.kind)) {
    BH_TRY(const RecoveryPlan plan, context.service.get_plan(job.plan));
    const auto shape = plan_shape(context, call, plan);
    return json_response(200, shape);
  }
  BH_TRY(const Item item, context.service.get_item(job.item));
  const auto shape = item_shape(context, call, item);
  return json_response(200, shape);
}

}  // namespace

Result<HttpResponse> list_jobs(ApiContext& context, const ApiCall& call) {
  BH_TRY(const JobQuery query, job_query(call.query_of("$filter")));
  std::vector<Job> jobs;
  if (!query.none) {
    BH_TRY(jobs, context.service.list_jobs(query.filter));
  }
  if (!query.ids.empty())
    std::erase_if(
        jobs, [&](const Job& job) { return std::find(query.ids.begin(), query.ids.end(), job.id) == query.ids.end(); });
  return page(
      call, jobs, PageOrder::newest_first, kJobPage, [](const Job& job) -> const std::string& { return job.id; },
      [&](const Job& job) { return job_json(call.base, job); });
}

Result<HttpResponse> get_job(ApiContext& context, const ApiCall& call) {
  BH_TRY(const Job job, context.service.get_job(call.at("job")));
  return json_response(200, job_json(call.base, job));
}

Result<HttpResponse> resume_job(ApiContext& context, const ApiCall& call) {
  BH_TRY(const std::string comments, read_resume(call.body));
  const auto& id = call.at("job");
  BH_RETURN_IF_ERROR(context.service.resume_job(call.actor, id));
  if (!comments.empty())
    context.service.audit(call.actor, "job.resume", "job/" + id, "accepted", "comment: " + comments);
  return accepted(call, "resume", id);
}
Result<HttpResponse> cancel_job(ApiContext& context, const ApiCall& call) {
  BH_RETURN_IF_ERROR(read_nothing(call.body));
  BH_RETURN_IF_ERROR(context.service.cancel_job(call.actor, call.at("job")));
  return accepted(call, "cancel", call.at("job"));
}
Result<HttpResponse> restart_job(ApiContext& context, const ApiCall& call) {
  BH_RETURN_IF_ERROR(read_nothing(call.body));
  BH_RETURN_IF_ERROR(context.service.restart_job(call.actor, call.at("job")));
  return accepted(call, "restart", call.at("job"));
}

Result<HttpResponse> operation_status(ApiContext& context, const ApiCall& call) {
  BH_TRY(const auto verb, verb_of(call));
  const auto& object = call.at("object");
  if (verb == "remove") {
    BH_TRY(const bool exists, item_exists(context, object));
    auto response = json_response(
        200, operation_json(call, verb, object, exists ? OperationState::running : OperationState::succeeded));
    if (exists) poll_again(call, response);
    return response;
  }
  BH_TRY(const Job job, context.service.get_job(object));
  const auto state = state_of(verb, job);
  auto shape = operation_json(call, verb, object, state);
  shape["startTime"] = iso_time(job.started_unix_s != 0 ? job.started_unix_s : job.created_unix_s);
  if (job.ended_unix_s != 0) shape["endTime"] = iso_time(job.ended_unix_s);
  shape["properties"] = {{"jobId", job.id}, {"state", to_string(job.state)}};
  if (state == OperationState::failed || state == OperationState::canceled)
    shape["error"] = operation_error(state, job);
  auto response = json_response(200, shape);
  if (state == OperationState::running) poll_again(call, response);
  return response;
}

Result<HttpResponse> operation_result(ApiContext& context, const ApiCall& call) {
  BH_TRY(const auto verb, verb_of(call));
  const auto& object = call.at("object");
  HttpResponse pending = empty_response(202);
  poll_again(call, pending);
  if (verb == "remove") {
    BH_TRY(const bool exists, item_exists(context, object));
    return exists ? pending : empty_response(204);
  }
  BH_TRY(const Job job, context.service.get_job(object));
  const auto state = state_of(verb, job);
  if (state == OperationState::running) return pending;
  if (state == OperationState::succeeded) return result_shape(context, call, verb, job);
  return json_response(409, json::object{{"error", operation_error(state, job)}});
}

}  // namespace backhaul
