// Paths to routes: one table (control/api/api_routes.cpp) dispatches requests, gives their roles, and makes the OpenAPI
// document (control/api/openapi.h). Immutable; thread-safe.
#pragma once

#include <boost/json/object.hpp>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "control/http/http.h"
#include "control/jobs/service.h"

namespace backhaul {

struct ApiRoute;
struct ApiContext;

// One request, and what the router has found out about it.
struct ApiCall {
  const HttpRequest& http;
  Actor actor;
  std::string request_id;
  std::string base;      // prefix of the tree as requested, "/v1" or the ARM one; resource ids begin with it
  std::string base_url;  // "https://host" + base
  std::map<std::string, std::string, std::less<>> path, query;  // decoded
  boost::json::object body;                                     // empty when there is none
  const ApiRoute* route = nullptr;                              // null until it is known

  // A path parameter; the route must have it.
  const std::string& at(std::string_view name) const { return path.find(name)->second; }
  std::string_view query_of(std::string_view name) const {
    const auto found = query.find(name);
    return found == query.end() ? std::string_view() : found->second;
  }
};

using ApiHandler = Result<HttpResponse> (*)(ApiContext&, const ApiCall&);

// Where a path stands: below both bases, below /v1 alone, or at the root.
enum class ApiBase { tree, v1, root };

struct ApiRoute {
  std::string_view method;  // GET answers HEAD, too
  ApiBase base = ApiBase::tree;
  std::string_view path;     // "replicationJobs/{job}"; ITEM stands for the two places of an item
  std::optional<Role> role;  // nothing: open
  ApiHandler handler = nullptr;
  // Facts for the document.
  std::string_view operation, summary;
  std::string_view body;  // schema; empty: none
  bool body_required = false;
  std::string_view query;    // parameters besides api-version, space-separated
  std::string_view answers;  // "200:Item 202 204": status, schema
  std::string_view media = "application/json";
};
std::span<const ApiRoute> api_routes();

// A route at one of its places.
struct ApiPlace {
  const ApiRoute* route = nullptr;
  ApiBase base = ApiBase::root;    // tree: below the ARM prefix; v1: below /v1
  std::vector<std::string> parts;  // literals, and {parameters}
};

// "%2F" and the like; nothing for bad escapes, control characters and bad UTF-8.
std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space = false);

class ApiRouter {
 public:
  // A path with a vault other than `vault` has no route.
  explicit ApiRouter(std::string_view vault);

  struct Match {
    const ApiRoute* route = nullptr;  // null: the path exists, not with this method
    std::string allow;                // methods of the path
  };
  // Fills base, path and query of the call; the path's case matters only in parameters. Errors: bad_request, no_route.
  Result<Match> match(ApiCall& call) const;
  // Errors: bad_query for parameters that the route does not have.
  static Result<void> read_query(const ApiRoute& route, ApiCall& call);

  const std::vector<ApiPlace>& places() const { return places_; }
  static std::vector<std::string> prefix(ApiBase base);  // the base's own parts

 private:
  std::string vault_;
  std::vector<ApiPlace> places_;
};

}  // namespace backhaul
