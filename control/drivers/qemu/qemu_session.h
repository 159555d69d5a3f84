// One call's view of one VM: where its files are, what is remembered of it, and a connection to its QEMU when that
// lives. Made anew for each call, under the VM's lock.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "control/drivers/qemu/qemu_blocks.h"
#include "control/drivers/qemu/qemu_process.h"
#include "control/drivers/qemu/qemu_record.h"

namespace backhaul {

struct QemuSession {
  const QemuDriverOptions* options = nullptr;
  std::string vm;
  QemuFiles files;
  bool attached = false;  // somebody else's QEMU
  std::string socket;
  boost::json::object settings;
  std::vector<DiskPlace> disks;  // absolute paths
  QemuRecord record;
  std::optional<QemuDefinition> definition;
  std::unique_ptr<QmpClient> qmp;  // none: no QEMU runs this VM

  Result<void> save();  // makes the directory when it is not there
};

// Errors: BaseErrc::invalid_argument for a name, a path or a setting that is not allowed; driver_failed and
// driver_timeout when QEMU lives and its monitor does not answer, or when it cannot be known whether it lives.
Result<QemuSession> open_qemu_session(const QemuDriverOptions& options, const VmRef& vm);
// Connects when a QEMU runs this VM. Waits for one that is on its way up or down.
Result<void> connect_qemu(QemuSession& session);

// Absolute; inside one of the driver's directories, links followed.
Result<std::string> qemu_disk_path(const QemuDriverOptions& options, const std::string& path);

Result<PowerState> qemu_power(QemuSession& session);
// Whether a VM with this status has ended or not begun, so that its disks do not change.
bool is_off_status(std::string_view status, const QemuRecord& record) noexcept;
// Ends the process of a VM of ours (or, attached, asks it to quit) and waits for its end. No error when there is none.
Result<void> quit_qemu(QemuSession& session);

}  // namespace backhaul
