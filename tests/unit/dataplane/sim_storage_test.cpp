// What the simulated storage adds to the seam: power losses and faults. A simulator that loses nothing proves nothing.
#include "sim/sim_storage.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <set>

#include "sim/sim_random.h"

namespace backhaul::sim {
namespace {

constexpr std::uint64_t kFileSize = 64 * 1024;

std::error_code os_error(int number) { return {number, std::generic_category()}; }

std::unique_ptr<File> synced_file(SimStorage& storage, std::uint64_t size = kFileSize) {
  auto file = std::move(*storage.create("disk"));
  EXPECT_TRUE(file->resize(size));
  EXPECT_TRUE(file->sync());
  return file;
}

std::vector<std::byte> pattern(std::uint64_t size, int value) { return std::vector<std::byte>(size, std::byte(value)); }

TEST(SimPowerLoss, KeepsWhatWasSyncedAndKillsOpenFiles) {
  SimStorage storage;
  auto file = synced_file(storage);
  auto queue = storage.make_queue();
  ASSERT_TRUE(file->write_at(100, pattern(5000, 1)));
  ASSERT_TRUE(file->sync());
  const auto synced = storage.content("disk");
  EXPECT_EQ(synced, storage.durable_content("disk"));
  storage.crash();
  EXPECT_EQ(storage.content("disk"), synced);
  EXPECT_EQ(file->sync().error().code(), os_error(EIO));
  EXPECT_EQ(queue->wait(nullptr, Clock::Duration::zero()).error().code(), os_error(EIO));
  EXPECT_TRUE(storage.open("disk", OpenMode::write));
}

// Over many seeds: unsynced writes are lost, kept and torn, by whole sectors, and later ones survive earlier ones.
TEST(SimPowerLoss, TearsUnsyncedWritesAtSectors) {
  bool lost = false, kept = false, torn = false, later_without_earlier = false;
  const std::uint64_t base = seed_from_environment(1);
  for (std::uint64_t seed = base; seed < base + 60; ++seed) {
    SimStorage storage({.seed = seed});
    auto file = synced_file(storage);
    ASSERT_TRUE(file->write_at(0, pattern(8192, 1)));
    ASSERT_TRUE(file->write_at(32768, pattern(8192, 2)));
    storage.crash();
    const auto now = storage.content("disk");
    ASSERT_EQ(now.size(), kFileSize);
    std::set<int> sectors;
    for (std::uint64_t at = 0; at < 8192; at += 512) {
      ASSERT_EQ(std::count(now.begin() + static_cast<long>(at), now.begin() + static_cast<long>(at + 512), now[at]),
                512);
      sectors.insert(static_cast<int>(now[at]));
    }
    lost |= sectors == std::set{0};
    kept |= sectors == std::set{1};
    torn |= sectors == std::set{0, 1};
    later_without_earlier |= sectors == std::set{0} && now[32768] == std::byte{2};
    EXPECT_EQ(storage.unsynced_changes("disk"), 0U);
  }
  EXPECT_TRUE(lost && kept && torn && later_without_earlier) << lost << kept << torn << later_without_earlier;
}

TEST(SimPowerLoss, MayLoseAResizeAndAZeroing) {
  std::set<std::uint64_t> sizes;
  bool zeroed = false, not_zeroed = false;
  for (std::uint64_t seed = 1; seed < 40; ++seed) {
    SimStorage storage({.seed = seed});
    auto file = synced_file(storage);
    ASSERT_TRUE(file->write_at(0, pattern(512, 7)));
    ASSERT_TRUE(file->sync());
    ASSERT_TRUE(file->zero_at(0, 512));
    ASSERT_TRUE(file->resize(kFileSize * 2));
    storage.crash();
    const auto now = storage.content("disk");
    sizes.insert(now.size());
    (now[0] == std::byte{7} ? not_zeroed : zeroed) = true;
  }
  EXPECT_EQ(sizes, (std::set<std::uint64_t>{kFileSize, kFileSize * 2}));
  EXPECT_TRUE(zeroed && not_zeroed);
}

TEST(SimPowerLoss, ReachesWritesThatWereUnderWay) {
  bool reached = false, missed = false;
  for (std::uint64_t seed = 1; seed < 60; ++seed) {
    SimStorage storage({.seed = seed});
    auto file = synced_file(storage);
    auto queue = storage.make_queue();
    const auto bytes = pattern(4096, 3);
    queue->write(*file, 0, bytes, 1);
    storage.crash();
    const auto now = storage.content("disk");
    (std::find(now.begin(), now.end(), std::byte{3}) != now.end() ? reached : missed) = true;
  }
  EXPECT_TRUE(reached && missed);
}

TEST(SimPowerLoss, ASyncCoversOnlyWhatHadCompleted) {
  bool left_out = false;
  for (std::uint64_t seed = 1; seed < 60 && !left_out; ++seed) {
    SimStorage storage({.seed = seed});
    auto file = synced_file(storage);
    auto queue = storage.make_queue();
    const auto bytes = pattern(4096, 3);
    queue->write(*file, 0, bytes, 1);
    queue->sync(*file, 2);
    while (queue->in_flight() != 0) ASSERT_TRUE(queue->wait(nullptr, std::chrono::seconds(1)));
    left_out = storage.unsynced_changes("disk") == 1;
  }
  EXPECT_TRUE(left_out) << "a sync that was asked for beside a write may come first";
}

TEST(SimPowerLoss, StrikesAtAGivenOperation) {
  SimStorage storage;
  auto file = synced_file(storage);
  storage.crash_at_operation(2);
  ASSERT_TRUE(file->write_at(0, pattern(512, 1)));
  EXPECT_FALSE(storage.crashed());
  EXPECT_EQ(file->sync().error().code(), os_error(EIO));
  EXPECT_TRUE(storage.crashed());
  EXPECT_EQ(storage.open("disk", OpenMode::read).error().code(), os_error(EIO));
  storage.restart();
  EXPECT_TRUE(storage.open("disk", OpenMode::read));
  EXPECT_FALSE(file->sync()) << "a file from before stays dead";
}

TEST(SimPowerLoss, TheSameSeedGivesTheSameLoss) {
  const auto run = [] {
    SimStorage storage({.seed = 99});
    auto file = synced_file(storage);
    for (int i = 0; i < 20; ++i)
      EXPECT_TRUE(file->write_at(static_cast<std::uint64_t>(i) * 3000, pattern(4000, i + 1)));
    storage.crash();
    return storage.content("disk");
  };
  EXPECT_EQ(run(), run());
}

TEST(SimFaults, TheNthOperationFailsAndChangesNothing) {
  SimStorage storage;
  auto file = synced_file(storage);
  storage.fail_operation(2, EIO);
  ASSERT_TRUE(file->write_at(0, pattern(512, 1)));
  EXPECT_EQ(file->write_at(0, pattern(512, 2)).error().code(), os_error(EIO));
  EXPECT_EQ(storage.content("disk")[0], std::byte{1});
  ASSERT_TRUE(file->write_at(0, pattern(512, 3)));
}

TEST(SimFaults, ASyncThatFailedOnceFailsForEver) {
  SimStorage storage;
  auto file = synced_file(storage);
  storage.fail_operation(1, EIO);
  EXPECT_FALSE(file->sync());
  EXPECT_FALSE(file->sync());
}

TEST(SimFaults, ReadsOfARangeFailOnEveryPath) {
  SimStorage storage;
  auto file = synced_file(storage);
  storage.fail_reads("disk", {8192, 512}, EIO);
  std::vector<std::byte> bytes(8192);
  EXPECT_TRUE(file->read_at(0, bytes));
  EXPECT_EQ(file->read_at(1, bytes).error().code(), os_error(EIO));
  auto queue = storage.make_queue();
  queue->read(*file, 4096, bytes, 1);
  EXPECT_EQ((*queue->wait(nullptr, std::chrono::seconds(1)))[0].error, EIO);
  storage.clear_faults();
  EXPECT_TRUE(file->read_at(1, bytes));
}

TEST(SimFaults, SpaceRunsOutForNewPagesOnly) {
  SimStorage storage({.space_bytes = 16 * 1024});
  auto file = synced_file(storage);
  EXPECT_EQ(*storage.free_space_bytes(), 16U * 1024);
  ASSERT_TRUE(file->write_at(0, pattern(16 * 1024, 1)));
  EXPECT_EQ(file->write_at(16 * 1024, pattern(1, 1)).error().symbol(), "io.no_space");
  ASSERT_TRUE(file->write_at(0, pattern(16 * 1024, 2))) << "what has a place can be written";
  ASSERT_TRUE(file->zero_at(0, 4096));
  ASSERT_TRUE(file->write_at(16 * 1024, pattern(1, 1))) << "a hole gave a page back";
  EXPECT_EQ(*storage.free_space_bytes(), 0U);
}

TEST(SimClone, SharesContentAndThenNoMore) {
  SimStorage storage({.reflink = true});
  auto file = synced_file(storage);
  ASSERT_TRUE(file->write_at(0, pattern(8192, 1)));
  ASSERT_TRUE(storage.clone("disk", "copy"));
  ASSERT_TRUE(file->write_at(0, pattern(100, 2)));
  EXPECT_EQ(storage.content("copy")[0], std::byte{1});
  auto copy = std::move(*storage.open("copy", OpenMode::write));
  ASSERT_TRUE(copy->write_at(4096, pattern(100, 3)));
  EXPECT_EQ(storage.content("disk")[4096], std::byte{1});
}

TEST(SimQueues, CompletionsComeOutOfOrderAndReadMemoryHoldsRubbishUntilThen) {
  SimStorage storage({.seed = seed_from_environment(3)});
  auto file = synced_file(storage);
  auto queue = storage.make_queue(32);
  auto bytes = pattern(32 * 512, 9);
  std::vector<std::uint64_t> order;
  for (std::uint64_t tag = 0; tag < 32; ++tag) queue->read(*file, 0, MutableBytes(bytes).subspan(tag * 512, 512), tag);
  EXPECT_EQ(std::count(bytes.begin(), bytes.end(), std::byte{0xdb}), 32 * 512);
  while (queue->in_flight() != 0)
    for (const auto& one : *queue->wait(nullptr, std::chrono::seconds(1))) order.push_back(one.tag);
  EXPECT_EQ(order.size(), 32U);
  EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
  EXPECT_EQ(storage.counters().bytes_read, 32U * 512);
}

}  // namespace
}  // namespace backhaul::sim
