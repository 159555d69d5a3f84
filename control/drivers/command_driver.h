// The `command` VM driver: the operator's own executable, one run for each call, JSON in and out. The contract is
// docs/command_driver.md; a working one for plain files is examples/files/vm-driver. Thread-safe.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "control/drivers/vm_driver.h"

namespace backhaul {

struct CommandDriverOptions {
  std::vector<std::string> command;             // argv; the verb is appended
  std::uint32_t timeout_s = 120;                // of one call; shut_down gets the request's timeout on top
  std::map<std::string, std::string> env = {};  // override our own environment
};

std::unique_ptr<VmDriver> make_command_driver(CommandDriverOptions options);

}  // namespace backhaul
