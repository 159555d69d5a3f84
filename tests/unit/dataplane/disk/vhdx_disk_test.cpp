#include <thread>

#include "tests/unit/dataplane/disk/vhdx_fixture.h"

namespace backhaul {
namespace {

using testing::kBatAt;
using testing::kPayloadAt;

class VhdxDiskTest : public testing::VhdxTest {};

TEST_F(VhdxDiskTest, a_new_dynamic_disk_is_empty_and_reads_as_zeros) {
  auto disk = create(10 * kMiB + 512);
  EXPECT_EQ(disk->format(), DiskFormat::vhdx);
  EXPECT_EQ(disk->size(), 10 * kMiB + 512);
  EXPECT_EQ(disk->file().size(), kPayloadAt);
  const auto segment = disk->map(0, disk->size());
  EXPECT_EQ(segment.kind, Segment::Kind::zero);
  EXPECT_EQ(segment.length, disk->size());
  EXPECT_FALSE(disk->next_data(0).value());
}

TEST_F(VhdxDiskTest, defaults_and_limits_of_a_new_disk_are_as_documented) {
  const auto block_size = [&](std::uint64_t size, DiskFormat format) {
    auto disk = create(size, 0, format);
    return load_at<std::uint32_t>(testing::kMetadataAt + vhdx::kMetadataTableSize);
  };
  EXPECT_EQ(block_size(kTiB, DiskFormat::vhdx), 2 * kMiB);
  EXPECT_EQ(block_size(kTiB + 512, DiskFormat::vhdx), 32 * kMiB);
  EXPECT_EQ(block_size(kMiB, DiskFormat::vhdx_fixed), 32 * kMiB);
  EXPECT_EQ(create(1000)->size(), 1024U);
  EXPECT_EQ(create(5000, kMiB, DiskFormat::vhdx, 4096)->size(), 8192U);

  const auto error = [&](const DiskCreate& options) {
    store_ = std::make_shared<testing::MemoryStore>();
    const auto disk = create_vhdx(file(), options, random_);
    return disk ? std::error_code() : disk.error().code();
  };
  EXPECT_EQ(error({DiskFormat::vhdx, 0}), VhdxErrc::bad_disk_size);
  EXPECT_EQ(error({DiskFormat::vhdx, 64 * kTiB}), std::error_code());
  EXPECT_EQ(error({DiskFormat::vhdx, 64 * kTiB + 512}), VhdxErrc::too_large);
  EXPECT_EQ(error({DiskFormat::vhdx, ~std::uint64_t{0}}), VhdxErrc::too_large);
  EXPECT_EQ(error({DiskFormat::vhdx, 64 * kTiB, kMiB}), VhdxErrc::too_large);
  EXPECT_EQ(error({DiskFormat::vhdx, kMiB, 3 * kMiB}), VhdxErrc::bad_block_size);
  EXPECT_EQ(error({DiskFormat::vhdx, kMiB, 512 * kMiB}), VhdxErrc::bad_block_size);
  EXPECT_EQ(error({DiskFormat::vhdx, kMiB, kMiB, 520}), VhdxErrc::bad_sector_size);
}

TEST_F(VhdxDiskTest, the_first_mebibytes_of_a_new_disk_match_the_golden_vector) {
  random_ = testing::FixedRandom(42);
  create(100 * kMiB, 2 * kMiB);
  std::vector<std::byte> bytes(4 * kMiB);
  store_->live.read(0, bytes);
  EXPECT_EQ(load_at<std::uint32_t>(vhdx::kHeaderOffsets[0] + 4), 0x6DCF96A4U);
  EXPECT_EQ(load_at<std::uint32_t>(vhdx::kHeaderOffsets[1] + 4), 0xEF2A44CCU);
  EXPECT_EQ(load_at<std::uint32_t>(vhdx::kRegionTableOffsets[0] + 4), 0x1C142859U);
  EXPECT_EQ(crc32c(bytes), 0xD7C19DD0U);
}

TEST_F(VhdxDiskTest, what_was_written_is_there_after_close_and_reopen) {
  for (const std::uint32_t block_size : {1 * kMiB, 2 * kMiB, 32 * kMiB, 256 * kMiB})
    for (const std::uint32_t sector_size : {512, 4096})
      for (const auto format : {DiskFormat::vhdx, DiskFormat::vhdx_fixed}) {
        SCOPED_TRACE(::testing::Message() << block_size << ' ' << sector_size << ' ' << static_cast<int>(format));
        auto disk = create(600 * kMiB + 4096, block_size, format, sector_size);
        const auto first = pattern(3 * kMiB, 1), last = pattern(4096, 2);
        write(*disk, kMiB - 512, first);
        write(*disk, 600 * kMiB, last);
        ASSERT_TRUE(disk->close());
        disk = reopen();
        ASSERT_TRUE(disk);
        EXPECT_EQ(disk->format(), format);
        EXPECT_EQ(disk->size(), 600 * kMiB + 4096);
        EXPECT_EQ(disk->logical_sector_size(), sector_size);
        EXPECT_EQ(read(*disk, kMiB - 512, first.size()), first);
        EXPECT_EQ(read(*disk, 600 * kMiB, 4096), last);
        EXPECT_EQ(read(*disk, 0, kMiB - 512), std::vector<std::byte>(kMiB - 512));
        EXPECT_TRUE(load_at<vhdx::Header>(vhdx::kHeaderOffsets[0]).log_guid.is_zero());
        EXPECT_TRUE(load_at<vhdx::Header>(vhdx::kHeaderOffsets[1]).log_guid.is_zero());
      }
}

TEST_F(VhdxDiskTest, a_fixed_disk_has_every_block_present_and_in_order) {
  auto disk = create(5 * kMiB - 512, kMiB, DiskFormat::vhdx_fixed);
  EXPECT_EQ(disk->file().size(), kPayloadAt + 5 * kMiB);
  const auto segment = disk->map(100, disk->size() - 100);
  EXPECT_EQ(segment.kind, Segment::Kind::data);
  EXPECT_EQ(segment.file_offset, kPayloadAt + 100);
  EXPECT_EQ(segment.length, disk->size() - 100);
  EXPECT_FALSE(disk->next_data(0).value());
}

TEST_F(VhdxDiskTest, sector_bitmap_entries_lie_between_the_payload_entries) {
  // Blocks of 256 MiB and sectors of 512: a bitmap entry after each 16 payload entries.
  auto disk = create(20 * 256 * kMiB, 256 * kMiB, DiskFormat::vhdx_fixed);
  EXPECT_EQ(bat(15) & vhdx::kBatStateMask, 6U);
  EXPECT_EQ(bat(16), 0U);
  EXPECT_EQ(bat(17), bat(15) + 256 * kMiB);
  EXPECT_EQ(bat(20), bat(0) + 19 * 256 * kMiB);
  EXPECT_EQ(bat(21), 0U);
}

TEST_F(VhdxDiskTest, map_joins_blocks_that_follow_each_other_in_the_file) {
  auto disk = create(8 * kMiB);
  const auto block = pattern(kMiB, 3);
  for (const auto index : {2, 3, 5, 4}) write(*disk, index * kMiB, block);
  EXPECT_EQ(disk->map(0, 8 * kMiB).length, 2 * kMiB);
  auto segment = disk->map(2 * kMiB + 100, 6 * kMiB - 100);
  EXPECT_EQ(segment.file_offset, kPayloadAt + 100);
  EXPECT_EQ(segment.length, 2 * kMiB - 100);
  segment = disk->map(4 * kMiB, 4 * kMiB);
  EXPECT_EQ(segment.file_offset, kPayloadAt + 3 * kMiB);
  EXPECT_EQ(segment.length, kMiB);
  EXPECT_EQ(disk->map(6 * kMiB, 2 * kMiB).length, 2 * kMiB);
  EXPECT_EQ(disk->map(4 * kMiB, 10).length, 10U);
}

TEST_F(VhdxDiskTest, next_data_skips_blocks_without_place_and_holes_of_the_file) {
  auto disk = create(64 * kMiB);
  write(*disk, 3 * kMiB + 8192, pattern(4096, 1));
  write(*disk, 5 * kMiB - 4096, pattern(8192, 1));  // over two blocks, which follow each other in the file
  ASSERT_TRUE(disk->allocate(10 * kMiB, 512));      // a place, but a hole
  write(*disk, 64 * kMiB - 4096, pattern(4096, 1));
  std::vector<ByteRange> runs;
  for (std::uint64_t from = 0; from < disk->size();) {
    const auto run = disk->next_data(from);
    ASSERT_TRUE(run);
    if (!*run) break;
    runs.push_back(**run);
    from = (*run)->end();
  }
  EXPECT_EQ(runs, (std::vector<ByteRange>{{3 * kMiB + 8192, 4096}, {5 * kMiB - 4096, 8192}, {64 * kMiB - 4096, 4096}}));
  EXPECT_EQ(disk->next_data(3 * kMiB + 9000).value(), (ByteRange{3 * kMiB + 9000, 4096 - 808}));
}

TEST_F(VhdxDiskTest, next_data_of_a_sparse_tebibyte_asks_the_file_once_a_hole) {
  auto disk = create(kTiB, kMiB, DiskFormat::vhdx_fixed);
  ASSERT_TRUE(disk->file().write_at(disk->map(kTiB - 4096, 4096).file_offset, pattern(4096, 1)));
  EXPECT_EQ(disk->next_data(0).value(), (ByteRange{kTiB - 4096, 4096}));
}

TEST_F(VhdxDiskTest, next_data_stops_at_the_end_of_the_disk_inside_the_last_block) {
  auto disk = create(kMiB + 512, kMiB, DiskFormat::vhdx_fixed);
  ASSERT_TRUE(disk->file().write_at(kPayloadAt + kMiB, pattern(8192, 1)));
  EXPECT_EQ(disk->next_data(0).value(), (ByteRange{kMiB, 512}));
}

TEST_F(VhdxDiskTest, blocks_of_every_state_without_content_read_as_zeros_and_can_be_allocated) {
  create(8 * kMiB)->close().value();
  // Old offsets may remain in entries that have no place; they mean nothing.
  set_bat(1, 1);
  set_bat(2, 2);
  set_bat(3, 3 | 5 * kMiB);
  store_->live.write(kPayloadAt + kMiB, pattern(4096, 9));
  auto disk = reopen(OpenMode::write);
  EXPECT_EQ(disk->map(0, 8 * kMiB).kind, Segment::Kind::zero);
  EXPECT_EQ(disk->map(0, 8 * kMiB).length, 8 * kMiB);
  for (unsigned i = 0; i < 4; ++i) {
    ASSERT_TRUE(disk->allocate(i * kMiB, 1));
    EXPECT_EQ(read(*disk, i * kMiB, kMiB), std::vector<std::byte>(kMiB));
  }
  ASSERT_TRUE(disk->close());
  EXPECT_EQ(bat(3) & vhdx::kBatStateMask, 6U);
}

TEST_F(VhdxDiskTest, new_blocks_start_after_everything_the_file_holds) {
  create(8 * kMiB)->close().value();
  store_->live.write(6 * kMiB + 5, pattern(10, 1));
  auto disk = reopen(OpenMode::write);
  EXPECT_EQ(disk->allocate(0, 1)->file_offset, 7 * kMiB);
}

TEST_F(VhdxDiskTest, a_last_block_may_end_with_the_disk_and_new_blocks_leave_room_for_its_rest) {
  auto disk = create(9 * kMiB, 4 * kMiB);
  const auto content = pattern(kMiB, 4);
  write(*disk, 8 * kMiB, content);
  ASSERT_TRUE(disk->close());
  store_->live.resize(kPayloadAt + kMiB);
  disk = reopen(OpenMode::write);
  ASSERT_TRUE(disk);
  EXPECT_EQ(read(*disk, 8 * kMiB, kMiB), content);
  EXPECT_EQ(disk->allocate(0, 1)->file_offset, kPayloadAt + 4 * kMiB);
  ASSERT_TRUE(disk->close());
  EXPECT_EQ(read(*reopen(), 8 * kMiB, kMiB), content);
  store_->live.resize(kPayloadAt + kMiB - 1);
  EXPECT_EQ(open_error(), VhdxErrc::truncated);
}

TEST_F(VhdxDiskTest, opening_for_reading_or_without_a_change_leaves_the_file_alone) {
  create(8 * kMiB)->close().value();
  const auto before = store_->changes_done;
  auto disk = reopen(OpenMode::read);
  EXPECT_EQ(disk->allocate(0, 1).error().code(), BaseErrc::invalid_argument);
  ASSERT_TRUE(disk->close());
  EXPECT_EQ(store_->changes_done, before);
  const auto header = load_at<vhdx::Header>(vhdx::kHeaderOffsets[0]);
  disk = reopen(OpenMode::write);
  ASSERT_TRUE(disk->close());
  EXPECT_EQ(load_at<vhdx::Header>(vhdx::kHeaderOffsets[0]), header);
}

TEST_F(VhdxDiskTest, the_first_change_gives_both_headers_new_write_guids) {
  create(8 * kMiB)->close().value();
  const auto before = load_at<vhdx::Header>(vhdx::kHeaderOffsets[1]);
  auto disk = reopen(OpenMode::write);
  ASSERT_TRUE(disk->allocate(0, 1));
  for (const auto offset : vhdx::kHeaderOffsets) {
    const auto after = load_at<vhdx::Header>(offset);
    EXPECT_NE(after.file_write_guid, before.file_write_guid);
    EXPECT_NE(after.data_write_guid, before.data_write_guid);
    EXPECT_TRUE(after.log_guid.is_zero());
  }
  ASSERT_TRUE(disk->checkpoint());
  for (const auto offset : vhdx::kHeaderOffsets) EXPECT_FALSE(load_at<vhdx::Header>(offset).log_guid.is_zero());
}

TEST_F(VhdxDiskTest, unknown_optional_regions_and_metadata_are_kept) {
  create(8 * kMiB)->close().value();
  store_->live.resize(5 * kMiB);
  store_->live.write(4 * kMiB, pattern(kMiB, 5));
  edit_regions([](auto& entries) { entries.push_back({vhdx::kLogicalSectorSizeItem, 4 * kMiB, kMiB, 0}); });
  const vhdx::MetadataTableEntry item{vhdx::kBatRegion, 68 * kKiB, 100, vhdx::kMetadataIsUser};
  store_at(testing::kMetadataAt + 32 + 5 * 32, item);
  store_at(testing::kMetadataAt + 10, std::uint16_t{6});
  auto disk = reopen(OpenMode::write);
  ASSERT_TRUE(disk);
  write(*disk, 0, pattern(kMiB, 1));
  ASSERT_TRUE(disk->close());
  std::vector<std::byte> region(kMiB);
  store_->live.read(4 * kMiB, region);
  EXPECT_EQ(region, pattern(kMiB, 5));
  EXPECT_EQ(reopen()->map(0, 1).file_offset, 5 * kMiB);
}

TEST_F(VhdxDiskTest, lanes_that_allocate_together_never_share_a_place) {
  auto disk = create(256 * kMiB);
  std::vector<std::thread> lanes;
  for (unsigned lane = 0; lane < 4; ++lane)
    lanes.emplace_back([&, lane] {
      // Every block is wanted by two lanes.
      for (std::uint64_t i = 0; i < 256; ++i)
        if (i % 4 == lane || (i + 1) % 4 == lane) {
          const auto segment = disk->allocate(i * kMiB, kMiB);
          ASSERT_TRUE(segment);
          ASSERT_EQ(segment->kind, Segment::Kind::data);
          if (i % 64 == lane) {
            ASSERT_TRUE(disk->checkpoint());
          }
        }
    });
  for (auto& lane : lanes) lane.join();
  ASSERT_TRUE(disk->close());
  disk = reopen();  // refuses overlaps
  ASSERT_TRUE(disk);
  EXPECT_EQ(disk->file().size(), kPayloadAt + 256 * kMiB);
  for (std::uint64_t i = 0; i < 256; ++i) EXPECT_EQ(disk->map(i * kMiB, 1).kind, Segment::Kind::data);
}

TEST_F(VhdxDiskTest, more_table_pages_than_one_log_entry_holds_become_durable_together) {
  // A block in each of 300 pages of the table; entries wrap around the 1 MiB log.
  auto disk = create(300 * 512 * kMiB, kMiB);
  for (int round = 0; round < 3; ++round) {
    for (std::uint64_t page = 0; page < 300; ++page) ASSERT_TRUE(disk->allocate((page * 512 + round) * kMiB, 1));
    ASSERT_TRUE(disk->checkpoint());
    // Killed here: the log is pending, and its replay changes nothing.
    auto killed = reopen(OpenMode::read);
    ASSERT_TRUE(killed);
    for (std::uint64_t page = 0; page < 300; ++page)
      EXPECT_EQ(killed->map((page * 512 + round) * kMiB, 1).kind, Segment::Kind::data);
  }
  ASSERT_TRUE(disk->close());
}

}  // namespace
}  // namespace backhaul
