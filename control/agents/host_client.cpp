#include "control/agents/host_client.h"

#include <boost/json.hpp>

#include "control/model/control_error.h"
#include "transport/frames/frame_io.h"

namespace backhaul {
namespace {

constexpr std::size_t kMaxIdle = 8;  // connections kept; more calls at once dial and hang up

}  // namespace

HostClient::HostClient(std::string id, Endpoint endpoint, std::shared_ptr<TlsContext> tls, Clock& clock)
    : id_(std::move(id)), endpoint_(std::move(endpoint)), tls_(std::move(tls)), clock_(clock) {}

HostClient::~HostClient() = default;

std::unique_ptr<HttpClient> HostClient::take() {
  const std::lock_guard lock(mutex_);
  if (idle_.empty()) return std::make_unique<HttpClient>(endpoint_, tls_, clock_);
  auto client = std::move(idle_.back());
  idle_.pop_back();
  return client;
}

void HostClient::give_back(std::unique_ptr<HttpClient> client) {
  const std::lock_guard lock(mutex_);
  if (idle_.size() < kMaxIdle) idle_.push_back(std::move(client));
}

Result<boost::json::object> HostClient::call(std::string_view call, const boost::json::object& body,
                                             std::chrono::milliseconds timeout) {
  auto client = take();
  auto response = client->send("POST", "/v1/host/" + std::string(call), {{"content-type", "application/json"}},
                               boost::json::serialize(body), timeout);
  if (!response) {
    if (response.error().retry() == Retry::no) return std::move(response).error().with_context("host agent " + id_);
    return make_error(ControlErrc::host_unreachable, id_ + ": " + response.error().to_string());
  }
  give_back(std::move(client));
  boost::system::error_code failed;
  auto answer = boost::json::parse(response->body, failed);
  if (failed || !answer.is_object())
    return make_error(ControlErrc::host_unreachable,
                      id_ + ": status " + std::to_string(response->status) + ", and no JSON object");
  auto& object = answer.get_object();
  if (const auto* error = object.if_contains("error")) {
    if (!error->is_object())
      return make_error(ControlErrc::host_unreachable, id_ + ": status " + std::to_string(response->status));
    return error_from_json(error->get_object()).with_context("host agent " + id_);
  }
  if (response->status != 200)
    return make_error(ControlErrc::host_unreachable, id_ + ": status " + std::to_string(response->status));
  return std::move(object);
}

}  // namespace backhaul
