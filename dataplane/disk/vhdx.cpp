#include "dataplane/disk/vhdx.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "dataplane/disk/vhdx_bat.h"
#include "dataplane/disk/vhdx_disk.h"
#include "dataplane/disk/vhdx_header.h"
#include "dataplane/disk/vhdx_metadata.h"

namespace backhaul {
namespace {

using namespace vhdx;

constexpr std::string_view kRestore = "Restore the file from a backup, or give a new target name.";
constexpr ErrorInfo kErrors[] = {
    {"vhdx.bad_file_identifier", "the file is not a VHDX file", "Check the path and the format.", Retry::no},
    {"vhdx.no_valid_header", "both VHDX headers are damaged", kRestore, Retry::no},
    {"vhdx.no_valid_region_table", "both VHDX region tables are damaged", kRestore, Retry::no},
    {"vhdx.unknown_required_region", "the VHDX file has a required region that this program does not know",
     "Convert the disk with the program that made it.", Retry::no},
    {"vhdx.bad_region", "a region of the VHDX file is misplaced", kRestore, Retry::no},
    {"vhdx.bad_metadata", "the metadata of the VHDX file is damaged", kRestore, Retry::no},
    {"vhdx.unknown_required_metadata", "the VHDX file has required metadata that this program does not know",
     "Convert the disk with the program that made it.", Retry::no},
    {"vhdx.unsupported_version", "the VHDX file has an unknown version", "Convert the disk to VHDX version 1.",
     Retry::no},
    {"vhdx.differencing", "the VHDX file is a differencing disk, which needs a parent",
     "Merge it into its parent (Merge-VHD) and use the merged disk.", Retry::no},
    {"vhdx.bad_block_size", "the VHDX block size is no power of two from 1 to 256 MiB", "Choose another block size.",
     Retry::no},
    {"vhdx.bad_sector_size", "the VHDX sector size is neither 512 nor 4096", "Choose another sector size.", Retry::no},
    {"vhdx.bad_disk_size", "the VHDX disk size is zero or no multiple of the sector size", "Choose another size.",
     Retry::no},
    {"vhdx.bad_bat", "the block table of the VHDX file is damaged", kRestore, Retry::no},
    {"vhdx.bad_log", "the VHDX file has a pending log that cannot be used",
     "If the cause asks for it, open the disk for writing once (attach it, or qemu-img check -r all); otherwise "
     "restore "
     "the file from a backup.",
     Retry::no},
    {"vhdx.truncated", "the VHDX file ends before what its headers promise", kRestore, Retry::no},
    {"vhdx.too_large", "the VHDX disk is above 64 TiB, or its block table too large",
     "Choose a smaller disk or a larger block size.", Retry::no},
};
static_assert(std::size(kErrors) == static_cast<std::size_t>(VhdxErrc::too_large));

struct Layout {
  RegionTableEntry metadata, bat;
  std::uint64_t payload_offset = 0;
};
constexpr std::uint64_t kLogOffset = kMiB;
constexpr std::uint32_t kLogLength = kMiB;

// As Hyper-V lays a new file out: header section, log, metadata, block table, then the blocks.
Layout lay_out(const TableGeometry& geometry) {
  const auto bat_length = align_up(geometry.entry_count() * kBatEntrySize, kAlignment);
  Layout layout;
  layout.metadata = {kMetadataRegion, kLogOffset + kLogLength, kMiB, kRegionRequired};
  layout.bat = {kBatRegion, layout.metadata.file_offset + layout.metadata.length,
                static_cast<std::uint32_t>(bat_length), kRegionRequired};
  layout.payload_offset = layout.bat.file_offset + bat_length;
  return layout;
}

Result<void> write_full_table(File& file, const TableGeometry& geometry, const Layout& layout) {
  std::vector<std::byte> chunk(std::min(geometry.entry_count() * kBatEntrySize, kMiB));
  for (std::uint64_t first = 0; first < geometry.entry_count();) {
    const auto count = std::min<std::uint64_t>(chunk.size() / kBatEntrySize, geometry.entry_count() - first);
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto block = geometry.block_of(first + i);
      store(chunk, i * kBatEntrySize,
            block ? make_entry(BlockState::fully_present, layout.payload_offset + *block * geometry.block_size) : 0);
    }
    BH_RETURN_IF_ERROR(
        file.write_at(layout.bat.file_offset + first * kBatEntrySize, Bytes(chunk).first(count * kBatEntrySize)));
    first += count;
  }
  return {};
}

Result<void> write_headers(File& file, const Layout& layout, Random& random) {
  const auto table = build_region_table(std::array{layout.metadata, layout.bat});
  for (const auto offset : kRegionTableOffsets) BH_RETURN_IF_ERROR(file.write_at(offset, table));
  Header header;
  header.file_write_guid = random_guid(random);
  header.data_write_guid = random_guid(random);
  header.log_length = kLogLength;
  header.log_offset = kLogOffset;
  for (const auto offset : kHeaderOffsets) {
    ++header.sequence_number;
    header = sealed(header);
    BH_RETURN_IF_ERROR(file.write_at(offset, as_bytes(&header, sizeof header)));
  }
  BH_RETURN_IF_ERROR(file.sync());
  // Last of all the signature: a file without it is no disk.
  FileIdentifier identifier;
  std::ranges::copy(std::u16string_view(u"Backhaul"), identifier.creator.begin());
  BH_RETURN_IF_ERROR(file.write_at(kFileIdentifierOffset, as_bytes(&identifier, sizeof identifier)));
  return file.sync();
}

DiskMetadata metadata_for(const DiskCreate& options, Random& random) {
  DiskMetadata metadata;
  metadata.leave_blocks_allocated = options.format == DiskFormat::vhdx_fixed;
  metadata.block_size = options.vhdx_block_size;
  if (metadata.block_size == 0)
    metadata.block_size = metadata.leave_blocks_allocated || options.size > kTiB ? 32 * kMiB : 2 * kMiB;
  metadata.logical_sector_size = options.logical_sector_size;
  metadata.physical_sector_size = 4096;
  metadata.disk_size = options.size;
  if (options.logical_sector_size != 0 && options.size <= kMaxDiskSize)
    metadata.disk_size = align_up(options.size, options.logical_sector_size);
  metadata.disk_id = random_guid(random);
  return metadata;
}

}  // namespace

