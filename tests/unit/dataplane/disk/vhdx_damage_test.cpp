// One test for each kind of damage: the error names what is wrong, and one good copy is enough.
#include "tests/unit/dataplane/disk/vhdx_fixture.h"

namespace backhaul {
namespace {

using namespace vhdx;
using testing::kBatAt;
using testing::kLogAt;
using testing::kMetadataAt;
using testing::kPayloadAt;

constexpr std::uint64_t kItemsAt = kMetadataAt + kMetadataTableSize;  // parameters 8, size 8, id 16, sectors 4 and 4

class VhdxDamageTest : public testing::VhdxTest {
 protected:
  // Blocks 0 to 3 have places from kPayloadAt on, the other four have none.
  void SetUp() override {
    auto disk = create(8 * kMiB);
    write(*disk, 0, pattern(4 * kMiB, 1));
    ASSERT_TRUE(disk->close());
  }
  void flip(std::uint64_t offset) { store_at(offset, static_cast<std::uint8_t>(load_at<std::uint8_t>(offset) ^ 0x10)); }
  void expect_good() {
    auto disk = reopen();
    ASSERT_TRUE(disk);
    EXPECT_EQ(read(*disk, 0, 4 * kMiB), pattern(4 * kMiB, 1));
  }
  template <class T>
  void set_item(std::uint64_t offset, T value) {
    store_at(kItemsAt + offset, value);
  }
  void edit_metadata_entry(unsigned index, const std::function<void(MetadataTableEntry&)>& edit) {
    const auto at = kMetadataAt + 32 + index * 32;
    auto entry = load_at<MetadataTableEntry>(at);
    edit(entry);
    store_at(at, entry);
  }
};

TEST_F(VhdxDamageTest, a_wrong_signature_is_no_vhdx_file) {
  EXPECT_TRUE(looks_like_vhdx(*file()).value());
  flip(0);
  EXPECT_FALSE(looks_like_vhdx(*file()).value());
  EXPECT_EQ(open_error(), VhdxErrc::bad_file_identifier);
}

TEST_F(VhdxDamageTest, an_empty_or_tiny_file_is_no_vhdx_file) {
  for (const std::uint64_t size : {0, 7}) {
    store_->live.resize(size);
    EXPECT_FALSE(looks_like_vhdx(*file()).value());
    EXPECT_EQ(open_error(), VhdxErrc::bad_file_identifier);
  }
}

TEST_F(VhdxDamageTest, a_file_that_ends_in_the_header_section_is_truncated) {
  store_->live.resize(kMiB - 1);
  EXPECT_EQ(open_error(), VhdxErrc::truncated);
}

TEST_F(VhdxDamageTest, one_damaged_header_is_survived_and_two_are_not) {
  for (const auto offset : kHeaderOffsets) {
    flip(offset + 100);
    expect_good();
    flip(offset + 100);
  }
  for (const auto offset : kHeaderOffsets) flip(offset + 4095);
  EXPECT_EQ(open_error(), VhdxErrc::no_valid_header);
}

TEST_F(VhdxDamageTest, the_valid_header_with_the_greater_sequence_number_counts) {
  auto newer = load_at<Header>(kHeaderOffsets[0]);
  newer.sequence_number += 100;
  newer.version = 2;
  store_at(kHeaderOffsets[0], sealed(newer));
  EXPECT_EQ(open_error(), VhdxErrc::unsupported_version);
  flip(kHeaderOffsets[0]);
  expect_good();
}

TEST_F(VhdxDamageTest, different_headers_with_one_sequence_number_are_refused) {
  auto header = load_at<Header>(kHeaderOffsets[0]);
  store_at(kHeaderOffsets[1], header);
  expect_good();
  header.data_write_guid = {};
  store_at(kHeaderOffsets[1], sealed(header));
  EXPECT_EQ(open_error(), VhdxErrc::no_valid_header);
}

TEST_F(VhdxDamageTest, an_unknown_version_is_refused) {
  edit_headers([](Header& header) { header.version = 2; });
  EXPECT_EQ(open_error(), VhdxErrc::unsupported_version);
}

TEST_F(VhdxDamageTest, an_unknown_log_version_is_refused) {
  edit_headers([](Header& header) { header.log_version = 1; });
  EXPECT_EQ(open_error(), VhdxErrc::unsupported_version);
}

TEST_F(VhdxDamageTest, a_misplaced_log_is_refused) {
  for (const auto& [offset, length] :
       std::vector<std::pair<std::uint64_t, std::uint32_t>>{{0, kMiB},
                                                            {kMiB + 4096, kMiB},
                                                            {kMiB, 0},
                                                            {kMiB, kMiB + 4096},
                                                            {kTiB, kMiB},
                                                            {~std::uint64_t{0} << 20, kMiB}}) {
    edit_headers([&](Header& header) { header.log_offset = offset, header.log_length = length; });
    EXPECT_EQ(open_error(), VhdxErrc::bad_region) << offset << ' ' << length;
  }
  edit_headers([](Header& header) { header.log_offset = kMetadataAt, header.log_length = kMiB; });
  EXPECT_EQ(open_error(), VhdxErrc::bad_region) << "over the metadata region";
}

TEST_F(VhdxDamageTest, one_damaged_region_table_is_survived_and_two_are_not) {
  for (const auto offset : kRegionTableOffsets) {
    flip(offset + 50);
    expect_good();
    flip(offset + 50);
  }
  for (const auto offset : kRegionTableOffsets) flip(offset + kRegionTableSize - 1);
  EXPECT_EQ(open_error(), VhdxErrc::no_valid_region_table);
}

TEST_F(VhdxDamageTest, a_region_outside_the_file_is_refused) {
  edit_regions([](auto& entries) { entries[1].file_offset = kTiB; });
  EXPECT_EQ(open_error(), VhdxErrc::bad_region);
}

TEST_F(VhdxDamageTest, a_region_whose_end_overflows_is_refused) {
  edit_regions([](auto& entries) { entries[1].file_offset = ~std::uint64_t{0} - kMiB + 1; });
  EXPECT_EQ(open_error(), VhdxErrc::bad_region);
}

TEST_F(VhdxDamageTest, a_misaligned_region_is_refused) {
  edit_regions([](auto& entries) { entries[0].file_offset += 4096; });
  EXPECT_EQ(open_error(), VhdxErrc::bad_region);
}

TEST_F(VhdxDamageTest, overlapping_regions_are_refused) {
  edit_regions([](auto& entries) { entries[1].file_offset = entries[0].file_offset; });
  EXPECT_EQ(open_error(), VhdxErrc::bad_region);
}

TEST_F(VhdxDamageTest, a_region_over_the_log_is_refused) {
  edit_regions([](auto& entries) { entries[1].file_offset = kLogAt; });
  EXPECT_EQ(open_error(), VhdxErrc::bad_region);
}

TEST_F(VhdxDamageTest, a_missing_or_doubled_region_is_refused) {
  edit_regions([](auto& entries) { entries.pop_back(); });
  EXPECT_EQ(open_error(), VhdxErrc::bad_region);
  edit_regions([](auto& entries) { entries[1] = {kMetadataRegion, kBatAt, kMiB, 1}; });
  EXPECT_EQ(open_error(), VhdxErrc::bad_region);
}

TEST_F(VhdxDamageTest, an_unknown_required_region_is_refused) {
  edit_regions([](auto& entries) { entries.push_back({kParentLocatorItem, 7 * kMiB, kMiB, kRegionRequired}); });
  EXPECT_EQ(open_error(), VhdxErrc::unknown_required_region);
}

TEST_F(VhdxDamageTest, a_damaged_metadata_table_is_refused) {
  flip(kMetadataAt);
  EXPECT_EQ(open_error(), VhdxErrc::bad_metadata);
}

TEST_F(VhdxDamageTest, too_many_metadata_entries_are_refused) {
  store_at(kMetadataAt + 10, std::uint16_t{2048});
  EXPECT_EQ(open_error(), VhdxErrc::bad_metadata);
}

TEST_F(VhdxDamageTest, a_missing_metadata_item_is_refused) {
  store_at(kMetadataAt + 10, std::uint16_t{4});
  EXPECT_EQ(open_error(), VhdxErrc::bad_metadata);
}

TEST_F(VhdxDamageTest, a_metadata_item_outside_its_region_is_refused) {
  for (const std::uint32_t offset : {0U, kMetadataTableSize - 8U, static_cast<std::uint32_t>(kMiB - 4), 0xFFFFFFF8U}) {
    edit_metadata_entry(1, [&](MetadataTableEntry& entry) { entry.offset = offset; });
    EXPECT_EQ(open_error(), VhdxErrc::bad_metadata) << offset;
  }
}

TEST_F(VhdxDamageTest, a_metadata_item_of_the_wrong_length_is_refused) {
  edit_metadata_entry(1, [](MetadataTableEntry& entry) { entry.length = 4; });
  EXPECT_EQ(open_error(), VhdxErrc::bad_metadata);
}

TEST_F(VhdxDamageTest, a_doubled_metadata_item_is_refused) {
  edit_metadata_entry(4, [](MetadataTableEntry& entry) { entry.id = kLogicalSectorSizeItem; });
  EXPECT_EQ(open_error(), VhdxErrc::bad_metadata);
}

TEST_F(VhdxDamageTest, an_unknown_required_metadata_item_is_refused) {
  store_at(kMetadataAt + 10, std::uint16_t{6});
  store_at(kMetadataAt + 32 + 5 * 32, MetadataTableEntry{kBatRegion, 68 * kKiB, 8, kMetadataIsRequired});
  EXPECT_EQ(open_error(), VhdxErrc::unknown_required_metadata);
}

TEST_F(VhdxDamageTest, a_differencing_disk_is_refused) {
  set_item(4, kHasParent);
  EXPECT_EQ(open_error(), VhdxErrc::differencing);
}

TEST_F(VhdxDamageTest, a_wrong_block_size_is_refused) {
  for (const std::uint32_t size : {0U, 512U * 1024, 3U << 20, 512U << 20, 0x80000000U, (1U << 20) + 1}) {
    set_item(0, size);
    EXPECT_EQ(open_error(), VhdxErrc::bad_block_size) << size;
  }
}

TEST_F(VhdxDamageTest, a_wrong_sector_size_is_refused) {
  for (const unsigned item : {32U, 36U}) {
    for (const std::uint32_t size : {0U, 511U, 1024U, 8192U}) {
      set_item(item, size);
      EXPECT_EQ(open_error(), VhdxErrc::bad_sector_size) << item << ' ' << size;
    }
    set_item(item, 512U);
  }
}

TEST_F(VhdxDamageTest, a_wrong_disk_size_is_refused) {
  for (const std::uint64_t size : {std::uint64_t{0}, 8 * kMiB - 1, std::uint64_t{100}}) {
    set_item(8, size);
    EXPECT_EQ(open_error(), VhdxErrc::bad_disk_size) << size;
  }
}

TEST_F(VhdxDamageTest, a_disk_above_64_tib_or_with_too_large_a_table_is_refused) {
  for (const std::uint64_t size : {64 * kTiB + 512, ~std::uint64_t{511}, 64 * kTiB}) {
    set_item(8, size);
    EXPECT_EQ(open_error(), VhdxErrc::too_large) << size;
  }
}

TEST_F(VhdxDamageTest, a_table_larger_than_its_region_is_refused) {
  set_item(8, std::uint64_t{kTiB});
  EXPECT_EQ(open_error(), VhdxErrc::bad_bat);
}

TEST_F(VhdxDamageTest, a_block_beyond_the_end_of_the_file_is_truncated) {
  for (const auto offset : {8 * kMiB, kTiB, kBatOffsetMask}) {
    set_bat(5, make_entry(BlockState::fully_present, offset));
    EXPECT_EQ(open_error(), VhdxErrc::truncated) << offset;
  }
  set_bat(5, 0);
  store_->live.resize(store_->live.size - 1);
  EXPECT_EQ(open_error(), VhdxErrc::truncated);
}

TEST_F(VhdxDamageTest, two_blocks_at_one_place_are_refused) {
  set_bat(5, bat(2));
  EXPECT_EQ(open_error(), VhdxErrc::bad_bat);
}

TEST_F(VhdxDamageTest, blocks_that_overlap_in_part_are_refused) {
  auto disk = create(8 * kMiB, 2 * kMiB);
  write(*disk, 0, pattern(8 * kMiB, 1));
  ASSERT_TRUE(disk->close());
  set_bat(1, bat(0) + kMiB);
  EXPECT_EQ(open_error(), VhdxErrc::bad_bat);
}

TEST_F(VhdxDamageTest, a_block_over_a_region_is_refused) {
  for (const auto offset : {std::uint64_t{0}, kLogAt, kMetadataAt, kBatAt}) {
    set_bat(5, make_entry(BlockState::fully_present, offset));
    EXPECT_EQ(open_error(), VhdxErrc::bad_bat) << offset;
  }
}

TEST_F(VhdxDamageTest, a_block_with_an_unknown_state_or_reserved_bits_is_refused) {
  for (const std::uint64_t entry : {std::uint64_t{4}, std::uint64_t{5}, bat(3) | 8, bat(3) | 1 << 19}) {
    set_bat(5, entry);
    EXPECT_EQ(open_error(), VhdxErrc::bad_bat) << entry;
  }
}

TEST_F(VhdxDamageTest, a_partially_present_block_is_refused) {
  set_bat(3, make_entry(BlockState::partially_present, bat(3) & kBatOffsetMask));
  EXPECT_EQ(open_error(), VhdxErrc::bad_bat);
}

TEST_F(VhdxDamageTest, a_sector_bitmap_entry_with_an_unknown_state_is_refused_and_a_known_one_kept) {
  create(20 * 256 * kMiB, 256 * kMiB)->close().value();
  set_bat(16, 2);
  EXPECT_EQ(open_error(), VhdxErrc::bad_bat);
  set_bat(16, make_entry(BlockState::fully_present, kPayloadAt));
  auto disk = reopen(OpenMode::write);
  ASSERT_TRUE(disk->allocate(0, 1));
  ASSERT_TRUE(disk->close());
  EXPECT_EQ(bat(16), make_entry(BlockState::fully_present, kPayloadAt));
}

TEST_F(VhdxDamageTest, every_error_has_a_symbol_a_message_and_a_fix) {
  for (int value = 1; value <= static_cast<int>(VhdxErrc::too_large); ++value) {
    const auto& info = vhdx_category().info(value);
    EXPECT_TRUE(info.symbol.starts_with("vhdx.")) << value;
    EXPECT_FALSE(info.message.empty());
    EXPECT_FALSE(info.fix.empty());
  }
}

}  // namespace
}  // namespace backhaul
