// A VM driver whose calls are JSON objects (docs/command_driver.md): the base of the `command` driver and of
// RemoteDriver, which only carry the calls; and serve_driver_call(), the other end of RemoteDriver.
#pragma once

#include <boost/json/object.hpp>
#include <string_view>

#include "control/drivers/vm_driver.h"

namespace backhaul {

class JsonDriver : public VmDriver {
 public:
  Result<VmFacts> describe(const VmRef& vm) override;
  Result<Snapshot> snapshot(const VmRef& vm, const std::string& id) override;
  Result<ChangedExtents> changed_extents(const VmRef& vm, const std::string& disk, const std::string& since_token,
                                         const std::string& id) override;
  Result<std::optional<std::uint64_t>> changed_bytes(const VmRef& vm, const std::string& since_token) override;
  Result<void> release_snapshot(const VmRef& vm, const std::string& id, bool accepted) override;
  Result<void> forget_tokens(const VmRef& vm) override;
  Result<ShutdownOutcome> shut_down(const VmRef& vm, const ShutdownRequest& request) override;
  Result<void> create(const VmRef& vm, const VmDescription& description) override;
  Result<StartOutcome> start(const VmRef& vm) override;
  Result<FirstWrite> first_write(const VmRef& vm, std::chrono::milliseconds wait) override;
  Result<void> stop(const VmRef& vm) override;
  Result<void> remove(const VmRef& vm, bool delete_disks) override;
  Result<std::vector<Check>> preflight(const VmRef& vm, const VmDescription& description) override;
  Result<Health> health(const VmRef& vm) override;

 protected:
  // Carries one call; `request` is complete but for the verb. The call may take `more_time_s` longer than usual.
  virtual Result<boost::json::object> call(std::string_view verb, const boost::json::object& request,
                                           std::uint32_t more_time_s) = 0;

 private:
  Result<boost::json::object> call_vm(std::string_view verb, const VmRef& vm, const boost::json::object& more = {},
                                      std::uint32_t more_time_s = 0);
};

// Does what a request of JsonDriver asks for and returns its answer. Errors: the driver's own; driver_protocol for a
// field that is missing or wrong, ControlErrc::not_found for an unknown verb.
Result<boost::json::object> serve_driver_call(VmDriver& driver, std::string_view verb,
                                              const boost::json::object& request);

}  // namespace backhaul
