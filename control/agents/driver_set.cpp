#include "control/agents/driver_set.h"

#include "control/agents/remote_driver.h"
#include "control/drivers/command_driver.h"
#include "control/drivers/qemu/qemu_driver.h"
#include "control/model/control_error.h"

namespace backhaul {

HostClients make_host_clients(const std::vector<HostAddress>& hosts, const std::shared_ptr<TlsContext>& tls,
                              Clock& clock) {
  HostClients clients;
  for (const auto& host : hosts) clients[host.id] = std::make_unique<HostClient>(host.id, host.address, tls, clock);
  return clients;
}

Result<std::unique_ptr<DriverSet>> DriverSet::make(const std::vector<DriverConfig>& drivers, const HostClients& hosts,
                                                   const std::string& store, const std::vector<std::string>& sources) {
  std::unique_ptr<DriverSet> set(new DriverSet(hosts));
  for (const auto& driver : drivers) {
    if (driver.kind == "qemu") {
      auto options = driver.qemu;
      if (options.disks.empty()) {
        options.disks = sources;
        options.disks.insert(options.disks.begin(), store);
      }
      set->local_[driver.name] = make_qemu_driver(std::move(options));
    } else if (driver.kind == "command") {
      set->local_[driver.name] = make_command_driver({driver.command, driver.timeout_s, driver.env});
    } else {
      return make_error(BaseErrc::unsupported, "VM driver '" + driver.name + "' of kind '" + driver.kind + "'");
    }
  }
  return set;
}

std::map<std::string, VmDriver*> DriverSet::local() const {
  std::map<std::string, VmDriver*> drivers;
  for (const auto& [name, driver] : local_) drivers[name] = driver.get();
  return drivers;
}

Result<VmDriver*> DriverSet::driver_for(const Location& location) {
  if (location.host.empty()) {
    const auto found = local_.find(location.driver);
    if (found == local_.end())
      return make_error(ControlErrc::not_found,
                        "VM driver '" + location.driver + "' in this appliance's configuration");
    return found->second.get();
  }
  const auto host = hosts_.find(location.host);
  if (host == hosts_.end())
    return make_error(ControlErrc::not_found,
                      "host agent '" + location.host + "' is not in this appliance's configuration");
  const std::lock_guard lock(mutex_);
  auto& driver = remote_[{location.host, location.driver}];
  if (!driver) driver = make_remote_driver(*host->second, location.driver);
  return driver.get();
}

}  // namespace backhaul
