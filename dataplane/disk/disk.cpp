#include "dataplane/disk/disk.h"

#include <utility>

#include "dataplane/disk/raw_disk.h"
#include "dataplane/disk/vhdx.h"

namespace backhaul {

Result<std::unique_ptr<Disk>> create_disk(std::unique_ptr<File> file, const DiskCreate& options, Random& random) {
  if (options.format == DiskFormat::raw) return create_raw_disk(std::move(file), options);
  return create_vhdx(std::move(file), options, random);
}

Result<std::unique_ptr<Disk>> open_disk(std::unique_ptr<File> file, OpenMode mode, Random& random,
                                        std::uint64_t round_up_to) {
  // The content of a device belongs to the guest, which could write a signature there: a device is always raw.
  if (!file->is_block_device()) {
    BH_TRY(const bool vhdx, looks_like_vhdx(*file));
    if (vhdx) return open_vhdx(std::move(file), mode, random);
  }
  return open_raw_disk(std::move(file), round_up_to);
}

}  // namespace backhaul
