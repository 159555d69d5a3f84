// Raw disks: the file's bytes are the disk's bytes. disk.cpp chooses between this and VHDX; callers use
// dataplane/disk/disk.h.
//
// Padding (`round_up_to` of open_raw_disk): the disk is then longer than its file, up to the next multiple. The tail
// has no place in the file: map() gives a zero segment for it, and allocate() refuses it (BaseErrc::invalid_argument),
// because a file may not grow while lanes use it. That is enough for a source.
#pragma once

#include <memory>

#include "dataplane/disk/disk.h"

namespace backhaul {

// REQUIRES: options.format is raw. Errors: BaseErrc::invalid_argument when a regular file is not empty,
// IoErrc::too_small for a device. On a larger device the disk is its first options.size bytes.
Result<std::unique_ptr<Disk>> create_raw_disk(std::unique_ptr<File> file, const DiskCreate& options);
Result<std::unique_ptr<Disk>> open_raw_disk(std::unique_ptr<File> file, std::uint64_t round_up_to);

}  // namespace backhaul
