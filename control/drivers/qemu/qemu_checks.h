// Whether a VM can be run here, and whether one that runs is well.
#pragma once

#include <initializer_list>

#include "control/drivers/qemu/qemu_session.h"

namespace backhaul {

// A setting of the item, when it is there one of `words` ("q35, pc"); else what the driver is configured with.
Result<std::string> qemu_choice(const boost::json::object& settings, std::string_view key, const std::string& otherwise,
                                std::string_view words);
Result<std::string> qemu_machine(const QemuDriverOptions& options, const boost::json::object& settings,
                                 const VmDescription& vm);
// invalid_argument for the first thing that this driver cannot do.
Result<void> check_description(const QemuDriverOptions& options, const VmDescription& vm);
Result<std::vector<Check>> qemu_preflight(const QemuDriverOptions& options, const VmRef& vm,
                                          const VmDescription& description);
// Healthy: the guest runs, and what the item's setting `health` asks for is there: {console = "a text"} must have
// appeared on the serial console since the start.
Result<Health> qemu_health(QemuSession& session);

}  // namespace backhaul
