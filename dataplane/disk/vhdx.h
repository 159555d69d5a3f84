// VHDX disks, from [MS-VHDX] (Virtual Hard Disk v2 file format). Dynamic and fixed; block sizes 1 to 256 MiB; logical
// sectors 512 and 4096; no differencing. Metadata changes go through the log (section 2.3), so that a kill at any
// moment leaves a file that any reader repairs by replay. dataplane/disk/vhdx_layout.h has the constants.
#pragma once

#include <memory>

#include "dataplane/disk/disk.h"

namespace backhaul {

Result<std::unique_ptr<Disk>> create_vhdx(std::unique_ptr<File> file, const DiskCreate& options, Random& random);
Result<std::unique_ptr<Disk>> open_vhdx(std::unique_ptr<File> file, OpenMode mode, Random& random);
// Whether the file starts with the VHDX signature.
Result<bool> looks_like_vhdx(File& file);

enum class VhdxErrc {
  bad_file_identifier = 1,  // not a VHDX file
  no_valid_header,          // both headers are damaged
  no_valid_region_table,    // both region tables are damaged
  unknown_required_region,  // a required region that this program does not know
  bad_region,               // a region lies outside the file, overlaps, or is misaligned
  bad_metadata,             // the metadata table or an item of it is damaged
  unknown_required_metadata,
  unsupported_version,
  differencing,  // a differencing (child) disk: it needs a parent
  bad_block_size,
  bad_sector_size,
  bad_disk_size,
  bad_bat,    // a block table entry is outside the file, overlaps, or has an unknown state
  bad_log,    // the log is needed and damaged
  truncated,  // the file ends before what its headers promise
  too_large,  // above the format's 64 TiB, or a block table above the 64 MiB that vhdx_bat.h allows
};
const ErrorCategory& vhdx_category() noexcept;
inline std::error_code make_error_code(VhdxErrc value) { return {static_cast<int>(value), vhdx_category()}; }

}  // namespace backhaul

template <>
struct std::is_error_code_enum<backhaul::VhdxErrc> : std::true_type {};
