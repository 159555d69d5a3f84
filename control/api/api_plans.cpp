// Recovery plans and their verbs.
#include <boost/json.hpp>

#include "control/api/api_body.h"
#include "control/api/api_context.h"

namespace backhaul {
namespace {

Result<HttpResponse> put(ApiContext& context, const ApiCall& call, bool must_exist) {
  const auto& id = call.at("plan");
  auto before = context.service.get_plan(id);
  if (!before && (must_exist || !before.error().is(ControlErrc::not_found))) return before.error();
  BH_TRY(const RecoveryPlan declared, read_plan(call.body, id));
  BH_TRY(const auto version, expected_version(call, before ? before->version : 0));
  auto plan = context.service.put_plan(call.actor, declared, version);
  if (!plan) return as_mismatch(plan.error(), version.has_value());
  const auto shape = plan_shape(context, call, *plan);
  auto response = json_response(before ? 200 : 201, shape);
  add_etag(response, plan->version);
  return response;
}

}  // namespace

boost::json::object plan_shape(ApiContext& context, const ApiCall& call, const RecoveryPlan& plan) {
  std::optional<Job> current;
  if (!plan.current_job.empty())
    if (auto job = context.service.get_job(plan.current_job)) current = std::move(*job);
  std::vector<std::string_view> operations;
  // When an item is gone, no operation is allowed.
  if (auto allowed = context.service.allowed_plan_operations(plan)) operations = std::move(*allowed);
  return plan_json(call.base, plan, current, operations);
}

Result<HttpResponse> list_plans(ApiContext& context, const ApiCall& call) {
  BH_TRY(const auto plans, context.service.list_plans());
  return page(
      call, plans, PageOrder::by_name, kPage, [](const RecoveryPlan& plan) -> const std::string& { return plan.id; },
      [&](const RecoveryPlan& plan) { return plan_shape(context, call, plan); });
}

Result<HttpResponse> get_plan(ApiContext& context, const ApiCall& call) {
  BH_TRY(const RecoveryPlan plan, context.service.get_plan(call.at("plan")));
  const auto shape = plan_shape(context, call, plan);
  auto response = json_response(200, shape);
  add_etag(response, plan.version);
  return response;
}

Result<HttpResponse> put_plan(ApiContext& context, const ApiCall& call) { return put(context, call, false); }
Result<HttpResponse> patch_plan(ApiContext& context, const ApiCall& call) { return put(context, call, true); }

Result<HttpResponse> remove_plan(ApiContext& context, const ApiCall& call) {
  BH_TRY(const RecoveryPlan plan, context.service.get_plan(call.at("plan")));
  BH_TRY(const auto version, expected_version(call, plan.version));
  auto removed = context.service.remove_plan(call.actor, call.at("plan"), version);
  if (!removed) return as_mismatch(removed.error(), version.has_value());
  return empty_response(204);
}

Result<HttpResponse> plan_planned_failover(ApiContext& context, const ApiCall& call) {
  BH_TRY(const auto request, read_planned_failover(call.body));
  BH_TRY(const auto job, context.service.plan_planned_failover(call.actor, call.at("plan"), request));
  return accepted(call, "plannedFailover", job);
}
Result<HttpResponse> plan_commit(ApiContext& context, const ApiCall& call) {
  BH_TRY(const bool delete_disks, read_commit(call.body));
  BH_TRY(const auto job, context.service.plan_commit(call.actor, call.at("plan"), delete_disks));
  return accepted(call, "failoverCommit", job);
}
Result<HttpResponse> plan_reprotect(ApiContext& context, const ApiCall& call) {
  BH_RETURN_IF_ERROR(read_reprotect(call.body));
  BH_TRY(const auto job, context.service.plan_reprotect(call.actor, call.at("plan")));
  return accepted(call, "reProtect", job);
}

}  // namespace backhaul
