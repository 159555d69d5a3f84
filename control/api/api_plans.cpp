// Recovery plans and their verbs.
#include <boost/json.hpp>

#include "control/api/api_body.h"
#include "control/api/api_error.h"
#include "control/api/api_world.h"

namespace backhaul {
namespace {

Result<HttpResponse> put(ApiWorld& world, const ApiCall& call, bool must_exist) {
  const auto& id = call.at("plan");
  auto before = world.service.get_plan(id);
  if (!before && (must_exist || before.error() != make_error_code(ControlErrc::not_found))) return before.error();
  BH_TRY(const RecoveryPlan declared, read_plan(call.body, id));
  BH_TRY(const auto version, expected_version(call, before ? before->version : 0));
  auto plan = world.service.put_plan(call.actor, declared, version);
  if (!plan) return as_mismatch(plan.error(), version.has_value());
  const auto shape = plan_shape(world, call, *plan);
  auto response = json_response(before ? 200 : 201, shape);
  add_etag(response, plan->version);
  return response;
}

}  // namespace

boost::json::object plan_shape(ApiWorld& world, const ApiCall& call, const RecoveryPlan& plan) {
  std::optional<Job> current;
  if (!plan.current_job.empty())
    if (auto job = world.service.get_job(plan.current_job)) current = std::move(*job);
  std::vector<std::string_view> operations;
  // An item that is gone leaves nothing that could be done.
  if (auto allowed = world.service.allowed_plan_operations(plan)) operations = std::move(*allowed);
  return plan_json(call.base, plan, current, operations);
}

Result<HttpResponse> list_plans(ApiWorld& world, const ApiCall& call) {
  BH_TRY(const auto plans, world.service.list_plans());
  return page(
      call, plans, PageOrder::by_name, kPage, [](const RecoveryPlan& plan) -> const std::string& { return plan.id; },
      [&](const RecoveryPlan& plan) { return plan_shape(world, call, plan); });
}

Result<HttpResponse> get_plan(ApiWorld& world, const ApiCall& call) {
  BH_TRY(const RecoveryPlan plan, world.service.get_plan(call.at("plan")));
  const auto shape = plan_shape(world, call, plan);
  auto response = json_response(200, shape);
  add_etag(response, plan.version);
  return response;
}

Result<HttpResponse> put_plan(ApiWorld& world, const ApiCall& call) { return put(world, call, false); }
Result<HttpResponse> patch_plan(ApiWorld& world, const ApiCall& call) { return put(world, call, true); }

Result<HttpResponse> remove_plan(ApiWorld& world, const ApiCall& call) {
  BH_TRY(const RecoveryPlan plan, world.service.get_plan(call.at("plan")));
  BH_TRY(const auto version, expected_version(call, plan.version));
  auto removed = world.service.remove_plan(call.actor, call.at("plan"), version);
  if (!removed) return as_mismatch(removed.error(), version.has_value());
  return empty_response(204);
}

Result<HttpResponse> plan_planned_failover(ApiWorld& world, const ApiCall& call) {
  BH_TRY(const auto request, read_planned_failover(call.body));
  BH_TRY(const auto job, world.service.plan_planned_failover(call.actor, call.at("plan"), request));
  return accepted(call, "plannedFailover", job);
}
Result<HttpResponse> plan_commit(ApiWorld& world, const ApiCall& call) {
  BH_TRY(const bool delete_disks, read_commit(call.body));
  BH_TRY(const auto job, world.service.plan_commit(call.actor, call.at("plan"), delete_disks));
  return accepted(call, "failoverCommit", job);
}
Result<HttpResponse> plan_re_protect(ApiWorld& world, const ApiCall& call) {
  BH_RETURN_IF_ERROR(read_re_protect(call.body));
  BH_TRY(const auto job, world.service.plan_re_protect(call.actor, call.at("plan")));
  return accepted(call, "reProtect", job);
}

}  // namespace backhaul
