#include "dataplane/disk/raw_disk.h"

#include <gtest/gtest.h>

#include "base/units.h"
#include "sim/sim_storage.h"

namespace backhaul {
namespace {

std::unique_ptr<Disk> disk_of(sim::SimStorage& storage, std::uint64_t size, std::uint64_t round_up_to = 1) {
  auto file = std::move(*storage.create("disk"));
  EXPECT_TRUE(file->resize(size));
  return std::move(*open_raw_disk(std::move(file), round_up_to));
}

TEST(DiskFormatNames, AreParsedAndPrinted) {
  for (const auto format : {DiskFormat::raw, DiskFormat::vhdx, DiskFormat::vhdx_fixed})
    EXPECT_EQ(parse_disk_format(to_string(format)), format);
  EXPECT_EQ(to_string(DiskFormat::vhdx_fixed), "vhdx-fixed");
  EXPECT_FALSE(parse_disk_format("qcow2"));
  EXPECT_FALSE(parse_disk_format(""));
}

TEST(RawDisk, MapsEveryByteToItself) {
  sim::SimStorage storage;
  auto disk = disk_of(storage, 100'001);
  EXPECT_EQ(disk->format(), DiskFormat::raw);
  EXPECT_EQ(disk->size(), 100'001U);
  EXPECT_EQ(disk->logical_sector_size(), 512U);
  const Segment segment = disk->map(5, 99'996);
  EXPECT_EQ(segment.kind, Segment::Kind::data);
  EXPECT_EQ(segment.file_offset, 5U);
  EXPECT_EQ(segment.length, 99'996U);
  EXPECT_EQ(disk->allocate(77, 3)->file_offset, 77U);
}

TEST(RawDisk, ThePaddedTailIsZeroAndCannotBeWritten) {
  sim::SimStorage storage;
  auto disk = disk_of(storage, 1000, 4096);
  EXPECT_EQ(disk->size(), 4096U);
  const Segment data = disk->map(900, 1000);
  EXPECT_EQ(data.kind, Segment::Kind::data);
  EXPECT_EQ(data.length, 100U) << "the segment ends with the file";
  const Segment zero = disk->map(1000, 3096);
  EXPECT_EQ(zero.kind, Segment::Kind::zero);
  EXPECT_EQ(zero.length, 3096U);
  EXPECT_EQ(disk->allocate(900, 1000)->length, 100U);
  EXPECT_EQ(disk->allocate(1000, 1).error().code(), BaseErrc::invalid_argument);
  EXPECT_FALSE(disk->next_data(1000)->has_value());
  EXPECT_EQ(disk->file().size(), 1000U);
}

TEST(RawDisk, ASizeThatNeedsNoRoundingGetsNoTail) {
  sim::SimStorage storage;
  EXPECT_EQ(disk_of(storage, 8192, 4096)->size(), 8192U);
}

TEST(RawDisk, HolesAreNoData) {
  sim::SimStorage storage;
  auto disk = disk_of(storage, 10 * kMiB);
  EXPECT_FALSE(disk->next_data(0)->has_value());
  const std::byte one{1};
  ASSERT_TRUE(disk->file().write_at(5 * kMiB + 3, {&one, 1}));
  const auto data = *disk->next_data(100);
  ASSERT_TRUE(data.has_value());
  EXPECT_EQ(*data, (ByteRange{5 * kMiB, 4096}));
}

TEST(RawDisk, IsMadeSparseOfTheAskedSizeFromAnEmptyFileOnly) {
  sim::SimStorage storage;
  auto disk = create_raw_disk(std::move(*storage.create("new")), {.size = 123'457});
  ASSERT_TRUE(disk);
  EXPECT_EQ((*disk)->size(), 123'457U);
  EXPECT_EQ((*disk)->file().size(), 123'457U);
  EXPECT_FALSE((*disk)->next_data(0)->has_value());
  EXPECT_EQ(create_raw_disk(std::move(*storage.open("new", OpenMode::write)), {.size = 1}).error().code(),
            BaseErrc::invalid_argument);
}

TEST(RawDisk, ADeviceMustBeLargeEnough) {
  sim::SimStorage storage;
  storage.add_block_device("device", kMiB);
  EXPECT_EQ(create_raw_disk(std::move(*storage.open("device", OpenMode::write)), {.size = kMiB + 1}).error().code(),
            IoErrc::too_small);
  auto disk = create_raw_disk(std::move(*storage.open("device", OpenMode::write)), {.size = 1000});
  ASSERT_TRUE(disk);
  EXPECT_EQ((*disk)->size(), 1000U) << "the rest of the device is not the disk's";
  EXPECT_EQ((*disk)->next_data(10)->value(), (ByteRange{10, 990}));
}

TEST(RawDisk, CheckpointAndCloseMakeTheContentDurable) {
  sim::SimStorage storage;
  auto disk = disk_of(storage, 4096);
  const std::byte one{1};
  ASSERT_TRUE(disk->file().write_at(0, {&one, 1}));
  ASSERT_TRUE(disk->checkpoint());
  EXPECT_EQ(storage.unsynced_changes("disk"), 0U);
  ASSERT_TRUE(disk->file().write_at(1, {&one, 1}));
  storage.fail_operation(1, EIO);
  EXPECT_EQ(disk->close().error().symbol(), "io.device_error");
  EXPECT_EQ(storage.unsynced_changes("disk"), 1U);
}

}  // namespace
}  // namespace backhaul
