// What a host agent does for an appliance besides writing disks: it says what it has, runs its VM drivers' verbs,
// samples disks, and is the source of reverse rounds. One POST /v1/host/CALL for each (docs/host_calls.md),
// over mutual TLS: who has a node certificate of this CA may call. Thread-safe; calls block their connection's
// thread.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "control/agents/digest_cache.h"
#include "control/agents/local_node.h"
#include "control/agents/send_task.h"
#include "control/drivers/vm_driver.h"
#include "control/http/http.h"
#include "dataplane/protocol/offered_streams.h"

namespace backhaul {

// A list of changed extents may be long: 64 MiB are more than a million of them.
inline constexpr HttpLimits kHostHttpLimits{.body_bytes = 64 * 1024 * 1024};

// Running sends, and ended ones whose result nobody has fetched; more are refused.
inline constexpr std::size_t kMaxHostSends = 64;

class HostServices {
 public:
  // All outlive it. Drivers by their names in the configuration.
  HostServices(const LocalNode& node, OfferedStreams& offers, std::map<std::string, VmDriver*> drivers)
      : node_(node), offers_(offers), drivers_(std::move(drivers)) {}
  ~HostServices();

  HttpResponse handle(const HttpRequest& request);
  // What the server itself refuses, in the shape of this interface's errors.
  static HttpResponse refuse(unsigned status, std::string_view why);

 private:
  using Answer = Result<boost::json::object>;
  Answer serve(std::string_view call, const boost::json::object& body, const std::string& peer);
  Answer report();
  Answer driver_call(const boost::json::object& body);
  Answer sample(const boost::json::object& body);
  Answer start_send(const boost::json::object& body, const std::string& peer);
  Answer poll_send(const boost::json::object& body);
  Answer stop_send(const boost::json::object& body);
  Result<SendResult> run_send(const SendCall& call, const std::string& peer, const std::string& source,
                              const ReportProgress& report, const std::atomic<bool>& stop);
  void drop_old_sends();  // REQUIRES: mutex_ held

  const LocalNode& node_;
  OfferedStreams& offers_;
  const std::map<std::string, VmDriver*> drivers_;
  DigestCache digests_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<SendTask>> sends_;
};

}  // namespace backhaul
