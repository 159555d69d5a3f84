// Snapshots of a VM in QEMU. Taking one is one transaction over all disks: a dirty bitmap on each disk, and an overlay
// on top that takes the guest's writes from then on, so that the disks' own files stand still. Giving it back commits
// the overlays into the disks, which marks the bitmaps. One snapshot of a VM at a time.
//
// What is safe against what: while an overlay exists it holds writes that the disk lacks, and is kept until they are in
// the disk; that moment (the pivot) happens with the guest paused for some milliseconds, and the overlay's file is
// gone, durably, before the guest goes on. So whatever ends QEMU or this daemon, an overlay that is found may be
// committed into its disk: it never holds anything older than the disk. Each function may be repeated from any point.
#pragma once

#include "control/drivers/qemu/qemu_session.h"

namespace backhaul {

// Under an id that is known already: the same snapshot, or driver_failed when it is broken.
Result<Snapshot> take_hold(QemuSession& session, const std::string& id);
// VmDriver::release_snapshot. driver_failed when a broken one should be accepted.
Result<void> release_hold(QemuSession& session, const std::string& id, bool accepted);
// All overlays into their disks, with QEMU or without. A guest that a full overlay had paused goes on.
Result<void> commit_overlays(QemuSession& session);
// The snapshot's files change from now on, and nobody may take them for the snapshot.
Result<void> break_hold(QemuSession& session, const std::string& why);
bool has_overlays(const QemuRecord& record);

// A name that no other process has.
std::string new_qemu_token(std::string_view what);

}  // namespace backhaul
