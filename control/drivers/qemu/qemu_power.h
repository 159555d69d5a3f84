// The life of a VM in QEMU: made, started, shut down, taken away.
#pragma once

#include "control/drivers/qemu/qemu_session.h"

namespace backhaul {

Result<void> create_qemu(QemuSession& session, const VmDescription& description);
// Overlays that a crash left are in the disks before QEMU opens them; bitmaps are there before the guest's first
// instruction.
Result<StartOutcome> start_qemu(QemuSession& session);
// Waits so long for the guest's first write. `unwritten`: when this process last saw that there was none, by the steady
// clock; kept by the caller between calls, empty at first.
using SeenUnwritten = std::optional<std::chrono::steady_clock::time_point>;
Result<FirstWrite> wait_for_first_write(QemuSession& session, std::chrono::milliseconds wait, SeenUnwritten& unwritten);
Result<ShutdownOutcome> shut_down_qemu(QemuSession& session, const ShutdownRequest& request);
Result<void> remove_qemu(QemuSession& session, bool delete_disks);
Result<void> forget_qemu_tokens(QemuSession& session);

}  // namespace backhaul
