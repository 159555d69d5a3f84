#include "control/api/api.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <boost/json.hpp>

#include <algorithm>

#include "control/api/api_context.h"
#include "control/api/api_error.h"
#include "control/api/api_json.h"
#include "control/api/openapi.h"
#include "control/http/http_wire.h"

namespace backhaul {
namespace {

constexpr std::size_t kMaxClientId = 128;
constexpr unsigned kFailuresPerMinute = 20;
constexpr std::size_t kMaxPeers = 1024;

bool is_printable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
}

std::string random_id(Random& random) { return fmt::format("{:016x}{:016x}", random.next(), random.next()); }

// The method and the path without its query, printable and short: for logs and the audit log.
std::string what_was_asked(const HttpRequest& request) {
  std::string text =
      request.method + " " + request.target.substr(0, std::min(request.target.find('?'), std::size_t{160}));
  for (auto& c : text)
    if (c < 0x20 || c >= 0x7f) c = '?';
  return text;
}

// As audit entries name it.
std::string object_of(const ApiCall& call) {
  for (const char* name : {"item", "job", "plan", "token"})
    if (const auto found = call.path.find(name); found != call.path.end())
      return std::string(name) + "/" + found->second;
  return {};
}

bool is_json(std::string_view content_type) {
  auto type = to_lower(content_type.substr(0, content_type.find(';')));
  while (type.ends_with(' ')) type.pop_back();
  return type == "application/json";
}

Result<std::string> host_of(const HttpRequest& request) {
  const std::string host(request.header("host"));
  if (host.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]") != host.npos)
    return make_error(ApiErrc::bad_request, "Host is no host");
  return host;
}

Result<Actor> authenticate(ApiContext& context, const HttpRequest& request) {
  const std::string_view header = request.header("authorization");
  Result<Actor> actor = make_error(ControlErrc::unauthenticated, "no bearer token was sent");
  if (to_lower(header.substr(0, 7)) == "bearer ") actor = context.service.authenticate(header.substr(7));
  if (actor || !actor.error().is(ControlErrc::unauthenticated)) return actor;
  const Actor nobody{"-", Role::reader};
  const std::string peer = "peer/" + request.peer;
  switch (context.failures.add(request.peer, context.clock.now())) {
    case AuthFailures::Verdict::audit:
      context.service.audit(nobody, "authenticate", peer, "refused", what_was_asked(request));
      return actor;
    case AuthFailures::Verdict::audit_last:
      context.service.audit(nobody, "authenticate", peer, "refused",
                            "too many; more within this minute are not listed");
      break;
    case AuthFailures::Verdict::refuse: break;
  }
  return make_error(ApiErrc::too_many_failures, request.peer);
}

Result<void> require_role(ApiContext& context, const ApiRoute& route, const ApiCall& call) {
  if (call.actor.role >= *route.role) return {};
  auto error = make_error(ControlErrc::forbidden_role, fmt::format("needs {}, {} is {}", to_string(*route.role),
                                                                   call.actor.name, to_string(call.actor.role)));
  context.service.audit(call.actor, route.operation, object_of(call), "refused", error.to_string());
  return error;
}

Result<void> read_body(const ApiRoute& route, ApiCall& call) {
  if (route.body.empty()) return {};  // a body that the route does not take is ignored
  const auto& text = call.http.body;
  if (text.empty()) {
    if (route.body_required) return make_error(ApiErrc::bad_json, "a body is needed");
    return {};
  }
  if (!is_json(call.http.header("content-type"))) return make_error(ApiErrc::unsupported_media_type);
  BH_TRY(call.body, parse_json_object(text));
  return {};
}

Result<HttpResponse> dispatch(ApiContext& context, ApiCall& call) {
  BH_TRY(const std::string host, host_of(call.http));
  auto match = context.router.match(call);
  if (match) call.route = match->route;
  const bool open = call.route != nullptr && !call.route->role;
  if (!open) {
    // First of all: a caller without a token does not learn what exists.
    BH_TRY(call.actor, authenticate(context, call.http));
    if (!match) return match.error();
  }
  if (call.route == nullptr) {
    auto refused = error_response(make_error(ApiErrc::method_not_allowed, call.http.method));
    refused.headers.emplace_back("allow", match->allow);
    return refused;
  }
  call.base_url = "https://" + host + call.base;
  if (!open) BH_RETURN_IF_ERROR(require_role(context, *call.route, call));
  BH_RETURN_IF_ERROR(ApiRouter::read_query(*call.route, call));
  BH_RETURN_IF_ERROR(read_body(*call.route, call));
  return call.route->handler(context, call);
}

}  // namespace

AuthFailures::Verdict AuthFailures::add(const std::string& peer, Clock::Duration now) {
  const std::lock_guard lock(mutex_);
  if (windows_.size() >= kMaxPeers && !windows_.contains(peer))
    std::erase_if(windows_, [&](const auto& entry) { return now - entry.second.began >= std::chrono::minutes(1); });
  // When the table stays full, all newcomers share one window.
  auto& window = windows_[windows_.size() >= kMaxPeers && !windows_.contains(peer) ? std::string() : peer];
  if (window.failures == 0 || now - window.began >= std::chrono::minutes(1)) window = {now, 0};
  ++window.failures;
  if (window.failures <= kFailuresPerMinute) return Verdict::audit;
  return window.failures == kFailuresPerMinute + 1 ? Verdict::audit_last : Verdict::refuse;
}

