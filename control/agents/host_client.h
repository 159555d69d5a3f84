// The appliance's calls to one host agent: JSON in and out over HTTP, ALPN "http/1.1", mutual TLS
// (docs/host_calls.md). Thread-safe: calls run side by side, each on a connection of its own, which is
// kept for the next one.
#pragma once

#include <boost/json/object.hpp>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "control/http/http.h"

namespace backhaul {

class HostClient {
 public:
  HostClient(std::string id, Endpoint endpoint, std::shared_ptr<TlsContext> tls, Clock& clock);
  ~HostClient();

  const std::string& id() const noexcept { return id_; }
  const Endpoint& endpoint() const noexcept { return endpoint_; }
  const std::shared_ptr<TlsContext>& tls() const noexcept { return tls_; }

  // POST /v1/host/CALL. Errors: what the agent reported (its symbol, cause and fix); ControlErrc::host_unreachable with
  // what the link said.
  Result<boost::json::object> call(std::string_view call, const boost::json::object& body,
                                   std::chrono::milliseconds timeout);

 private:
  std::unique_ptr<HttpClient> take();
  void give_back(std::unique_ptr<HttpClient> client);

  const std::string id_;
  const Endpoint endpoint_;
  const std::shared_ptr<TlsContext> tls_;
  Clock& clock_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<HttpClient>> idle_;
};

}  // namespace backhaul
