// The life of a VM in QEMU: made, started, shut down, taken away.
#pragma once

#include "control/qemu_session.h"

namespace backhaul {

Result<void> create_qemu(QemuSession& session, const VmDescription& description);
// Overlays that a crash left are in the disks before QEMU opens them; bitmaps are there before the guest's first
// instruction.
Result<StartOutcome> start_qemu(QemuSession& session);
Result<ShutdownOutcome> shut_down_qemu(QemuSession& session, const ShutdownRequest& request);
Result<void> remove_qemu(QemuSession& session, bool delete_disks);
Result<void> forget_qemu_tokens(QemuSession& session);

}  // namespace backhaul
