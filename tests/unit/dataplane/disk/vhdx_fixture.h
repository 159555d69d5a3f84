// What the VHDX tests share: a disk in memory, patterns, and edits of its structures with the checksums made right
// again.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "checksum/crc32c.h"
#include "dataplane/disk/vhdx.h"
#include "dataplane/disk/vhdx_bat.h"
#include "dataplane/disk/vhdx_header.h"
#include "tests/unit/dataplane/memory_file.h"

namespace backhaul::testing {

// Where create_vhdx() puts things.
inline constexpr std::uint64_t kLogAt = 1 * kMiB, kMetadataAt = 2 * kMiB, kBatAt = 3 * kMiB, kPayloadAt = 4 * kMiB;

class VhdxTest : public ::testing::Test {
 protected:
  std::shared_ptr<MemoryStore> store_ = std::make_shared<MemoryStore>();
  FixedRandom random_;

  std::unique_ptr<File> file() { return std::make_unique<MemoryFile>(store_); }

  std::unique_ptr<Disk> create(std::uint64_t size, std::uint32_t block_size = kMiB,
                               DiskFormat format = DiskFormat::vhdx, std::uint32_t sector_size = 512) {
    store_ = std::make_shared<MemoryStore>();
    auto disk = create_vhdx(file(), {format, size, block_size, sector_size}, random_);
    EXPECT_TRUE(disk) << disk.error().to_string();
    return disk ? std::move(*disk) : nullptr;
  }
  std::unique_ptr<Disk> reopen(OpenMode mode = OpenMode::read) {
    auto disk = open_vhdx(file(), mode, random_);
    EXPECT_TRUE(disk) << disk.error().to_string();
    return disk ? std::move(*disk) : nullptr;
  }
  Error open_error(OpenMode mode = OpenMode::read) {
    auto disk = open_vhdx(file(), mode, random_);
    EXPECT_FALSE(disk);
    return disk ? Error() : disk.error();
  }

  static void write(Disk& disk, std::uint64_t offset, Bytes content) {
    while (!content.empty()) {
      const auto segment = disk.allocate(offset, content.size());
      ASSERT_TRUE(segment) << segment.error().to_string();
      ASSERT_EQ(segment->kind, Segment::Kind::data);
      ASSERT_TRUE(disk.file().write_at(segment->file_offset, content.first(segment->length)));
      offset += segment->length;
      content = content.subspan(segment->length);
    }
  }
  static std::vector<std::byte> read(Disk& disk, std::uint64_t offset, std::uint64_t length) {
    std::vector<std::byte> content(length);
    for (std::uint64_t done = 0; done < length;) {
      const auto segment = disk.map(offset + done, length - done);
      EXPECT_GT(segment.length, 0U);
      EXPECT_LE(segment.length, length - done);
      if (segment.kind == Segment::Kind::data) {
        const auto ok = disk.file().read_at(segment.file_offset, MutableBytes(content).subspan(done, segment.length));
        EXPECT_TRUE(ok);
      }
      done += segment.length;
    }
    return content;
  }
  static std::vector<std::byte> pattern(std::uint64_t length, std::uint8_t salt) {
    std::vector<std::byte> content(length);
    for (std::size_t i = 0; i < length; ++i) content[i] = static_cast<std::byte>(salt + i * 7 + (i >> 9));
    return content;
  }

  // Edits of the file, below any Disk.
  template <class T>
  T load_at(std::uint64_t offset) {
    std::array<std::byte, sizeof(T)> bytes;
    store_->live.read(offset, bytes);
    return vhdx::load<T>(bytes);
  }
  template <class T>
  void store_at(std::uint64_t offset, const T& value) {
    store_->live.write(offset, as_bytes(&value, sizeof value));
  }
  void edit_headers(const std::function<void(vhdx::Header&)>& edit) {
    for (const auto offset : vhdx::kHeaderOffsets) {
      auto header = load_at<vhdx::Header>(offset);
      edit(header);
      store_at(offset, vhdx::sealed(header));
    }
  }
  // Entry 0 is the metadata region, 1 the block table.
  void edit_regions(const std::function<void(std::vector<vhdx::RegionTableEntry>&)>& edit) {
    std::vector<vhdx::RegionTableEntry> entries;
    for (unsigned i = 0; i < 2; ++i)
      entries.push_back(load_at<vhdx::RegionTableEntry>(vhdx::kRegionTableOffsets[0] + 16 + i * 32));
    edit(entries);
    const auto table = vhdx::build_region_table(entries);
    for (const auto offset : vhdx::kRegionTableOffsets) store_->live.write(offset, table);
  }
  void set_bat(std::uint64_t index, std::uint64_t entry) { store_at(kBatAt + index * 8, entry); }
  std::uint64_t bat(std::uint64_t index) { return load_at<std::uint64_t>(kBatAt + index * 8); }
};

}  // namespace backhaul::testing
