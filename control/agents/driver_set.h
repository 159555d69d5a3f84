// The VM drivers of one daemon: its own by their configured names, and at the appliance a RemoteDriver for each beside
// a host agent. Thread-safe.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "control/agents/host_client.h"
#include "control/agents/node_config.h"
#include "control/drivers/vm_driver.h"

namespace backhaul {

// Clients of all configured host agents, by id. Immutable once made.
using HostClients = std::map<std::string, std::unique_ptr<HostClient>, std::less<>>;
HostClients make_host_clients(const std::vector<HostAddress>& hosts, const std::shared_ptr<TlsContext>& tls,
                              Clock& clock);

class DriverSet final : public VmDriverSource {
 public:
  // `hosts` outlives it. Error: BaseErrc::unsupported for a kind that this build does not have.
  // A qemu driver without `disks` of its own gets the store and the sources.
  static Result<std::unique_ptr<DriverSet>> make(const std::vector<DriverConfig>& drivers, const HostClients& hosts,
                                                 const std::string& store, const std::vector<std::string>& sources);

  // Errors: ControlErrc::not_found names the driver or the host agent.
  Result<VmDriver*> driver_for(const Location& location) override;
  std::map<std::string, VmDriver*> local() const;

 private:
  explicit DriverSet(const HostClients& hosts) : hosts_(hosts) {}

  const HostClients& hosts_;
  std::map<std::string, std::unique_ptr<VmDriver>> local_;
  std::mutex mutex_;
  std::map<std::pair<std::string, std::string>, std::unique_ptr<VmDriver>> remote_;  // by host agent and driver
};

}  // namespace backhaul
