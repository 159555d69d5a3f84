// What the API's handlers share, on the connections' threads; Api owns it. Private to its room.
#pragma once

#include <algorithm>
#include <atomic>
#include <boost/json/array.hpp>
#include <boost/json/value.hpp>
#include <chrono>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "control/api/api.h"
#include "control/api/api_router.h"
#include "control/api/api_shapes.h"

namespace backhaul {

// Answers counted by route and status, for /metrics. Thread-safe.
class RequestCounts {
 public:
  void add(std::string_view operation, unsigned status, std::chrono::duration<double> took) {
    const std::lock_guard lock(mutex_);
    auto& entry = counts_[{std::string(operation), status}];
    ++entry.requests;
    entry.seconds += took.count();
  }
  struct Entry {
    std::uint64_t requests = 0;
    double seconds = 0;
  };
  using Counts = std::map<std::pair<std::string, unsigned>, Entry>;
  Counts snapshot() const {
    const std::lock_guard lock(mutex_);
    return counts_;
  }

 private:
  mutable std::mutex mutex_;
  Counts counts_;  // bounded: routes x statuses
};

// Counts bad tokens by address: makes guessing slow and keeps it from filling the audit log. Thread-safe.
class AuthFailures {
 public:
  enum class Verdict { audit, audit_last, refuse };
  // Counts one more failure at this time.
  Verdict add(const std::string& peer, Clock::Duration now);

 private:
  struct Window {
    Clock::Duration began{0};
    unsigned failures = 0;
  };
  std::mutex mutex_;
  std::map<std::string, Window> windows_;
};

struct ApiContext {
  Service& service;
  const ApiConfig config;
  Clock& clock;
  Random& random;
  const ApiRouter router;
  const std::string openapi;  // the document
  const std::string epoch;    // of this process, in the ids of events
  RequestCounts counts;
  AuthFailures failures;
  std::atomic<unsigned> streams{0};
};

HttpResponse json_response(unsigned status, const boost::json::value& body);
HttpResponse empty_response(unsigned status);
void add_etag(HttpResponse& response, std::uint64_t version);
// 202 with the URLs of status and result, for a verb on a job (or on an item, for `remove`).
HttpResponse accepted(const ApiCall& call, std::string_view verb, std::string_view object);

// If-Match and If-None-Match as an expected version: nothing, a version, or 0 (must not exist). `present`: the object's
// version, 0 when it does not exist.
Result<std::optional<std::uint64_t>> expected_version(const ApiCall& call, std::uint64_t present);
// Turns conflict into version_mismatch when the request was conditional.
Error as_mismatch(Error error, bool conditional);

// One page of `all`, from behind `skipToken`, with the link to the next. Lists are ordered by name, or by number with
// the newest first, so a token keeps its place when its object is gone.
enum class PageOrder { by_name, newest_first };
std::string next_link(const ApiCall& call, std::string_view token);

template <class T, class Name, class Shape>
HttpResponse page(const ApiCall& call, const std::vector<T>& all, PageOrder order, std::size_t size, Name name,
                  Shape shape) {
  const std::string_view token = call.query_of("skipToken");
  const auto is_behind = [&](const T& element) {
    const std::string& own = name(element);
    if (order == PageOrder::by_name || own.size() == token.size())
      return order == PageOrder::by_name ? own.compare(token) > 0 : own.compare(token) < 0;
    return own.size() < token.size();
  };
  const auto begin = token.empty() ? all.begin() : std::find_if(all.begin(), all.end(), is_behind);
  const auto end = begin + std::min<std::ptrdiff_t>(all.end() - begin, static_cast<std::ptrdiff_t>(size));
  boost::json::array values;
  for (auto it = begin; it != end; ++it) values.push_back(shape(*it));
  boost::json::object body{{"value", std::move(values)}};
  if (end != all.end()) body["nextLink"] = next_link(call, name(*(end - 1)));
  return json_response(200, body);
}

inline constexpr std::size_t kJobPage = 100, kPage = 500;

// Handlers, by file.
Result<HttpResponse> list_fabrics(ApiContext&, const ApiCall&);  // api_items.cpp
Result<HttpResponse> get_fabric(ApiContext&, const ApiCall&);
Result<HttpResponse> list_containers(ApiContext&, const ApiCall&);
Result<HttpResponse> get_container(ApiContext&, const ApiCall&);
Result<HttpResponse> list_items(ApiContext&, const ApiCall&);
Result<HttpResponse> get_item(ApiContext&, const ApiCall&);
Result<HttpResponse> put_item(ApiContext&, const ApiCall&);
Result<HttpResponse> remove_item(ApiContext&, const ApiCall&);
Result<HttpResponse> item_preflight(ApiContext&, const ApiCall&);
Result<HttpResponse> item_planned_failover(ApiContext&, const ApiCall&);
Result<HttpResponse> item_commit(ApiContext&, const ApiCall&);
Result<HttpResponse> item_cancel(ApiContext&, const ApiCall&);
Result<HttpResponse> item_reprotect(ApiContext&, const ApiCall&);
Result<HttpResponse> list_jobs(ApiContext&, const ApiCall&);  // api_jobs.cpp
Result<HttpResponse> get_job(ApiContext&, const ApiCall&);
Result<HttpResponse> resume_job(ApiContext&, const ApiCall&);
Result<HttpResponse> cancel_job(ApiContext&, const ApiCall&);
Result<HttpResponse> restart_job(ApiContext&, const ApiCall&);
Result<HttpResponse> operation_status(ApiContext&, const ApiCall&);
Result<HttpResponse> operation_result(ApiContext&, const ApiCall&);
Result<HttpResponse> list_plans(ApiContext&, const ApiCall&);  // api_plans.cpp
Result<HttpResponse> get_plan(ApiContext&, const ApiCall&);
Result<HttpResponse> put_plan(ApiContext&, const ApiCall&);
Result<HttpResponse> patch_plan(ApiContext&, const ApiCall&);
Result<HttpResponse> remove_plan(ApiContext&, const ApiCall&);
Result<HttpResponse> plan_planned_failover(ApiContext&, const ApiCall&);
Result<HttpResponse> plan_commit(ApiContext&, const ApiCall&);
Result<HttpResponse> plan_reprotect(ApiContext&, const ApiCall&);
Result<HttpResponse> list_tokens(ApiContext&, const ApiCall&);  // api_admin.cpp
Result<HttpResponse> put_token(ApiContext&, const ApiCall&);
Result<HttpResponse> remove_token(ApiContext&, const ApiCall&);
Result<HttpResponse> list_audit(ApiContext&, const ApiCall&);
Result<HttpResponse> livez(ApiContext&, const ApiCall&);
Result<HttpResponse> readyz(ApiContext&, const ApiCall&);
Result<HttpResponse> openapi(ApiContext&, const ApiCall&);
Result<HttpResponse> events(ApiContext&, const ApiCall&);   // api_events.cpp
Result<HttpResponse> metrics(ApiContext&, const ApiCall&);  // api_metrics.cpp

// Shared by items, jobs and plans.
boost::json::object item_shape(ApiContext& context, const ApiCall& call, const Item& item);
boost::json::object plan_shape(ApiContext& context, const ApiCall& call, const RecoveryPlan& plan);

}  // namespace backhaul
