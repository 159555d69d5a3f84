// The dirty ranges of a bitmap that stands still, read through QEMU's NBD server on a Unix socket. A bitmap that is
// exported is busy, and can be neither read nor changed by anybody else.
#pragma once

#include "control/drivers/qemu/qemu_session.h"

namespace backhaul {

// Inside [0, size_bytes), ascending. Whatever is doubtful is no answer but a reason.
ChangedExtents read_dirty_ranges(QemuSession& session, const QemuNode& node, const std::string& token,
                                 std::uint64_t size_bytes);
// The server that a crash in read_dirty_ranges left behind, with its export.
Result<void> stop_dirty_export(QemuSession& session);

}  // namespace backhaul
