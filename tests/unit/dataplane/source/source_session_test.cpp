#include "dataplane/source/source_session.h"

#include <gtest/gtest.h>

#include "dataplane/protocol/engine_error.h"
#include "dataplane/source/send.h"
#include "unit/dataplane/transfer_fixture.h"

namespace backhaul {
namespace {

using namespace testing;

std::vector<std::uint64_t> extents_of(const ChangedBlocks& changed) {
  std::vector<std::uint64_t> extents;
  for (auto next = changed.next_extent(0); next; next = changed.next_extent(*next + 1)) extents.push_back(*next);
  return extents;
}

TEST(ChangedBlocks, AreSortedMergedAndRoundedOutwardsToBlocks) {
  const auto changed = ChangedBlocks::make({{kBlockSize + 5, 1}, {0, 0}, {10, 20}, {kBlockSize - 1, 2}}, kGiB);
  ASSERT_OK(changed);
  EXPECT_EQ(changed->bytes(), 2 * kBlockSize);
  EXPECT_EQ(changed->extents(), 1U);
  EXPECT_EQ(changed->blocks(0).to_ullong(), 3U);
  EXPECT_TRUE(changed->blocks(1).none());
}

TEST(ChangedBlocks, SpanExtentsAndAreFoundByTheirNumber) {
  const auto size = 5 * kExtentSize + 100;
  const auto changed = ChangedBlocks::make({{5 * kExtentSize, 100}, {kExtentSize - 1, kExtentSize + 2}}, size);
  ASSERT_OK(changed);
  EXPECT_EQ(extents_of(*changed), (std::vector<std::uint64_t>{0, 1, 2, 5}));
  EXPECT_EQ(changed->extents(), 4U);
  EXPECT_EQ(changed->blocks(0).count(), 1U);
  EXPECT_TRUE(changed->blocks(0).test(127));
  EXPECT_TRUE(changed->blocks(1).all());
  EXPECT_EQ(changed->blocks(2).to_string().find('1'), 127U);
  EXPECT_EQ(changed->blocks(5).count(), 1U);
}

TEST(ChangedBlocks, AnEmptyListHasNothing) {
  const auto changed = ChangedBlocks::make({}, kGiB);
  ASSERT_OK(changed);
  EXPECT_FALSE(changed->next_extent(0));
  EXPECT_EQ(changed->extents() + changed->bytes(), 0U);
}

TEST(ChangedBlocks, OutsideTheDiskAreRefused) {
  for (const auto range : {ByteRange{1001, 1}, ByteRange{0, 1001}, ByteRange{1000, 1}, ByteRange{~std::uint64_t{0}, 1},
                           ByteRange{999, ~std::uint64_t{0}}, ByteRange{500, ~std::uint64_t{0} - 400}}) {
    const auto changed = ChangedBlocks::make({{0, 1}, range}, 1000);
    ASSERT_FALSE(changed) << range.offset << " " << range.length;
    EXPECT_EQ(changed.error(), make_error_code(EngineErrc::bad_extents_file));
  }
  EXPECT_TRUE(ChangedBlocks::make({{999, 1}, {0, 1000}}, 1000));
}

TEST(ChangedBlocks, CountsOnlyWhatAnyListOfRangesTouches) {
  SimRandom random(sim::seed_from_environment(1));
  const auto size = 6 * kExtentSize + 12345;
  for (int round = 0; round < 300; ++round) {
    std::vector<ByteRange> ranges;
    std::vector<bool> blocks(block_count(size));
    for (auto count = random.below(12); count > 0; --count) {
      const auto offset = random.below(size);
      const auto length = random.below(std::min(size - offset, random.one_in(3) ? kExtentSize * 2 : kBlockSize * 3));
      ranges.push_back({offset, length});
      if (length > 0)
        std::fill(blocks.begin() + static_cast<std::ptrdiff_t>(offset / kBlockSize),
                  blocks.begin() + static_cast<std::ptrdiff_t>((offset + length - 1) / kBlockSize) + 1, true);
    }
    const auto changed = ChangedBlocks::make(ranges, size);
    ASSERT_OK(changed);
    std::vector<std::uint64_t> expected;
    for (std::uint64_t extent = 0; extent < extent_count(size); ++extent) {
      const auto bits = changed->blocks(extent);
      for (std::uint64_t b = 0; b < blocks_in_extent(size, extent); ++b)
        ASSERT_EQ(bits.test(b), blocks[extent * kBlocksPerExtent + b]) << extent << " " << b;
      if (bits.any()) expected.push_back(extent);
    }
    ASSERT_EQ(extents_of(*changed), expected);
    ASSERT_EQ(changed->extents(), expected.size());
  }
}

TEST(ChangedBlocks, AreReadFromBothFormsOfJson) {
  for (const auto* text : {R"({"extents":[{"offset":4096,"length":512},{"offset":0,"length":1}]})",
                           R"([{"offset":4096,"length":512,"type":1},{"offset":99,"length":9,"type":0},)"
                           R"({"offset":0,"length":1,"description":"dirty"}])"}) {
    const auto ranges = ChangedBlocks::parse(text);
    ASSERT_OK(ranges);
    EXPECT_EQ(*ranges, (std::vector<ByteRange>{{4096, 512}, {0, 1}}));
  }
  EXPECT_EQ(ChangedBlocks::parse("[]")->size(), 0U);
}

TEST(ChangedBlocks, RefuseJsonOfAnyOtherForm) {
  for (const auto* text :
       {"", "x", "{}", "null", R"({"extents":{}})", R"({"extents":1})", "[1]", R"([{"offset":1}])", R"([{"length":1}])",
        R"([{"offset":-1,"length":1}])", R"([{"offset":1.5,"length":1}])", R"([{"offset":"1","length":1}])",
        R"([{"offset":1,"length":18446744073709551616}])", R"([{"offset":1,"length":1})"}) {
    const auto ranges = ChangedBlocks::parse(text);
    ASSERT_FALSE(ranges) << text;
    EXPECT_EQ(ranges.error(), make_error_code(EngineErrc::bad_extents_file));
  }
}

TEST(TargetUrl, IsSchemeHostPortAndDisk) {
  struct Row {
    const char* url;
    const char* host;
    int port;
    const char* disk;
  };
  for (const auto& row : {Row{"backhaul://host:1/d", "host", 1, "d"},
                          Row{"backhaul://10.0.0.1:65535/a/b c.vhdx", "10.0.0.1", 65535, "a/b c.vhdx"},
                          Row{"backhaul://[2001:db8::1]:7443/d:1", "2001:db8::1", 7443, "d:1"}}) {
    const auto target = parse_target_url(row.url);
    ASSERT_OK(target);
    EXPECT_EQ(target->endpoint.host, row.host);
    EXPECT_EQ(target->endpoint.port, row.port);
    EXPECT_EQ(target->disk, row.disk);
  }
  for (const auto* url :
       {"", "backhaul://", "http://h:1/d", "backhaul:/h:1/d", "backhaul://h/d", "backhaul://h:/d", "backhaul://h:0/d",
        "backhaul://h:65536/d", "backhaul://h:99999999999999999999/d", "backhaul://h:-1/d", "backhaul://h:1x/d",
        "backhaul://h:1", "backhaul://h:1/", "backhaul://:1/d", "backhaul://[]:1/d", "BACKHAUL://h:1/d"}) {
    const auto target = parse_target_url(url);
    ASSERT_FALSE(target) << url;
    EXPECT_EQ(target.error(), make_error_code(EngineErrc::bad_target_url));
  }
}

// A session over a disk with data in extents 1 and 4 of 6.
struct WithDisk {
  WithDisk() {
    Pattern pattern{Content(5 * kExtentSize + 10), {{kExtentSize, 10}, {4 * kExtentSize + 5 * kBlockSize, 10}}};
    for (const auto& range : pattern.written) pattern.content[range.offset] = std::byte{1};
    make_disk(storage, "source", DiskFormat::raw, pattern);
    disk = open_disk(storage.open("source", OpenMode::read).value(), OpenMode::read, random).value();
  }
  SimStorage storage;
  SimRandom random{1};
  std::unique_ptr<Disk> disk;
};

std::string all_items(SourceSession& session) {
  std::string text;
  SourceSession::Item item;
  while (session.take(item).value() == SourceSession::Take::item)
    text += (item.hole ? "hole " : "data ") + std::to_string(item.first) + "+" + std::to_string(item.count) + ", ";
  return text;
}

TEST(SourceSession, HandsOutExtentsWithDataAndRunsOfHoles) {
  WithDisk with;
  SourceSession session(*with.disk, VerifyMode::written, std::nullopt);
  EXPECT_EQ(all_items(session), "hole 0+1, data 1+1, hole 2+2, data 4+1, hole 5+1, ");
  EXPECT_EQ(session.bytes_total(), 5 * kExtentSize + 10);
}

TEST(SourceSession, HandsOutOnlyChangedExtents) {
  WithDisk with;
  auto changed = ChangedBlocks::make({{2 * kExtentSize - 1, 2}}, with.disk->size());
  SourceSession session(*with.disk, VerifyMode::written, std::move(*changed));
  EXPECT_EQ(all_items(session), "data 1+1, data 2+1, ");
}

TEST(SourceSession, HandsOutWhatWasGivenBackOnceMore) {
  WithDisk with;
  SourceSession session(*with.disk, VerifyMode::written, std::nullopt);
  all_items(session);
  session.give_back({2, 2, true});
  session.give_back({4, 1, false});
  EXPECT_EQ(all_items(session), "hole 2+2, data 4+1, ");
  EXPECT_EQ(all_items(session), "");
}

TEST(SourceSession, HasARootOnceEveryExtentIsDone) {
  WithDisk with;
  SourceSession session(*with.disk, VerifyMode::written, std::nullopt);
  session.done_zero_run(2, 2);
  for (const std::uint64_t extent : {5, 4, 1}) {
    const Sha256 digest{};
    session.done(extent, &digest);
    EXPECT_FALSE(session.root_digest());
    EXPECT_FALSE(session.all_done());
  }
  session.done_zero_run(0, 1);
  EXPECT_TRUE(session.all_done());
  const auto root = session.root_digest();
  ASSERT_TRUE(root);
  EXPECT_EQ(session.root_digest(), root);  // a finish that got lost asks again
  EXPECT_EQ(session.counters().bytes_done, with.disk->size());
}

TEST(SourceSession, HasNoRootWhenAnExtentWasNotDigested) {
  WithDisk with;
  SourceSession session(*with.disk, VerifyMode::none, std::nullopt);
  for (std::uint64_t extent = 0; extent < 6; ++extent) session.done(extent, nullptr);
  EXPECT_TRUE(session.all_done());
  EXPECT_FALSE(session.root_digest());
}

TEST(SourceSession, AllowsOneRetryOfEachMismatch) {
  WithDisk with;
  SourceSession session(*with.disk, VerifyMode::written, std::nullopt);
  EXPECT_TRUE(session.may_retry_mismatch(1));
  EXPECT_TRUE(session.may_retry_mismatch(4));
  EXPECT_FALSE(session.may_retry_mismatch(1));
}

Sha256 some_digest(unsigned salt) {
  Sha256 digest;
  digest.bytes[0] = static_cast<std::byte>(salt);
  return digest;
}

// Takes and acknowledges everything, with digests that say which extent they are of.
void acknowledge_all(SourceSession& session, unsigned salt) {
  SourceSession::Item item;
  while (*session.take(item) == SourceSession::Take::item) {
    const auto digest = some_digest(salt + static_cast<unsigned>(item.first));
    if (item.hole)
      session.done_zero_run(item.first, item.count);
    else
      session.done(item.first, &digest);
  }
}

TEST(SourceSession, KnowsTheRootOfARoundOverChangesFromTheDigestsOfTheRoundBefore) {
  WithDisk with;
  SourceSession first(*with.disk, VerifyMode::written, std::nullopt, nullptr, true);
  acknowledge_all(first, 100);
  const auto first_root = first.root_digest();
  ASSERT_TRUE(first_root);
  const auto kept = first.take_digests();
  ASSERT_TRUE(kept);
  ASSERT_EQ(kept->extents.size(), 6U);

  auto changed = ChangedBlocks::make({{4 * kExtentSize, 10}}, with.disk->size());
  SourceSession second(*with.disk, VerifyMode::written, *changed, &*kept, true);
  EXPECT_FALSE(second.root_digest()) << "not everything is acknowledged";
  acknowledge_all(second, 200);
  RootDigest expected(with.disk->size());
  for (std::uint64_t extent = 0; extent < 6; ++extent) {
    if (extent == 1 || extent == 4)
      expected.add(extent, some_digest(extent == 1 ? 101 : 204));
    else
      expected.add_zero_run(extent, 1);
  }
  EXPECT_EQ(second.root_digest(), expected.finish());

  auto nothing = ChangedBlocks::make({}, with.disk->size());
  SourceSession third(*with.disk, VerifyMode::written, *nothing, &*kept);
  EXPECT_EQ(third.root_digest(), first_root);
}

TEST(SourceSession, HasNoRootOfChangesAloneWithoutDigestsThatFit) {
  WithDisk with;
  auto changed = ChangedBlocks::make({{0, 10}}, with.disk->size());
  SourceSession without(*with.disk, VerifyMode::written, *changed);
  acknowledge_all(without, 1);
  EXPECT_TRUE(without.all_done());
  EXPECT_FALSE(without.root_digest());
  DiskDigests other;
  other.size = with.disk->size() + 1;
  other.extents.resize(6);
  SourceSession misfit(*with.disk, VerifyMode::written, *changed, &other);
  acknowledge_all(misfit, 1);
  EXPECT_FALSE(misfit.root_digest());
  EXPECT_FALSE(misfit.take_digests());
}

}  // namespace
}  // namespace backhaul
