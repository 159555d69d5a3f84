// The dirty ranges of a bitmap that stands still, read through QEMU's NBD server on a Unix socket.
#pragma once

#include "control/drivers/qemu/qemu_session.h"

namespace backhaul {

// Inside [0, size_bytes), ascending. Whatever is doubtful is no answer but a reason.
ChangedExtents read_dirty_ranges(QemuSession& session, const QemuNode& node, const std::string& token,
                                 std::uint64_t size_bytes);

}  // namespace backhaul
