// The appliance's HTTP API (docs/http_api.md): requests in, responses out, no sockets. Authenticates, finds the route,
// checks the role, reads the body, calls the service, and turns every error into an ARM error. Thread-safe; a call
// takes as long as the service's.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/world.h"
#include "control/http/http.h"
#include "control/jobs/service.h"

namespace backhaul {

struct ApiConfig {
  std::string vault = "backhaul";
  std::string version;              // of the program; stands in /metrics and /openapi.json
  unsigned max_event_streams = 16;  // each holds one of the listener's connections
};

struct ApiContext;

class Api {
 public:
  // The references outlive it.
  Api(Service& service, ApiConfig config, Clock& clock, Random& random);
  ~Api();

  HttpResponse handle(const HttpRequest& request);
  // For serve_http().
  HttpResponse refuse(unsigned status, std::string_view why);

 private:
  std::unique_ptr<ApiContext> context_;
};

}  // namespace backhaul
