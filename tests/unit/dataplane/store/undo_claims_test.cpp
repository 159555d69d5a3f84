// Who saves which chunk: nobody twice, nothing behind the old file's end, and the second waits for the first.
#include "dataplane/store/undo_claims.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "dataplane/store/undo.h"

namespace backhaul {
namespace {

constexpr std::uint64_t kClaimed = kUndoChunkSize;

ByteRange chunks(std::uint64_t first, std::uint64_t end) { return {first * kClaimed, (end - first) * kClaimed}; }

using Runs = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

struct Saver {
  explicit Saver(UndoClaims& all) : claims(all), number(all.enter()) {}
  ~Saver() { claims.leave(number); }
  // One round from where the last one ended.
  Runs claim(std::vector<ByteRange> ranges) {
    std::vector<ChunkRun> runs;
    more = claims.claim(number, ranges, cursor, runs);
    Runs got;
    for (const auto& run : runs) got.emplace_back(run.first, run.end);
    return got;
  }
  void finish(bool saved) { claims.finish(number, saved); }

  UndoClaims& claims;
  const std::size_t number;
  UndoClaims::Cursor cursor;
  bool more = false;
};

TEST(UndoClaims, AChunkIsClaimedByOneSaverOnly) {
  UndoClaims claims(100 * kClaimed);
  Saver first(claims), second(claims);
  EXPECT_EQ(first.claim({chunks(0, 10)}), (Runs{{0, 10}}));
  EXPECT_EQ(second.claim({chunks(5, 15)}), (Runs{{10, 15}}));
  first.finish(true);
  second.finish(false);
  EXPECT_TRUE(claims.all_saved(std::vector{chunks(0, 10)}));
  EXPECT_FALSE(claims.all_saved(std::vector{chunks(0, 15)}));
  Saver third(claims);
  EXPECT_EQ(third.claim({chunks(5, 15)}), (Runs{{10, 15}}));  // what failed is free again
  third.finish(true);
}

TEST(UndoClaims, RunsAreSortedAndDisjointWhateverTheRangesAre) {
  UndoClaims claims(100 * kClaimed);
  Saver saver(claims);
  EXPECT_EQ(
      saver.claim(
          {chunks(20, 22), {3 * kClaimed + 1, 1}, {3 * kClaimed + 7, 2 * kClaimed}, chunks(22, 23), chunks(1, 2)}),
      (Runs{{1, 2}, {3, 6}, {20, 23}}));
  EXPECT_FALSE(saver.more);
  saver.finish(true);
}

TEST(UndoClaims, WhatLiesBehindTheOldEndNeedsNoSaving) {
  UndoClaims claims(2 * kClaimed + 1);
  EXPECT_TRUE(claims.all_saved(std::vector{chunks(3, 90), ByteRange{0, 0}}));
  Saver saver(claims);
  EXPECT_EQ(saver.claim({{2 * kClaimed, ~std::uint64_t{0} - 2 * kClaimed}}), (Runs{{2, 3}}));
  saver.finish(true);
}

TEST(UndoClaims, ARoundIsBounded) {
  UndoClaims claims(10'000 * kClaimed);
  Saver saver(claims);
  std::vector<ByteRange> ranges;
  for (std::uint64_t i = 0; i < UndoClaims::kMaxRoundRuns + 3; ++i) ranges.push_back(chunks(2 * i, 2 * i + 1));
  EXPECT_EQ(saver.claim(ranges).size(), UndoClaims::kMaxRoundRuns);
  EXPECT_TRUE(saver.more);
  saver.finish(true);
  EXPECT_EQ(saver.claim(ranges).size(), 3U);
  EXPECT_FALSE(saver.more);
  saver.finish(true);
  EXPECT_TRUE(claims.all_saved(ranges));
}

TEST(UndoClaims, AnExtensionEndsWhereAnotherHasBeenOrIs) {
  UndoClaims claims(100 * kClaimed);
  Saver first(claims), second(claims);
  EXPECT_EQ(first.claim({chunks(50, 51)}), (Runs{{50, 51}}));
  EXPECT_EQ(second.claim({chunks(40, 41)}), (Runs{{40, 41}}));
  EXPECT_EQ(claims.extend(second.number, 41, 45), 45U);
  EXPECT_EQ(claims.extend(second.number, 45, 90), 50U);
  second.finish(true);
  EXPECT_TRUE(claims.all_saved(std::vector{chunks(40, 50)}));
  EXPECT_EQ(claims.extend(first.number, 30, 90), 40U);
  first.finish(true);
}

TEST(UndoClaims, WhoNeedsAnothersChunkWaitsAndSoDoesOneSaverTooMany) {
  UndoClaims claims(100 * kClaimed);
  std::vector<std::unique_ptr<Saver>> savers;
  for (std::size_t i = 0; i < UndoClaims::kMaxSavers; ++i) savers.push_back(std::make_unique<Saver>(claims));
  EXPECT_EQ(savers[0]->claim({chunks(0, 1)}), (Runs{{0, 1}}));
  std::atomic<int> done{0};
  std::thread needs([&] {
    claims.wait_for_others(std::vector{chunks(0, 2)});
    EXPECT_TRUE(claims.all_saved(std::vector{chunks(0, 1)}));
    ++done;
  });
  std::thread comes([&] {
    const Saver last(claims);
    ++done;
  });
  claims.wait_for_others(std::vector{chunks(1, 2)});  // nobody's
  EXPECT_EQ(done, 0);
  savers[0]->finish(true);
  savers.clear();
  needs.join();
  comes.join();
  EXPECT_EQ(done, 2);
}

}  // namespace
}  // namespace backhaul
