// The header section of a VHDX file ([MS-VHDX] 2.2): file identifier, the two headers, the two region tables.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "dataplane/disk/io.h"
#include "dataplane/disk/vhdx_layout.h"
#include "dataplane/disk/vhdx_view.h"

namespace backhaul::vhdx {

// Checks size and signature: VhdxErrc::bad_file_identifier, truncated.
Result<void> check_file_identifier(File& file);

// The two header copies. Belongs to one disk; the caller lets only one thread in at a time.
class HeaderSlots {
 public:
  // Reads both copies and takes the current one. Errors: no_valid_header, unsupported_version, bad_region (the log's
  // place).
  static Result<HeaderSlots> load(File& file);

  const Header& current() const noexcept { return current_; }

  // Writes `next` to both copies by the procedure of 2.2.2.1 (the copy that is not current, next sequence number,
  // sync), so that losing either one afterwards loses nothing. After an error the old or the new header is current in
  // the file; calling again is safe.
  Result<void> update(File& file, const Header& next);

 private:
  Result<void> write_other(File& file, Header next);

  Header current_;
  unsigned slot_ = 0;  // where current_ lies
};

// With its checksum set.
Header sealed(Header header) noexcept;

struct Regions {
  ByteRange bat, metadata;
  std::vector<ByteRange> all;  // every region, known or not, and the log: where no block may lie
};
// Errors: no_valid_region_table, bad_region, unknown_required_region.
Result<Regions> load_regions(const View& view, const Header& header);

// The 64 KiB of a region table.
std::vector<std::byte> build_region_table(std::span<const RegionTableEntry> entries);

// Whether offset and length are multiples of 1 MiB, not empty, behind the header section and inside `file_size`.
bool is_region_in_file(std::uint64_t offset, std::uint64_t length, std::uint64_t file_size) noexcept;

}  // namespace backhaul::vhdx