Api::Api(Service& service, ApiConfig config, Clock& clock, Random& random) {
  ApiRouter router(config.vault);
  std::string document = boost::json::serialize(openapi_document(router, config.version));
  // NOLINTNEXTLINE(modernize-make-unique): an aggregate
  context_.reset(new ApiContext{service,
                                std::move(config),
                                clock,
                                random,
                                std::move(router),
                                std::move(document),
                                fmt::format("{:08x}", random.next() & 0xffffffffU),
                                {},
                                {},
                                {}});
}
Api::~Api() = default;

HttpResponse Api::handle(const HttpRequest& request) {
  ApiContext& context = *context_;
  const auto began = context.clock.now();
  ApiCall call{request, {}, random_id(context.random), {}, {}, {}, {}, {}, nullptr};
  auto answer = dispatch(context, call);
  HttpResponse response = answer ? std::move(*answer) : error_response(answer.error(), object_of(call));
  response.headers.emplace_back("x-ms-request-id", call.request_id);
  if (const auto id = request.header("x-ms-client-request-id");
      !id.empty() && id.size() <= kMaxClientId && is_printable(id))
    response.headers.emplace_back("x-ms-client-request-id", std::string(id));
  response.headers.emplace_back("cache-control", "no-store");
  response.headers.emplace_back("x-content-type-options", "nosniff");
  context.counts.add(call.route != nullptr ? call.route->operation : "none", response.status,
                     context.clock.now() - began);
  const auto level = response.status >= 500 ? spdlog::level::err : spdlog::level::info;
  if (request.method != "GET" || response.status >= 400)
    spdlog::log(level, "http: {} {} {} by {} from {}", call.request_id, response.status, what_was_asked(request),
                call.actor.name.empty() ? "-" : call.actor.name, request.peer);
  return response;
}

HttpResponse Api::refuse(unsigned status, std::string_view why) {
  HttpResponse response = error_response(error_of_status(status, why));
  response.headers.emplace_back("x-ms-request-id", random_id(context_->random));
  context_->counts.add("none", response.status, std::chrono::duration<double>(0));
  return response;
}

// Answers

HttpResponse json_response(unsigned status, const boost::json::value& body) {
  HttpResponse response;
  response.status = status;
  response.body = boost::json::serialize(body);
  return response;
}

HttpResponse empty_response(unsigned status) {
  HttpResponse response;
  response.status = status;
  response.content_type.clear();
  return response;
}

void add_etag(HttpResponse& response, std::uint64_t version) {
  response.headers.emplace_back("etag", fmt::format("\"{}\"", version));
}

HttpResponse accepted(const ApiCall& call, std::string_view verb, std::string_view object) {
  HttpResponse response = empty_response(202);
  response.headers = {{"location", fmt::format("{}/operationResults/{}/{}", call.base_url, verb, object)},
                      {"azure-asyncoperation", fmt::format("{}/operationStatuses/{}/{}", call.base_url, verb, object)},
                      {"retry-after", "1"}};
  return response;
}

Result<std::optional<std::uint64_t>> expected_version(const ApiCall& call, std::uint64_t present) {
  const std::string_view match = call.http.header("if-match"), none = call.http.header("if-none-match");
  const auto mismatch = [&] {
    return make_error(ApiErrc::version_mismatch, present == 0 ? std::string("there is no such object")
                                                              : fmt::format("its version is {}", present));
  };
  if (!none.empty()) {
    if (none != "*" || !match.empty()) return make_error(ApiErrc::bad_request, "If-None-Match takes * alone");
    if (present != 0) return mismatch();
    return std::optional<std::uint64_t>(0);
  }
  if (match.empty()) return std::optional<std::uint64_t>();
  if (match == "*") {
    if (present == 0) return mismatch();
    return std::optional<std::uint64_t>();
  }
  if (match != fmt::format("\"{}\"", present) || present == 0) return mismatch();
  return std::optional<std::uint64_t>(present);
}

Error as_mismatch(Error error, bool conditional) {
  if (!conditional || !error.is(ControlErrc::conflict)) return error;
  return make_error(ApiErrc::version_mismatch, error.cause());
}

std::string next_link(const ApiCall& call, std::string_view token) {
  // The same request with another skipToken: its other parameters stay as they were sent.
  const std::string_view target = call.http.target;
  const auto question = std::min(target.find('?'), target.size());
  std::string query = fmt::format("skipToken={}", token);
  std::string_view rest = target.substr(std::min(question + 1, target.size()));
  while (!rest.empty()) {
    const auto end = std::min(rest.find('&'), rest.size());
    const auto pair = rest.substr(0, end);
    const auto name = percent_decode(pair.substr(0, pair.find('=')), true);
    if (!pair.empty() && name && to_lower(*name) != "skiptoken") query += "&" + std::string(pair);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  const std::string_view path = target.substr(0, question);
  const auto host_end = call.base_url.size() - call.base.size();
  const auto at = path.find(call.base);
  return call.base_url.substr(0, host_end) + std::string(path.substr(at == path.npos ? 0 : at)) + "?" + query;
}

}  // namespace backhaul