const ErrorCategory& vhdx_category() noexcept {
  static const TableCategory category("vhdx", kErrors);
  return category;
}

Result<std::unique_ptr<Disk>> create_vhdx(std::unique_ptr<File> file, const DiskCreate& options, Random& random) {
  if (options.format == DiskFormat::raw || file->is_block_device() || file->size() != 0)
    return make_error(BaseErrc::invalid_argument, file->name() + ": a VHDX disk is created in an empty regular file");
  const auto metadata = metadata_for(options, random);
  BH_RETURN_IF_ERROR(check_metadata(metadata, file->name()));
  const TableGeometry geometry{metadata.disk_size, metadata.block_size, metadata.logical_sector_size};
  if (geometry.block_count() * kBatEntrySize > kMaxTableBytes)
    return make_error(VhdxErrc::too_large, fmt::format("{}: {} bytes in blocks of {}", file->name(), metadata.disk_size,
                                                       metadata.block_size));
  const auto layout = lay_out(geometry);
  const auto payload_size = metadata.leave_blocks_allocated ? geometry.block_count() * geometry.block_size : 0;
  BH_RETURN_IF_ERROR(file->resize(layout.payload_offset + payload_size));
  BH_RETURN_IF_ERROR(file->write_at(layout.metadata.file_offset, build_metadata(metadata)));
  if (metadata.leave_blocks_allocated) BH_RETURN_IF_ERROR(write_full_table(*file, geometry, layout));
  BH_RETURN_IF_ERROR(write_headers(*file, layout, random));
  return VhdxDisk::open(std::move(file), OpenMode::write, random, true);
}

Result<std::unique_ptr<Disk>> open_vhdx(std::unique_ptr<File> file, OpenMode mode, Random& random) {
  return VhdxDisk::open(std::move(file), mode, random, false);
}

Result<bool> looks_like_vhdx(File& file) {
  std::array<std::byte, 8> signature{};
  if (file.size() < signature.size()) return false;
  BH_RETURN_IF_ERROR(file.read_at(kFileIdentifierOffset, signature));
  return load<std::uint64_t>(signature) == kFileSignature;
}

}  // namespace backhaul
