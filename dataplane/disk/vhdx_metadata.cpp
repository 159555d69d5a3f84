#include "dataplane/disk/vhdx_metadata.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>

#include "dataplane/disk/vhdx.h"

namespace backhaul::vhdx {
namespace {

struct KnownItem {
  Guid id;
  std::uint32_t length;  // 0: any
  std::uint32_t flags;
};
enum KnownIndex { kParameters, kSize, kDiskId, kLogicalSector, kPhysicalSector, kParent, kKnownCount };
constexpr std::array<KnownItem, kKnownCount> kKnown = {{
    {kFileParametersItem, 8, kMetadataIsRequired},
    {kVirtualDiskSizeItem, 8, kMetadataIsVirtualDisk | kMetadataIsRequired},
    {kVirtualDiskIdItem, 16, kMetadataIsVirtualDisk | kMetadataIsRequired},
    {kLogicalSectorSizeItem, 4, kMetadataIsVirtualDisk | kMetadataIsRequired},
    {kPhysicalSectorSizeItem, 4, kMetadataIsVirtualDisk | kMetadataIsRequired},
    {kParentLocatorItem, 0, kMetadataIsRequired},
}};

Error bad_metadata(const View& view, std::string_view fact) {
  return make_error(VhdxErrc::bad_metadata, fmt::format("{}: {}", view.file().name(), fact));
}

bool is_item_in_region(const MetadataTableEntry& entry, ByteRange region) noexcept {
  if (entry.length == 0) return entry.offset == 0;
  return entry.offset >= kMetadataTableSize && entry.length <= kMaxMetadataItemSize && entry.offset <= region.length &&
         entry.length <= region.length - entry.offset;
}

// Finds the known items in the table, by KnownIndex; one that is missing has length 0.
Result<std::array<MetadataTableEntry, kKnownCount>> find_items(const View& view, ByteRange region) {
  std::vector<std::byte> table(kMetadataTableSize);
  BH_RETURN_IF_ERROR(view.read(region.offset, table));
  const auto header = load<MetadataTableHeader>(table);
  if (header.signature != kMetadataSignature) return bad_metadata(view, "the table's signature is wrong");
  if (header.entry_count > kMaxMetadataEntries) return bad_metadata(view, "the table has too many entries");
  std::array<MetadataTableEntry, kKnownCount> found{};
  std::array<bool, kKnownCount> seen{};
  for (std::size_t i = 0; i < header.entry_count; ++i) {
    const auto entry = load<MetadataTableEntry>(table, sizeof header + i * sizeof(MetadataTableEntry));
    if (!is_item_in_region(entry, region)) return bad_metadata(view, fmt::format("item {} lies outside the region", i));
    const auto known = std::ranges::find(kKnown, entry.id, &KnownItem::id);
    if (known == kKnown.end() || (entry.flags & kMetadataIsUser) != 0) {
      if ((entry.flags & kMetadataIsRequired) != 0)
        return make_error(VhdxErrc::unknown_required_metadata, fmt::format("{}: item {}", view.file().name(), i));
      continue;
    }
    const auto index = static_cast<std::size_t>(known - kKnown.begin());
    if (std::exchange(seen[index], true)) return bad_metadata(view, fmt::format("item {} is there twice", i));
    if (known->length != 0 && entry.length != known->length)
      return bad_metadata(view, fmt::format("item {} has {} bytes instead of {}", i, entry.length, known->length));
    found[index] = entry;
  }
  for (std::size_t i = 0; i < kParent; ++i)
    if (!seen[i]) return bad_metadata(view, "a required item is missing");
  return found;
}

template <class T>
Result<T> read_item(const View& view, ByteRange region, const MetadataTableEntry& entry) {
  std::array<std::byte, sizeof(T)> bytes;
  BH_RETURN_IF_ERROR(view.read(region.offset + entry.offset, bytes));
  return load<T>(bytes);
}

}  // namespace

Result<void> check_metadata(const DiskMetadata& metadata, const std::string& name) {
  if (!std::has_single_bit(metadata.block_size) || metadata.block_size < kMinBlockSize ||
      metadata.block_size > kMaxBlockSize)
    return make_error(VhdxErrc::bad_block_size, fmt::format("{}: {} bytes", name, metadata.block_size));
  for (const auto size : {metadata.logical_sector_size, metadata.physical_sector_size})
    if (size != 512 && size != 4096)
      return make_error(VhdxErrc::bad_sector_size, fmt::format("{}: {} bytes", name, size));
  if (metadata.disk_size > kMaxDiskSize)
    return make_error(VhdxErrc::too_large, fmt::format("{}: {} bytes", name, metadata.disk_size));
  if (metadata.disk_size == 0 || metadata.disk_size % metadata.logical_sector_size != 0)
    return make_error(VhdxErrc::bad_disk_size, fmt::format("{}: {} bytes with sectors of {}", name, metadata.disk_size,
                                                           metadata.logical_sector_size));
  return {};
}

Result<DiskMetadata> load_metadata(const View& view, ByteRange region) {
  BH_TRY(const auto items, find_items(view, region));
  BH_TRY(const auto parameters, read_item<FileParameters>(view, region, items[kParameters]));
  if ((parameters.flags & kHasParent) != 0) return make_error(VhdxErrc::differencing, view.file().name());
  DiskMetadata metadata;
  metadata.block_size = parameters.block_size;
  metadata.leave_blocks_allocated = (parameters.flags & kLeaveBlocksAllocated) != 0;
  BH_TRY(metadata.disk_size, read_item<std::uint64_t>(view, region, items[kSize]));
  BH_TRY(metadata.disk_id, read_item<Guid>(view, region, items[kDiskId]));
  BH_TRY(metadata.logical_sector_size, read_item<std::uint32_t>(view, region, items[kLogicalSector]));
  BH_TRY(metadata.physical_sector_size, read_item<std::uint32_t>(view, region, items[kPhysicalSector]));
  BH_RETURN_IF_ERROR(check_metadata(metadata, view.file().name()));
  return metadata;
}

std::vector<std::byte> build_metadata(const DiskMetadata& metadata) {
  std::vector<std::byte> bytes(kMetadataTableSize + kLogSector);
  MetadataTableHeader header;
  header.entry_count = kParent;
  store(bytes, 0, header);
  std::array<std::uint32_t, kParent> offsets;
  std::uint32_t offset = kMetadataTableSize;
  for (std::size_t i = 0; i < kParent; ++i) {
    offsets[i] = offset;
    store(bytes, sizeof header + i * sizeof(MetadataTableEntry),
          MetadataTableEntry{kKnown[i].id, offset, kKnown[i].length, kKnown[i].flags});
    offset += kKnown[i].length;
  }
  store(bytes, offsets[kParameters],
        FileParameters{metadata.block_size, metadata.leave_blocks_allocated ? kLeaveBlocksAllocated : 0});
  store(bytes, offsets[kSize], metadata.disk_size);
  store(bytes, offsets[kDiskId], metadata.disk_id);
  store(bytes, offsets[kLogicalSector], metadata.logical_sector_size);
  store(bytes, offsets[kPhysicalSector], metadata.physical_sector_size);
  return bytes;
}

}  // namespace backhaul::vhdx
