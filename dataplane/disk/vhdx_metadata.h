// The metadata region of a VHDX file ([MS-VHDX] 2.6): what the disk is.
#pragma once

#include <cstdint>
#include <vector>

#include "base/error.h"
#include "dataplane/disk/io.h"
#include "dataplane/disk/vhdx_layout.h"
#include "dataplane/disk/vhdx_view.h"

namespace backhaul::vhdx {

struct DiskMetadata {
  std::uint32_t block_size = 0;
  bool leave_blocks_allocated = false;  // a fixed disk
  std::uint64_t disk_size = 0;
  Guid disk_id;
  std::uint32_t logical_sector_size = 0;
  std::uint32_t physical_sector_size = 0;
};

// Errors: bad_metadata, unknown_required_metadata, differencing, bad_block_size, bad_sector_size, bad_disk_size,
// too_large.
Result<DiskMetadata> load_metadata(const View& view, ByteRange region);

// The same checks for a disk to be created.
Result<void> check_metadata(const DiskMetadata& metadata, const std::string& name);

// The start of a metadata region (table and items); the rest of the region is zero.
std::vector<std::byte> build_metadata(const DiskMetadata& metadata);

}  // namespace backhaul::vhdx
