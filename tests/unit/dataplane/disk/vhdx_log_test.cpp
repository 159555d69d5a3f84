// Logs that another run left: which entries count, what they change, what is refused.
#include "dataplane/disk/vhdx_log.h"

#include "tests/unit/dataplane/disk/vhdx_fixture.h"

namespace backhaul {
namespace {

using namespace vhdx;
using testing::kBatAt;
using testing::kLogAt;
using testing::kPayloadAt;

const Guid kLogGuid = kParentLocatorItem;

// An entry as it lies in the log, built without LogWriter.
struct Entry {
  struct Change {
    std::uint64_t offset = 0;
    std::vector<std::byte> page;  // empty: zeros
    std::uint64_t zero_length = 0;
  };
  std::uint64_t sequence_number = 1;
  std::uint32_t tail = 0;
  std::vector<Change> changes;
  std::uint64_t flushed = kPayloadAt, last = kPayloadAt;
  Guid guid = kLogGuid;

  std::vector<std::byte> build() const {
    const auto header_sectors = div_up(64 + changes.size() * 32, kLogSector);
    std::vector<std::byte> bytes(header_sectors * kLogSector);
    for (std::size_t i = 0; i < changes.size(); ++i) {
      const auto& change = changes[i];
      LogDescriptor descriptor{kZeroDescriptorSignature, 0, change.zero_length, change.offset, sequence_number};
      if (!change.page.empty()) {
        descriptor.signature = kDataDescriptorSignature;
        descriptor.leading_bytes = load<std::uint64_t>(change.page);
        descriptor.trailing_bytes = load<std::uint32_t>(change.page, 4092);
        auto sector = load<LogDataSector>(change.page);
        sector.signature = kDataSectorSignature;
        sector.sequence_high = static_cast<std::uint32_t>(sequence_number >> 32);
        sector.sequence_low = static_cast<std::uint32_t>(sequence_number);
        bytes.resize(bytes.size() + kLogSector);
        store(bytes, bytes.size() - kLogSector, sector);
      }
      store(bytes, 64 + i * 32, descriptor);
    }
    seal(bytes);
    return bytes;
  }
  void seal(std::vector<std::byte>& bytes) const {
    LogEntryHeader header{kLogEntrySignature,
                          0,
                          static_cast<std::uint32_t>(bytes.size()),
                          tail,
                          sequence_number,
                          static_cast<std::uint32_t>(changes.size()),
                          0,
                          guid,
                          flushed,
                          last};
    store(bytes, 0, header);
    header.checksum = crc32c(bytes);
    store(bytes, 0, header);
  }
};

class VhdxLogTest : public testing::VhdxTest {
 protected:
  // Eight blocks without places; the file has room for block 0 at kPayloadAt, with a pattern.
  void SetUp() override {
    create(8 * kMiB)->close().value();
    store_->live.resize(kPayloadAt + kMiB);
    store_->live.write(kPayloadAt, pattern(kMiB, 1));
    edit_headers([](Header& header) { header.log_guid = kLogGuid; });
  }
  // At `offset` of the log, around its end where needed.
  void put(std::uint32_t offset, const std::vector<std::byte>& bytes) {
    const auto first = std::min<std::size_t>(bytes.size(), kMiB - offset);
    store_->live.write(kLogAt + offset, Bytes(bytes).first(first));
    store_->live.write(kLogAt, Bytes(bytes).subspan(first));
  }
  // The first page of the block table with block 0 (or as given) at kPayloadAt.
  static Entry::Change table_page(unsigned block = 0) {
    std::vector<std::byte> page(kLogSector);
    store(page, block * 8, make_entry(BlockState::fully_present, kPayloadAt));
    return {kBatAt, page};
  }
  // Opens for reading (the file must not change), then for writing, and expects block `block` to have the pattern both
  // times.
  void expect_replayed(unsigned block = 0) {
    const auto changes = store_->changes_done;
    for (const auto mode : {OpenMode::read, OpenMode::write, OpenMode::read}) {
      auto disk = reopen(mode);
      ASSERT_TRUE(disk);
      EXPECT_EQ(read(*disk, block * kMiB, kMiB), pattern(kMiB, 1));
      if (mode == OpenMode::read) continue;
      EXPECT_GT(store_->changes_done, changes);
      for (const auto offset : kHeaderOffsets) EXPECT_TRUE(load_at<Header>(offset).log_guid.is_zero());
      EXPECT_EQ(bat(block), make_entry(BlockState::fully_present, kPayloadAt));
    }
  }
  void expect_error(VhdxErrc errc) {
    const auto changes = store_->changes_done;
    EXPECT_EQ(open_error(OpenMode::read), errc);
    EXPECT_EQ(open_error(OpenMode::write), errc);
    EXPECT_EQ(store_->changes_done, changes) << "a refused log must change nothing";
  }
};

TEST_F(VhdxLogTest, a_data_entry_is_replayed) {
  put(0, Entry{.changes = {table_page()}}.build());
  expect_replayed();
}

TEST_F(VhdxLogTest, reading_leaves_the_file_as_it_is) {
  put(0, Entry{.changes = {table_page()}}.build());
  const auto before = store_->changes_done;
  ASSERT_TRUE(reopen(OpenMode::read)->close());
  EXPECT_EQ(store_->changes_done, before);
  EXPECT_EQ(bat(0), 0U);
}

TEST_F(VhdxLogTest, zero_entries_and_data_entries_apply_in_order) {
  set_bat(7, make_entry(BlockState::fully_present, kPayloadAt));
  put(0, Entry{.changes = {table_page(3), {kBatAt, {}, 2 * kLogSector}, table_page(0)}}.build());
  expect_replayed();
  EXPECT_EQ(bat(7), 0U);
  EXPECT_EQ(bat(3), 0U);
}

TEST_F(VhdxLogTest, a_sequence_is_replayed_from_the_tail_of_its_last_entry) {
  const auto first = Entry{.sequence_number = 5, .tail = 0, .changes = {table_page(1)}}.build();
  const auto second = Entry{.sequence_number = 6, .tail = 8192, .changes = {{kBatAt, {}, kLogSector}}}.build();
  put(0, first);
  put(8192, second);
  put(12288, Entry{.sequence_number = 7, .tail = 8192, .changes = {{kBatAt + kLogSector, {}, kLogSector}}}.build());
  set_bat(2, make_entry(BlockState::fully_present, kPayloadAt));
  auto disk = reopen(OpenMode::write);
  ASSERT_TRUE(disk);
  EXPECT_EQ(bat(1), 0U) << "the first entry is no longer needed";
  EXPECT_EQ(bat(2), 0U) << "the second is the tail";
}

TEST_F(VhdxLogTest, the_sequence_with_the_greatest_number_counts) {
  put(4096, Entry{.sequence_number = 9, .tail = 4096, .changes = {table_page(1)}}.build());
  put(64 * kKiB, Entry{.sequence_number = 11, .tail = 64 * kKiB, .changes = {table_page(0)}}.build());
  put(512 * kKiB, Entry{.sequence_number = 4, .tail = 512 * kKiB, .changes = {table_page(2)}}.build());
  expect_replayed();
}

TEST_F(VhdxLogTest, a_sequence_may_wrap_around_the_end_of_the_log) {
  const std::uint32_t at = kMiB - 12288;
  put(at, Entry{.sequence_number = 1, .tail = at, .changes = {table_page(5)}}.build());
  // This one lies over the end itself.
  put(kMiB - 4096, Entry{.sequence_number = 2, .tail = at, .changes = {table_page(0)}}.build());
  expect_replayed();
}

TEST_F(VhdxLogTest, entries_with_another_guid_are_leftovers) {
  put(0, Entry{.changes = {table_page()}}.build());
  put(8192, Entry{.sequence_number = 2, .tail = 0, .changes = {table_page(4)}, .guid = kBatRegion}.build());
  expect_replayed();
}

TEST_F(VhdxLogTest, a_torn_last_entry_is_left_out) {
  put(0, Entry{.changes = {table_page()}}.build());
  auto torn = Entry{.sequence_number = 2, .tail = 0, .changes = {table_page(4)}}.build();
  torn[5000] ^= std::byte{1};
  put(8192, torn);
  expect_replayed();
}

TEST_F(VhdxLogTest, an_entry_of_many_descriptors_takes_several_header_sectors) {
  Entry entry{.changes = std::vector<Entry::Change>(200, {kBatAt + kLogSector, std::vector<std::byte>(kLogSector)})};
  entry.changes.push_back(table_page());
  put(0, entry.build());
  expect_replayed();
}

TEST_F(VhdxLogTest, the_file_grows_to_what_the_log_says) {
  put(0, Entry{.changes = {{kBatAt, {}, kLogSector}}, .last = 9 * kMiB}.build());
  ASSERT_TRUE(reopen(OpenMode::read));
  ASSERT_TRUE(reopen(OpenMode::write));
  EXPECT_EQ(store_->live.size, 9 * kMiB);
}

TEST_F(VhdxLogTest, a_file_shorter_than_when_the_log_was_written_is_truncated) {
  put(0, Entry{.changes = {table_page()}, .flushed = kPayloadAt + kMiB + 1}.build());
  expect_error(VhdxErrc::truncated);
}

TEST_F(VhdxLogTest, a_log_without_a_valid_entry_is_refused) { expect_error(VhdxErrc::bad_log); }

TEST_F(VhdxLogTest, a_sequence_whose_tail_is_lost_is_refused) {
  put(8192, Entry{.sequence_number = 2, .tail = 0, .changes = {table_page()}}.build());
  expect_error(VhdxErrc::bad_log);
}

TEST_F(VhdxLogTest, changes_where_no_log_may_write_are_refused) {
  for (const std::uint64_t offset : {std::uint64_t{0}, kHeaderOffsets[1], kLogAt, kLogAt + kMiB - 4096, kBatAt + 512,
                                     kPayloadAt + kMiB, ~std::uint64_t{4095}}) {
    put(0, Entry{.changes = {{offset, std::vector<std::byte>(kLogSector)}}}.build());
    expect_error(VhdxErrc::bad_log);
    put(0, Entry{.changes = {{offset, {}, kLogSector}}}.build());
    expect_error(VhdxErrc::bad_log);
  }
  for (const std::uint64_t length : {std::uint64_t{100}, kMiB + 4096, ~std::uint64_t{4095}}) {
    put(0, Entry{.changes = {{kPayloadAt, {}, length}}}.build());
    expect_error(VhdxErrc::bad_log);
  }
}

TEST_F(VhdxLogTest, an_absurd_growth_is_refused) {
  put(0, Entry{.changes = {table_page()}, .last = ~std::uint64_t{0}}.build());
  expect_error(VhdxErrc::bad_log);
}

TEST_F(VhdxLogTest, descriptors_and_data_sectors_must_belong_to_their_entry) {
  const Entry entry{.sequence_number = 3, .changes = {table_page()}};
  // In turn: a descriptor's kind, its sequence number, a data sector's signature, its sequence halves.
  for (const std::size_t at : {64, 64 + 24, 4096, 4096 + 4, 8191}) {
    auto bytes = entry.build();
    bytes[at] ^= std::byte{1};
    entry.seal(bytes);
    put(0, bytes);
    expect_error(VhdxErrc::bad_log);
  }
  auto bytes = entry.build();
  bytes.resize(kLogSector);
  entry.seal(bytes);
  put(0, bytes);
  expect_error(VhdxErrc::bad_log);  // no data sector at all
}

TEST_F(VhdxLogTest, entries_with_impossible_headers_do_not_count) {
  const auto good = Entry{.changes = {table_page()}};
  const auto reject = [&](const std::function<void(LogEntryHeader&)>& edit) {
    auto bytes = good.build();
    auto header = load<LogEntryHeader>(bytes);
    edit(header);
    header.checksum = 0;
    store(bytes, 0, header);
    header.checksum = crc32c(bytes);
    store(bytes, 0, header);
    put(0, bytes);
    expect_error(VhdxErrc::bad_log);
  };
  reject([](auto& header) { header.signature ^= 1; });
  reject([](auto& header) { header.sequence_number = 0; });
  reject([](auto& header) { header.entry_length = 0; });
  reject([](auto& header) { header.entry_length = 8191; });
  reject([](auto& header) { header.entry_length = 2 * kMiB; });
  reject([](auto& header) { header.entry_length = 0xFFFFF000; });
  reject([](auto& header) { header.tail = 512; });
  reject([](auto& header) { header.tail = kMiB; });
  reject([](auto& header) { header.descriptor_count = 0xFFFFFFFF; });
}

TEST_F(VhdxLogTest, overlapping_entries_cannot_make_the_search_endless) {
  // Every sector claims to be an entry of the whole log.
  LogEntryHeader header{kLogEntrySignature, 0, kMiB, 0, 1, 0, 0, kLogGuid, 0, 0};
  for (std::uint32_t at = 0; at < kMiB; at += kLogSector) store_at(kLogAt + at, header);
  expect_error(VhdxErrc::bad_log);
}

TEST_F(VhdxLogTest, a_log_over_disk_content_asks_a_reader_for_a_writable_open) {
  set_bat(0, make_entry(BlockState::fully_present, kPayloadAt));
  const auto page = pattern(kLogSector, 77);
  put(0, Entry{.changes = {{kPayloadAt + 8192, page}}}.build());
  const auto error = open_error(OpenMode::read);
  EXPECT_EQ(error, VhdxErrc::bad_log);
  EXPECT_NE(error.cause().find("for writing"), std::string::npos);
  ASSERT_TRUE(reopen(OpenMode::write));
  EXPECT_EQ(read(*reopen(), 8192, kLogSector), page);
}

TEST_F(VhdxLogTest, a_block_that_only_the_log_brings_into_the_file_asks_for_a_writable_open) {
  std::vector<std::byte> page(kLogSector);
  store(page, 0, make_entry(BlockState::fully_present, kPayloadAt + kMiB));
  put(0, Entry{.changes = {{kBatAt, page}}, .last = kPayloadAt + 2 * kMiB}.build());
  EXPECT_EQ(open_error(OpenMode::read), VhdxErrc::bad_log);
  ASSERT_TRUE(reopen(OpenMode::write));
  EXPECT_EQ(read(*reopen(), 0, kMiB), std::vector<std::byte>(kMiB));
}

TEST_F(VhdxLogTest, a_replay_that_fails_in_the_middle_can_be_repeated) {
  put(0, Entry{.changes = {{kBatAt, {}, kLogSector}, table_page()}, .last = 9 * kMiB}.build());
  bool replayed = false;
  for (std::int64_t changes = 0; !replayed && changes < 100; ++changes) {
    store_->changes_until_failure = changes;
    replayed = static_cast<bool>(open_vhdx(file(), OpenMode::write, random_));
    store_->changes_until_failure = -1;
    EXPECT_EQ(read(*reopen(), 0, kMiB), pattern(kMiB, 1)) << changes;
  }
  EXPECT_TRUE(replayed);
  EXPECT_TRUE(load_at<Header>(kHeaderOffsets[0]).log_guid.is_zero());
}

TEST_F(VhdxLogTest, what_log_writer_writes_is_found_again_around_the_ring) {
  LogWriter writer(kLogAt, kMiB, kLogGuid);
  auto target = file();
  for (int round = 0; round < 40; ++round) {
    std::vector<LogWriter::Page> pages(1 + round * 3, {kBatAt + kLogSector, std::vector<std::byte>(kLogSector)});
    pages.push_back({kBatAt, table_page(round % 8).page});
    ASSERT_TRUE(writer.write(*target, pages, target->size()));
    auto disk = reopen(OpenMode::read);
    ASSERT_TRUE(disk);
    EXPECT_EQ(disk->map(round % 8 * kMiB, 1).kind, Segment::Kind::data) << round;
  }
}

}  // namespace
}  // namespace backhaul
