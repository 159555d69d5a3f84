// What the appliance's jobs act on: host agents, disks and VMs, as its configuration names them. The one place where
// the control layer meets the real things.
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

// Looks at once whether the store, io_uring and the certificates can be used, and settles what a crash left in the
// store. The configuration is copied where it is needed.
Result<std::unique_ptr<ApplianceParts>> make_appliance_parts(const ApplianceConfig& config);

}  // namespace backhaul
