// The block allocation table of a VHDX disk ([MS-VHDX] 2.5) in memory: 8 bytes for each payload block, so 8 MiB for 1
// TiB in blocks of 1 MiB; at most kMaxTableBytes (8 TiB in blocks of 1 MiB, 64 TiB from blocks of 8 MiB on), larger
// ones are refused.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/error.h"
#include "dataplane/disk/io.h"
#include "dataplane/disk/vhdx_layout.h"
#include "dataplane/disk/vhdx_view.h"

namespace backhaul::vhdx {

inline constexpr std::uint64_t kMaxTableBytes = 64 * kMiB;
inline constexpr std::uint64_t kEntriesPerPage = kLogSector / kBatEntrySize;

// Where entries lie in the table. After every `chunk_ratio` payload entries comes one for a sector bitmap block (2.5).
struct TableGeometry {
  std::uint64_t disk_size = 0;
  std::uint32_t block_size = 0;
  std::uint32_t sector_size = 0;

  std::uint64_t chunk_ratio() const noexcept { return kSectorsPerBitmapBlock * sector_size / block_size; }
  std::uint64_t block_count() const noexcept { return div_up(disk_size, block_size); }
  std::uint64_t index_of(std::uint64_t block) const noexcept { return block + block / chunk_ratio(); }
  // Bytes of a block that belong to the disk: the last one may be short, and QEMU ends a fixed file with them.
  std::uint64_t used_length(std::uint64_t block) const noexcept {
    const auto left = disk_size - block * block_size;
    return left < block_size ? left : block_size;
  }
  // Entries up to that of the last payload block. REQUIRES: disk_size > 0.
  std::uint64_t entry_count() const noexcept { return index_of(block_count() - 1) + 1; }
  // The payload block of a table index, or nothing for a sector bitmap entry.
  std::optional<std::uint64_t> block_of(std::uint64_t index) const noexcept {
    const auto group = chunk_ratio() + 1;
    if (index % group == chunk_ratio()) return std::nullopt;
    return index / group * chunk_ratio() + index % group;
  }
};

constexpr std::uint64_t make_entry(BlockState state, std::uint64_t file_offset) noexcept {
  return file_offset | static_cast<std::uint64_t>(state);
}

// place() may be called by any thread at any time; set_place() by one thread at a time.
class BlockTable {
 public:
  // Reads and checks every entry: states, alignment, places inside the file, no overlap of two blocks or with
  // `occupied` (sorted). Errors: bad_bat, truncated, too_large.
  static Result<BlockTable> load(const View& view, const TableGeometry& geometry, ByteRange region,
                                 std::span<const ByteRange> occupied);

  const TableGeometry& geometry() const noexcept { return geometry_; }
  // Where a block lies in the file; nothing when it has no place and reads as zeros.
  std::optional<std::uint64_t> place(std::uint64_t block) const noexcept {
    const auto entry = entries_[block].load(std::memory_order_acquire);
    if ((entry & kBatStateMask) != static_cast<std::uint64_t>(BlockState::fully_present)) return std::nullopt;
    return entry & kBatOffsetMask;
  }
  // Where the last block that load() found ends in the file, taken as a whole block.
  std::uint64_t loaded_end() const noexcept { return loaded_end_; }
  void set_place(std::uint64_t block, std::uint64_t file_offset) noexcept {
    entries_[block].store(make_entry(BlockState::fully_present, file_offset), std::memory_order_release);
  }

  // The table's 4 KiB pages, counted from the region's start.
  std::uint64_t page_of(std::uint64_t block) const noexcept { return geometry_.index_of(block) / kEntriesPerPage; }
  std::uint64_t page_offset(std::uint64_t page) const noexcept { return region_.offset + page * kLogSector; }
  // Puts the page's payload entries into `content`, which holds the page as the file has it; other entries stay.
  void fill_page(std::uint64_t page, MutableBytes content) const noexcept;

 private:
  Result<void> check_entry(const View& view, std::uint64_t index, std::uint64_t entry) const;
  Result<void> check_overlap(const View& view, std::span<const ByteRange> occupied);

  TableGeometry geometry_;
  ByteRange region_;
  std::uint64_t loaded_end_ = 0;
  std::unique_ptr<std::atomic<std::uint64_t>[]> entries_;  // payload blocks only
};

}  // namespace backhaul::vhdx
