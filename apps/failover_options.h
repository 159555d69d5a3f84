// The options of a planned failover, for items and plans alike.
#pragma once

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cstdint>
#include <string>

#include "base/error.h"

namespace backhaul {

struct FailoverOptions {
  std::string sync, direction, host, complete, at, window_start, window_end;
  std::uint64_t budget_s = 0;
  bool create_vm = false, allow_force = false, never_force = false;
};
void add_failover_options(CLI::App& command, FailoverOptions& options, bool plan);

// The request's body (docs/http_api.md, "Planned failover"). invalid_argument for options that do not fit together.
Result<boost::json::value> failover_body(const FailoverOptions& options, bool plan);

// Reads a file of at most 1 MiB. invalid_argument names it.
Result<std::string> read_declaration(const std::string& path);

}  // namespace backhaul
