#include "dataplane/disk/vhdx_bat.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "dataplane/disk/vhdx.h"

namespace backhaul::vhdx {
namespace {

Error bad_bat(const View& view, std::uint64_t index, std::string_view fact) {
  return make_error(VhdxErrc::bad_bat, fmt::format("{}: entry {} {}", view.file().name(), index, fact));
}

}  // namespace

Result<BlockTable> BlockTable::load(const View& view, const TableGeometry& geometry, ByteRange region,
                                    std::span<const ByteRange> occupied) {
  BlockTable table;
  table.geometry_ = geometry;
  table.region_ = region;
  if (geometry.block_count() * kBatEntrySize > kMaxTableBytes)
    return make_error(VhdxErrc::too_large,
                      fmt::format("{}: {} bytes in blocks of {} need a block table of more than {} bytes",
                                  view.file().name(), geometry.disk_size, geometry.block_size, kMaxTableBytes));
  const auto entry_count = geometry.entry_count();
  if (entry_count * kBatEntrySize > region.length)
    return make_error(VhdxErrc::bad_bat, fmt::format("{}: {} entries do not fit the region of {} bytes",
                                                     view.file().name(), entry_count, region.length));
  table.entries_ = std::make_unique<std::atomic<std::uint64_t>[]>(geometry.block_count());
  std::vector<std::byte> chunk(std::min(entry_count * kBatEntrySize, kMiB));
  for (std::uint64_t first = 0; first < entry_count;) {
    const auto count = std::min<std::uint64_t>(chunk.size() / kBatEntrySize, entry_count - first);
    BH_RETURN_IF_ERROR(
        view.read(region.offset + first * kBatEntrySize, MutableBytes(chunk).first(count * kBatEntrySize)));
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto entry = vhdx::load<std::uint64_t>(chunk, i * kBatEntrySize);
      if (entry == 0) continue;
      BH_RETURN_IF_ERROR(table.check_entry(view, first + i, entry));
      if (const auto block = geometry.block_of(first + i))
        table.entries_[*block].store(entry, std::memory_order_relaxed);
    }
    first += count;
  }
  BH_RETURN_IF_ERROR(table.check_overlap(view, occupied));
  return table;
}

Result<void> BlockTable::check_entry(const View& view, std::uint64_t index, std::uint64_t entry) const {
  const auto state = static_cast<BlockState>(entry & kBatStateMask);
  if ((entry & ~kBatOffsetMask & ~kBatStateMask) != 0) return bad_bat(view, index, "has reserved bits set");
  const auto block = geometry_.block_of(index);
  if (!block) {
    // Sector bitmaps mean nothing without a parent; the entry is kept as it is.
    if (state == BlockState::not_present || state == BlockState::fully_present) return {};
    return bad_bat(view, index, "(a sector bitmap) has an unknown state");
  }
  switch (state) {
    case BlockState::not_present:
    case BlockState::undefined:
    case BlockState::zero:
    case BlockState::unmapped: return {};  // the offset is reserved
    case BlockState::fully_present: break;
    case BlockState::partially_present: return bad_bat(view, index, "is partially present without a parent");
    default: return bad_bat(view, index, fmt::format("has the unknown state {}", entry & kBatStateMask));
  }
  const auto offset = entry & kBatOffsetMask;
  if (offset < kHeaderSectionSize) return bad_bat(view, index, "lies in the header section");
  if (offset > view.size() || geometry_.used_length(*block) > view.size() - offset)
    return make_error(VhdxErrc::truncated, fmt::format("{}: block table entry {} lies at {}, the file ends at {}",
                                                       view.file().name(), index, offset, view.size()));
  return {};
}

Result<void> BlockTable::check_overlap(const View& view, std::span<const ByteRange> occupied) {
  // Places in MiB: 32 bits suffice for any file that passed check_entry(). 4 bytes for each present block, during the
  // open only.
  std::vector<std::uint32_t> places;
  for (std::uint64_t block = 0; block < geometry_.block_count(); ++block)
    if (const auto offset = place(block)) {
      if (*offset / kMiB > UINT32_MAX) return bad_bat(view, geometry_.index_of(block), "lies too far away");
      places.push_back(static_cast<std::uint32_t>(*offset / kMiB));
    }
  std::ranges::sort(places);
  auto region = occupied.begin();
  std::uint64_t end_of_last = 0;
  for (const auto place_mib : places) {
    const ByteRange range{place_mib * kMiB, geometry_.block_size};
    while (region != occupied.end() && region->end() <= range.offset) ++region;
    if (range.offset < end_of_last || (region != occupied.end() && region->offset < range.end()))
      return make_error(VhdxErrc::bad_bat, fmt::format("{}: the block at {} overlaps another block or a region",
                                                       view.file().name(), range.offset));
    end_of_last = range.end();
  }
  loaded_end_ = end_of_last;
  return {};
}

void BlockTable::fill_page(std::uint64_t page, MutableBytes content) const noexcept {
  const auto first = page * kEntriesPerPage;
  const auto last = std::min(first + kEntriesPerPage, geometry_.entry_count());
  for (auto index = first; index < last; ++index)
    if (const auto block = geometry_.block_of(index))
      store(content, (index - first) * kBatEntrySize, entries_[*block].load(std::memory_order_acquire));
}

}  // namespace backhaul::vhdx
