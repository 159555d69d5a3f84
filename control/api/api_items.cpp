// Fabric, container, items and their verbs.
#include <fmt/format.h>
#include <boost/json.hpp>

#include <algorithm>

#include "control/api/api_body.h"
#include "control/api/api_context.h"
#include "control/api/api_error.h"
#include "control/api/api_filter.h"
#include "control/http/http_wire.h"

namespace backhaul {
namespace {

namespace json = boost::json;

// not_found when the path names another fabric or container than ours.
Result<void> check_place(const ApiCall& call) {
  for (const auto& [name, ours] : {std::pair("fabric", kFabric), std::pair("container", kContainer)})
    if (const auto found = call.path.find(name); found != call.path.end() && to_lower(found->second) != ours)
      return make_error(ControlErrc::not_found, fmt::format("{} {}", name, found->second));
  return {};
}

Result<std::vector<Item>> filtered_items(ApiContext& context, const ApiCall& call) {
  BH_TRY(auto items, context.service.list_items());
  const auto filter = call.query_of("$filter");
  if (filter.empty()) return items;
  BH_TRY(const auto terms, parse_filter(filter));
  for (const auto& term : terms) {
    if (term.operation != "eq") return make_error(ApiErrc::bad_query, "$filter: " + term.name + " takes eq alone");
    const auto any_is = [&](std::string_view value) {
      return std::any_of(term.values.begin(), term.values.end(),
                         [&](const auto& wanted) { return to_lower(last_segment(wanted)) == to_lower(value); });
    };
    if (term.name == "sourcefabricname" || term.name == "instancetype") {
      if (!any_is(term.name == "instancetype" ? "HyperVReplicaAzure" : kFabric)) items.clear();
    } else if (term.name == "protectionstate") {
      std::erase_if(items, [&](const Item& item) { return !any_is(to_string(item.state)); });
    } else {
      return make_error(ApiErrc::bad_query, "$filter: '" + term.name + "' is not known");
    }
  }
  return items;
}

}  // namespace

json::object item_shape(ApiContext& context, const ApiCall& call, const Item& item) {
  std::optional<Job> current;
  if (!item.current_job.empty())
    if (auto job = context.service.get_job(item.current_job)) current = std::move(*job);
  return item_json(call.base, item, current, context.clock.unix_time_s());
}

Result<HttpResponse> list_fabrics(ApiContext&, const ApiCall& call) {
  return json_response(200, json::object{{"value", json::array{fabric_json(call.base)}}});
}
Result<HttpResponse> get_fabric(ApiContext&, const ApiCall& call) {
  BH_RETURN_IF_ERROR(check_place(call));
  return json_response(200, fabric_json(call.base));
}
Result<HttpResponse> list_containers(ApiContext& context, const ApiCall& call) {
  BH_RETURN_IF_ERROR(check_place(call));
  BH_TRY(const auto items, context.service.list_items());
  return json_response(200, json::object{{"value", json::array{container_json(call.base, items.size())}}});
}
Result<HttpResponse> get_container(ApiContext& context, const ApiCall& call) {
  BH_RETURN_IF_ERROR(check_place(call));
  BH_TRY(const auto items, context.service.list_items());
  return json_response(200, container_json(call.base, items.size()));
}

Result<HttpResponse> list_items(ApiContext& context, const ApiCall& call) {
  BH_RETURN_IF_ERROR(check_place(call));
  BH_TRY(const auto items, filtered_items(context, call));
  return page(
      call, items, PageOrder::by_name, kPage, [](const Item& item) -> const std::string& { return item.id; },
      [&](const Item& item) { return item_shape(context, call, item); });
}

Result<HttpResponse> get_item(ApiContext& context, const ApiCall& call) {
  BH_RETURN_IF_ERROR(check_place(call));
  BH_TRY(const Item item, context.service.get_item(call.at("item")));
  const auto shape = item_shape(context, call, item);
  auto response = json_response(200, shape);
  add_etag(response, item.version);
  return response;
}

Result<HttpResponse> put_item(ApiContext& context, const ApiCall& call) {
  BH_RETURN_IF_ERROR(check_place(call));
  BH_TRY(const Item declared, read_item(call.body, call.at("item")));
  auto before = context.service.get_item(call.at("item"));
  if (!before && before.error() != make_error_code(ControlErrc::not_found)) return before.error();
  BH_TRY(const auto version, expected_version(call, before ? before->version : 0));
  auto item = context.service.put_item(call.actor, declared, version);
  if (!item) return as_mismatch(item.error(), version.has_value());
  const auto shape = item_shape(context, call, *item);
  auto response = json_response(before ? 200 : 201, shape);
  add_etag(response, item->version);
  return response;
}

Result<HttpResponse> remove_item(ApiContext& context, const ApiCall& call) {
  BH_RETURN_IF_ERROR(check_place(call));
  if (call.http.method == "POST") BH_RETURN_IF_ERROR(read_remove(call.body));
  const auto& id = call.at("item");
  BH_TRY(const Item item, context.service.get_item(id));
  BH_TRY(const auto version, expected_version(call, item.version));
  auto removed = context.service.remove_item(call.actor, id, version);
  if (!removed) return as_mismatch(removed.error(), version.has_value());
  // A running replication gives its staged disks back before the item goes.
  if (context.service.get_item(id)) return accepted(call, "remove", id);
  return empty_response(204);
}

Result<HttpResponse> item_preflight(ApiContext& context, const ApiCall& call) {
  BH_RETURN_IF_ERROR(check_place(call));
  BH_TRY(const auto request, read_planned_failover(call.body));
  BH_TRY(const auto report, context.service.preflight(call.actor, call.at("item"), request));
  return json_response(200, preflight_json(report));
}

Result<HttpResponse> item_planned_failover(ApiContext& context, const ApiCall& call) {
  BH_RETURN_IF_ERROR(check_place(call));
  BH_TRY(const auto request, read_planned_failover(call.body));
  BH_TRY(const auto job, context.service.planned_failover(call.actor, call.at("item"), request));
  return accepted(call, "plannedFailover", job);
}

Result<HttpResponse> item_commit(ApiContext& context, const ApiCall& call) {
  BH_RETURN_IF_ERROR(check_place(call));
  BH_TRY(const bool delete_disks, read_commit(call.body));
  BH_TRY(const auto job, context.service.failover_commit(call.actor, call.at("item"), delete_disks));
  if (!job.empty()) return accepted(call, "failoverCommit", job);
  return get_item(context, call);  // the commit was only recorded; there is no job
}

Result<HttpResponse> item_cancel(ApiContext& context, const ApiCall& call) {
  BH_RETURN_IF_ERROR(check_place(call));
  BH_RETURN_IF_ERROR(read_nothing(call.body));
  BH_TRY(const auto job, context.service.failover_cancel(call.actor, call.at("item")));
  return accepted(call, "failoverCancel", job);
}

Result<HttpResponse> item_reprotect(ApiContext& context, const ApiCall& call) {
  BH_RETURN_IF_ERROR(check_place(call));
  BH_RETURN_IF_ERROR(read_reprotect(call.body));
  BH_TRY(const auto job, context.service.reprotect(call.actor, call.at("item")));
  return accepted(call, "reProtect", job);
}

}  // namespace backhaul
