#include "control/api/openapi.h"

#include <fmt/format.h>
#include <boost/json.hpp>

#include "control/http/http_wire.h"

namespace backhaul {
namespace {

namespace json = boost::json;

json::object reference(std::string_view schema) { return {{"$ref", "#/components/schemas/" + std::string(schema)}}; }

std::vector<std::string_view> words(std::string_view text) {
  std::vector<std::string_view> found;
  while (!text.empty()) {
    const auto end = std::min(text.find(' '), text.size());
    if (end > 0) found.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return found;
}

json::object parameter(std::string_view name, std::string_view in, bool required) {
  return {{"name", name}, {"in", in}, {"required", required}, {"schema", {{"type", "string"}}}};
}

json::object error_answer(std::string_view description) {
  return {{"description", description}, {"content", {{"application/json", {{"schema", reference("Error")}}}}}};
}

json::object header(std::string_view description) {
  return {{"description", description}, {"schema", {{"type", "string"}}}};
}

// A route's own answers, and the refusals that it can give.
json::object answers(const ApiRoute& route) {
  json::object all;
  for (const auto word : words(route.answers)) {
    const auto colon = std::min(word.find(':'), word.size());
    const auto status = word.substr(0, colon);
    json::object answer{{"description", status == "202"   ? "Accepted; Location is the result's URL"
                                        : status == "204" ? "Succeeded; no content"
                                        : status == "201" ? "Created"
                                        : status == "503" ? "Not ready"
                                                          : "Succeeded"}};
    if (colon < word.size()) answer["content"] = {{route.media, {{"schema", reference(word.substr(colon + 1))}}}};
    if (status == "202")
      answer["headers"] = {{"Location", header("URL of the result")},
                           {"Azure-AsyncOperation", header("URL of the status")},
                           {"Retry-After", header("Seconds until the next request")}};
    all[status] = std::move(answer);
  }
  if (!route.role) return all;
  all["400"] = error_answer("Bad request; details names each field");
  all["401"] = error_answer("Unauthenticated: no valid token");
  if (*route.role != Role::reader) all["403"] = error_answer("Forbidden by the token's role");
  if (route.path.find('{') != route.path.npos || route.path.starts_with("ITEM")) all["404"] = error_answer("Not found");
  if (route.method != "GET")
    all["409"] = error_answer("Conflict: the state does not allow the verb; nothing was changed");
  if (route.operation == "operation.result") all["409"] = error_answer("The verb's job failed or was cancelled");
  if (route.method == "PUT" || route.method == "PATCH" || route.method == "DELETE")
    all["412"] = error_answer("Precondition failed: If-Match or If-None-Match");
  all["default"] = error_answer("Any other error");
  return all;
}

json::object operation(const ApiRoute& route, ApiBase base) {
  json::object op{{"operationId", std::string(route.operation)}, {"summary", route.summary}};
  json::array parameters;
  for (const auto name : words(route.query)) parameters.push_back(parameter(name, "query", false));
  if (base != ApiBase::root) parameters.push_back(parameter("api-version", "query", false));
  if (!parameters.empty()) op["parameters"] = std::move(parameters);
  if (!route.body.empty())
    op["requestBody"] = {{"required", route.body_required},
                         {"content", {{"application/json", {{"schema", reference(route.body)}}}}}};
  op["responses"] = answers(route);
  op["x-backhaul-role"] = route.role ? to_string(*route.role) : "none";
  if (!route.role) op["security"] = json::array();
  return op;
}

}  // namespace

json::object openapi_document(const ApiRouter& router, std::string_view version) {
  json::object paths;
  std::map<std::string, int> used;  // operation ids are unique: a route stands at several places
  for (const ApiPlace& place : router.places()) {
    std::string path;
    json::array parameters;
    for (const auto& part : place.parts) {
      path += "/" + part;
      if (part.starts_with('{')) parameters.push_back(parameter(part.substr(1, part.size() - 2), "path", true));
    }
    auto& entry = paths[path];
    if (!entry.is_object()) {
      entry.emplace_object();
      if (!parameters.empty()) entry.as_object()["parameters"] = std::move(parameters);
    }
    json::object op = operation(*place.route, place.base);
    if (const int count = used[std::string(place.route->operation)]++; count > 0)
      op["operationId"] = fmt::format("{}.{}", place.route->operation, count + 1);
    entry.as_object()[to_lower(place.route->method)] = std::move(op);
  }
  return {
      {"openapi", "3.1.0"},
      {"info",
       {{"title", "Backhaul"},
        {"version", version.empty() ? "0" : version},
        {"description", "Failback of Hyper-V VMs, in the shapes of Azure Site Recovery's REST."}}},
      {"paths", std::move(paths)},
      {"components",
       {{"schemas", openapi_schemas()}, {"securitySchemes", {{"token", {{"type", "http"}, {"scheme", "bearer"}}}}}}},
      {"security", json::array{json::object{{"token", json::array()}}}}};
}

}  // namespace backhaul
