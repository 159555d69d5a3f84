#include "apps/appliance_parts.h"

#include <spdlog/spdlog.h>

#include "apps/commands.h"
#include "control/agents/driver_set.h"
#include "control/agents/engine_data_plane.h"
#include "dataplane/linux/linux_storage.h"

namespace backhaul {
namespace {

// Members stand in the order of their making; each refers only to earlier ones.
class RealParts final : public ApplianceParts {
 public:
  RealParts(const ApplianceConfig& config, DataplaneParts parts, std::unique_ptr<Storage> storage, SourcePaths paths,
            const std::shared_ptr<TlsContext>& tls, const std::filesystem::path& tls_files)
      : parts_(std::move(parts)),
        storage_(std::move(storage)),
        paths_(std::move(paths)),
        store_(*storage_, parts_),
        node_{store_, paths_, parts_, tls_files, config.networks, config.generations},
        hosts_(make_host_clients(config.hosts, tls, *parts_.clock)),
        data_plane_(node_, hosts_,
                    {config.transfer.lanes, config.transfer.max_lanes, config.transfer.limit_bytes_per_s}) {}

  Result<void> make_drivers(const ApplianceConfig& config) {
    BH_TRY(drivers_, DriverSet::make(config.drivers, hosts_, config.store, config.sources));
    return {};
  }
  VmDriverSource& drivers() noexcept override { return *drivers_; }
  DataPlane& data_plane() noexcept override { return data_plane_; }

 private:
  const DataplaneParts parts_;
  const std::unique_ptr<Storage> storage_;
  const SourcePaths paths_;
  TargetStore store_;
  const LocalNode node_;
  const HostClients hosts_;
  std::unique_ptr<DriverSet> drivers_;
  EngineDataPlane data_plane_;
};

}  // namespace

Result<std::unique_ptr<ApplianceParts>> make_appliance_parts(const ApplianceConfig& config) {
  BH_TRY(auto parts, real_parts());
  BH_RETURN_IF_ERROR(parts.make_queue());  // fails at once when io_uring is not available
  BH_TRY(auto storage, open_linux_storage(config.store));
  BH_TRY(auto paths, SourcePaths::make(config.store, {config.sources.begin(), config.sources.end()}));
  const auto tls_files = tls_directory(config.tls, "appliance");
  BH_TRY(auto tls, TlsContext::load(TlsRole::client, tls_files, config.tls_records));
  BH_TRY(const auto leftovers, recover_store(*storage));
  for (const auto& leftover : leftovers)
    spdlog::info("unfinished transfer of {} in the own store: {}", leftover.disk, leftover.to_string());
  auto appliance =
      std::make_unique<RealParts>(config, std::move(parts), std::move(storage), std::move(paths), tls, tls_files);
  BH_RETURN_IF_ERROR(appliance->make_drivers(config));
  return appliance;
}

}  // namespace backhaul
