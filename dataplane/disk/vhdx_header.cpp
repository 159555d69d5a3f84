#include "dataplane/disk/vhdx_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "checksum/crc32c.h"
#include "dataplane/disk/vhdx.h"

namespace backhaul::vhdx {
namespace {

// The header of one copy, or nothing when it is damaged. Its version is not checked.
Result<std::optional<Header>> read_header(File& file, unsigned slot) {
  std::array<std::byte, kHeaderSize> bytes;
  BH_RETURN_IF_ERROR(file.read_at(kHeaderOffsets[slot], bytes));
  const auto header = load<Header>(bytes);
  if (header.signature != kHeaderSignature || sealed(header).checksum != header.checksum)
    return std::optional<Header>();
  return std::optional(header);
}

Result<unsigned> choose(const File& file, const std::array<std::optional<Header>, 2>& copies) {
  if (!copies[0] && !copies[1]) return make_error(VhdxErrc::no_valid_header, file.name());
  if (!copies[0] || !copies[1]) return copies[0] ? 0U : 1U;
  if (copies[0]->sequence_number != copies[1]->sequence_number)
    return copies[0]->sequence_number > copies[1]->sequence_number ? 0U : 1U;
  if (*copies[0] != *copies[1])
    return make_error(VhdxErrc::no_valid_header,
                      file.name() + ": both headers have the same sequence number but differ");
  return 0U;
}

Result<std::vector<RegionTableEntry>> read_region_table(const View& view) {
  std::vector<std::byte> bytes(kRegionTableSize);
  for (const auto offset : kRegionTableOffsets) {
    BH_RETURN_IF_ERROR(view.read(offset, bytes));
    auto header = load<RegionTableHeader>(bytes);
    const auto checksum = std::exchange(header.checksum, 0);
    store(bytes, 0, header);
    if (header.signature != kRegionSignature || header.entry_count > kMaxRegions || crc32c(bytes) != checksum) continue;
    std::vector<RegionTableEntry> entries(header.entry_count);
    for (std::size_t i = 0; i < entries.size(); ++i)
      entries[i] = load<RegionTableEntry>(bytes, sizeof header + i * sizeof(RegionTableEntry));
    return entries;
  }
  return make_error(VhdxErrc::no_valid_region_table, view.file().name());
}

}  // namespace

Header sealed(Header header) noexcept {
  header.checksum = 0;
  header.checksum = crc32c(as_bytes(&header, sizeof header));
  return header;
}

bool is_region_in_file(std::uint64_t offset, std::uint64_t length, std::uint64_t file_size) noexcept {
  return length > 0 && offset % kAlignment == 0 && length % kAlignment == 0 && offset >= kHeaderSectionSize &&
         offset <= file_size && length <= file_size - offset;
}

Result<void> check_file_identifier(File& file) {
  std::array<std::byte, 8> signature{};
  if (file.size() >= signature.size()) BH_RETURN_IF_ERROR(file.read_at(kFileIdentifierOffset, signature));
  if (load<std::uint64_t>(signature) != kFileSignature) return make_error(VhdxErrc::bad_file_identifier, file.name());
  if (file.size() < kHeaderSectionSize)
    return make_error(VhdxErrc::truncated, fmt::format("{} has only {} bytes", file.name(), file.size()));
  return {};
}

Result<HeaderSlots> HeaderSlots::load(File& file) {
  std::array<std::optional<Header>, 2> copies;
  for (unsigned slot = 0; slot < copies.size(); ++slot) {
    BH_TRY(copies[slot], read_header(file, slot));
  }
  HeaderSlots slots;
  BH_TRY(slots.slot_, choose(file, copies));
  slots.current_ = *copies[slots.slot_];
  const auto& header = slots.current_;
  if (header.version != kHeaderVersion || header.log_version != kLogVersion)
    return make_error(VhdxErrc::unsupported_version,
                      fmt::format("{}: version {}, log version {}", file.name(), header.version, header.log_version));
  if (!is_region_in_file(header.log_offset, header.log_length, file.size()))
    return make_error(VhdxErrc::bad_region,
                      fmt::format("{}: the log at {} of {} bytes", file.name(), header.log_offset, header.log_length));
  return slots;
}

Result<void> HeaderSlots::update(File& file, const Header& next) {
  // Twice: the second write replaces the copy that was current.
  BH_RETURN_IF_ERROR(write_other(file, next));
  return write_other(file, next);
}

Result<void> HeaderSlots::write_other(File& file, Header next) {
  if (current_.sequence_number == std::numeric_limits<std::uint64_t>::max())
    return make_error(VhdxErrc::no_valid_header, file.name() + ": the headers' sequence number is at its end");
  next.sequence_number = current_.sequence_number + 1;
  next = sealed(next);
  const unsigned other = 1 - slot_;
  BH_RETURN_IF_ERROR(file.write_at(kHeaderOffsets[other], as_bytes(&next, sizeof next)));
  BH_RETURN_IF_ERROR(file.sync());
  current_ = next;
  slot_ = other;
  return {};
}

Result<Regions> load_regions(const View& view, const Header& header) {
  const auto& name = view.file().name();
  BH_TRY(const auto entries, read_region_table(view));
  Regions regions;
  regions.all.push_back({header.log_offset, header.log_length});
  for (const auto& entry : entries) {
    const ByteRange range{entry.file_offset, entry.length};
    if (entry.id == kBatRegion || entry.id == kMetadataRegion) {
      auto& known = entry.id == kBatRegion ? regions.bat : regions.metadata;
      if (known.length != 0) return make_error(VhdxErrc::bad_region, name + ": a region is listed twice");
      known = range;
    } else if ((entry.flags & kRegionRequired) != 0) {
      return make_error(VhdxErrc::unknown_required_region, name);
    }
    if (!is_region_in_file(range.offset, range.length, view.size()))
      return make_error(VhdxErrc::bad_region,
                        fmt::format("{}: a region at {} of {} bytes", name, range.offset, range.length));
    regions.all.push_back(range);
  }
  if (regions.bat.length == 0 || regions.metadata.length == 0)
    return make_error(VhdxErrc::bad_region, name + ": the block table's or the metadata region is missing");
  std::ranges::sort(regions.all, {}, &ByteRange::offset);
  for (std::size_t i = 1; i < regions.all.size(); ++i)
    if (regions.all[i].offset < regions.all[i - 1].end())
      return make_error(VhdxErrc::bad_region,
                        fmt::format("{}: two regions overlap at {}", name, regions.all[i].offset));
  return regions;
}

std::vector<std::byte> build_region_table(std::span<const RegionTableEntry> entries) {
  std::vector<std::byte> bytes(kRegionTableSize);
  RegionTableHeader header;
  header.entry_count = static_cast<std::uint32_t>(entries.size());
  for (std::size_t i = 0; i < entries.size(); ++i)
    store(bytes, sizeof header + i * sizeof(RegionTableEntry), entries[i]);
  store(bytes, 0, header);
  header.checksum = crc32c(bytes);
  store(bytes, 0, header);
  return bytes;
}

}  // namespace backhaul::vhdx
