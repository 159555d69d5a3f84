// The VHDX reader and writer on hostile files. The input is not an image (the smallest has 4 MiB) but a list of edits
// to a valid tiny one, after which all checksums are made right, so that the fuzzer gets past them:
//   byte 0: bit 0 fixed, bit 1 4096-byte sectors, bit 2 pending log, bit 3 large blocks, bit 4 leaves the checksums as
//   they are then records of 4 bytes and up to 32 more: where (one of kPlaces, u8), offset / 4 in it (u16), length (u8,
//   at most 32), the bytes.
// Whatever opens must keep its promises: segments inside the file, what is allocated is found again, a closed disk
// opens again.
#include <algorithm>
#include <cstdint>
#include <memory>

#include "checksum/crc32c.h"
#include "dataplane/disk/vhdx.h"
#include "dataplane/disk/vhdx_bat.h"
#include "dataplane/disk/vhdx_header.h"
#include "dataplane/disk/vhdx_log.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/unit/dataplane/memory_file.h"

namespace {

using namespace backhaul;
using namespace backhaul::vhdx;
using backhaul::testing::FixedRandom;
using backhaul::testing::MemoryFile;
using backhaul::testing::MemoryStore;

constexpr std::uint64_t kLogAt = kMiB, kMetadataAt = 2 * kMiB, kBatAt = 3 * kMiB;
constexpr Guid kLogGuid = kParentLocatorItem;
constexpr std::uint64_t kPlaces[] = {0,
                                     kHeaderOffsets[0],
                                     kHeaderOffsets[1],
                                     kRegionTableOffsets[0],
                                     kRegionTableOffsets[1],
                                     kLogAt,
                                     kMetadataAt,
                                     kMetadataAt + kMetadataTableSize,
                                     kBatAt,
                                     kMiB + 512 * kKiB};
constexpr unsigned kSizePlace = std::size(kPlaces);  // one more place: the file's size

// Two entries at the log's start: zeros, and pages of the block table.
void write_log(MemoryStore& store) {
  MemoryFile file(std::shared_ptr<MemoryStore>(&store, [](auto*) {}));
  LogWriter writer(kLogAt, kMiB, kLogGuid);
  LogWriter::Page page{kBatAt, std::vector<std::byte>(kLogSector)};
  store.live.read(kBatAt, page.content);
  const LogWriter::Page empty{kBatAt + kLogSector, std::vector<std::byte>(kLogSector)};
  require(static_cast<bool>(writer.write(file, std::array{page, empty}, store.live.size)));
  require(static_cast<bool>(writer.write(file, std::array{page}, store.live.size)));
}

std::shared_ptr<MemoryStore> make_image(std::uint8_t shape) {
  auto store = std::make_shared<MemoryStore>();
  FixedRandom random;
  const bool fixed = (shape & 1) != 0, large = (shape & 8) != 0;
  const DiskCreate options{fixed ? DiskFormat::vhdx_fixed : DiskFormat::vhdx, large ? 40 * 256 * kMiB : 20 * kMiB,
                           static_cast<std::uint32_t>(large ? 256 * kMiB : kMiB), (shape & 2) != 0 ? 4096U : 512U};
  auto disk = create_vhdx(std::make_unique<MemoryFile>(store), options, random).value();
  for (std::uint64_t offset = 0; offset < 4 * kMiB; offset += kMiB) disk->allocate(offset, 1).value();
  disk->close().value();
  if ((shape & 4) != 0) {
    write_log(*store);
    for (const auto offset : kHeaderOffsets) store->live.write(offset + 48, as_bytes(&kLogGuid, sizeof kLogGuid));
  }
  return store;
}

// Images are the same for the same shape, so each is made once.
std::shared_ptr<MemoryStore> image(std::uint8_t shape) {
  static std::array<std::shared_ptr<MemoryStore>, 16> images;
  auto& made = images[shape & 15];
  if (!made) made = make_image(shape & 15);
  auto copy = std::make_shared<MemoryStore>();
  copy->live = made->live;
  return copy;
}

void seal(testing::MemoryImage& live, std::uint64_t offset, std::uint64_t length) {
  std::vector<std::byte> bytes(length);
  live.read(offset, bytes);
  store(bytes, 4, std::uint32_t{0});
  const auto crc = crc32c(bytes);
  live.write(offset + 4, as_bytes(&crc, 4));
}

void seal_all(testing::MemoryImage& live) {
  for (const auto offset : kHeaderOffsets) seal(live, offset, kHeaderSize);
  for (const auto offset : kRegionTableOffsets) seal(live, offset, kRegionTableSize);
  for (std::uint64_t at = 0; at < 8 * kLogSector; at += kLogSector) {
    std::array<std::byte, 64> bytes;
    live.read(kLogAt + at, bytes);
    const auto header = load<LogEntryHeader>(bytes);
    if (header.signature == kLogEntrySignature && header.entry_length >= sizeof header)
      seal(live, kLogAt + at, std::min<std::uint64_t>(header.entry_length, kMiB - at));
  }
}

void apply_edits(testing::MemoryImage& live, const std::uint8_t* data, std::size_t size) {
  const auto original_size = live.size;
  while (size > 4) {
    const unsigned place = data[0] % (kSizePlace + 1);
    const auto offset = std::uint64_t{load_le<std::uint16_t>(data + 1)} * 4;
    const auto length = std::min<std::size_t>({data[3], size - 4, 32});
    data += 4, size -= 4;
    if (place == kSizePlace)
      live.resize(std::min(original_size + 2 * kMiB, offset * 64));
    else
      live.write(kPlaces[place] + offset, as_bytes(data, length));
    data += length, size -= length;
  }
}

void check_segment(Disk& disk, std::uint64_t offset, std::uint64_t length) {
  const auto segment = disk.map(offset, length);
  require(segment.length > 0 && segment.length <= length);
  if (segment.kind == Segment::Kind::zero) return;
  require(segment.file_offset >= kHeaderSectionSize && segment.file_offset <= disk.file().size() &&
          segment.length <= disk.file().size() - segment.file_offset);
}

void exercise(const std::shared_ptr<MemoryStore>& store, OpenMode mode) {
  FixedRandom random(7);
  auto opened = open_vhdx(std::make_unique<MemoryFile>(store), mode, random);
  if (!opened) return;
  auto& disk = **opened;
  require(disk.size() > 0 && disk.size() <= kMaxDiskSize);
  const std::uint64_t offsets[] = {0, disk.size() / 3, disk.size() - 1};
  for (const auto offset : offsets)
    check_segment(disk, offset, std::min<std::uint64_t>(disk.size() - offset, 100 * kMiB));
  std::uint64_t from = 0;
  for (int i = 0; i < 16 && from < disk.size(); ++i) {
    const auto run = disk.next_data(from);
    require(static_cast<bool>(run));
    if (!*run) break;
    require((*run)->offset >= from && (*run)->length > 0 && (*run)->end() <= disk.size());
    from = (*run)->end();
  }
  if (mode == OpenMode::read) return;
  for (const auto offset : offsets) {
    const auto segment = disk.allocate(offset, 1);
    if (!segment) return;
    require(segment->kind == Segment::Kind::data);
    check_segment(disk, offset, 1);
  }
  const auto size = disk.size();
  if (!disk.checkpoint() || !disk.close()) return;
  opened = open_vhdx(std::make_unique<MemoryFile>(store), OpenMode::read, random);
  require(opened && (*opened)->size() == size);
  for (const auto offset : offsets) require((*opened)->map(offset, 1).kind == Segment::Kind::data);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto store = image(data[0]);
  apply_edits(store->live, data + 1, size - 1);
  if ((data[0] & 16) == 0) seal_all(store->live);
  exercise(store, OpenMode::read);
  exercise(store, OpenMode::write);
  return 0;
}
