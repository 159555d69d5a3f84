// The host agents, disks and VMs that the appliance's jobs act on, as its configuration names them. Only here does the
// control layer meet the real things.
#pragma once

#include <memory>

#include "control/agents/node_config.h"
#include "control/drivers/vm_driver.h"
#include "control/jobs/data_plane.h"

namespace backhaul {

class ApplianceParts {
 public:
  virtual ~ApplianceParts() = default;  // stops what is under way and waits for it
  virtual VmDriverSource& drivers() noexcept = 0;
  virtual DataPlane& data_plane() noexcept = 0;
};

// Checks that the store, io_uring and the certificates can be used, and recovers what a crash left in the store. Copies
// what it needs of the configuration.
Result<std::unique_ptr<ApplianceParts>> make_appliance_parts(const ApplianceConfig& config);

}  // namespace backhaul
