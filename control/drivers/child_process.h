// One run of another program: bytes on its stdin, bounded output back, killed with everything it started when its time
// is over. No shell. Blocks; thread-safe.
#pragma once

#include <boost/json/object.hpp>
#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "control/model/model.h"

namespace backhaul {

inline constexpr std::size_t kMaxChildOutput = 8 * 1024 * 1024;  // stdout; more is driver_protocol
inline constexpr std::size_t kMaxChildErrors = 16 * 1024;        // stderr: the end is kept, for messages

struct ChildOutcome {
  int exit_status = 0;  // of exit(); 128 + number for a signal
  std::string output, errors;
};

using Environment = std::map<std::string, std::string>;

// `environment` overrides our own. Errors: driver_failed (it could not be started), driver_timeout, driver_protocol
// (too much output).
Result<ChildOutcome> run_child(const std::vector<std::string>& argv, std::string_view input,
                               std::chrono::milliseconds timeout, const Environment& environment = {});

// An action of a recovery plan; action_failed with the end of its stderr.
Result<void> run_plan_command(const PlanAction& action, const boost::json::object& about);

}  // namespace backhaul
