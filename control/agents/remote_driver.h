// RemoteDriver: a VM driver that sends each call to the host agent beside its VMs. Thread-safe.
#pragma once

#include <memory>

#include "control/agents/host_client.h"
#include "control/drivers/vm_driver.h"

namespace backhaul {

// `client` outlives it. `driver`: a name in the host agent's configuration.
std::unique_ptr<VmDriver> make_remote_driver(HostClient& client, std::string driver);

}  // namespace backhaul
