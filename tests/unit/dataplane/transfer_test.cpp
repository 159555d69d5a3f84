// Whole transfers in the simulation: every way to ask for one, on disks of odd sizes and random content.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "unit/dataplane/transfer_fixture.h"

namespace backhaul {
namespace {

using namespace testing;

constexpr std::uint64_t kSizes[] = {
    0, 1, 512, kBlockSize + 1, kExtentSize - 512, kExtentSize, 2 * kExtentSize + 3 * kBlockSize + 700};
constexpr std::optional<DiskFormat> kFormats[] = {DiskFormat::raw, DiskFormat::vhdx, DiskFormat::vhdx_fixed};

struct Checked {
  SimTransfer::Outcome outcome;
  std::uint64_t payload_bytes = 0, blocks_changed = 0, blocks_compared = 0, bytes_read = 0, target_bytes_read = 0;
};

// Sends and checks what holds after every transfer.
void send_and_check(TwoSites& sites, const SimTransferOptions& options, const Content& content, Checked& checked) {
  auto transfer = sites.transfer(options);
  sites.target.reset_counters();
  auto outcome = transfer.run(1);
  ASSERT_OK(outcome);
  const auto target_bytes_read = sites.target.counters().bytes_read;
  DiskFormat format{};
  const auto disk = disk_content(sites.target, options.request.disk, &format);
  EXPECT_TRUE(same_disk(disk, content));
  EXPECT_EQ(format, outcome->opened.format);
  if (options.request.format) {
    EXPECT_EQ(format, *options.request.format);
  }
  expect_no_leftovers(sites.target, options.request.disk);
  EXPECT_EQ(sites.target.unsynced_changes(options.request.disk), 0U);
  if (options.request.verify == VerifyMode::full ||
      (options.request.verify == VerifyMode::written && !options.changed)) {
    const auto root = root_of(disk);
    EXPECT_EQ(outcome->source_root, root);
    EXPECT_EQ(outcome->finished.root_digest, root);
  }
  const auto& counters = transfer.counters();
  EXPECT_EQ(counters.resumed_bytes, 0U);
  EXPECT_LE(counters.payload_bytes, counters.blocks_changed * kBlockSize);
  checked = {std::move(*outcome),      counters.payload_bytes, counters.blocks_changed,
             counters.blocks_compared, counters.bytes_read,    target_bytes_read};
}

SimTransferOptions options_for(SimRandom& random, std::optional<DiskFormat> format) {
  SimTransferOptions options;
  options.request.disk = "disk";
  options.request.format = format;
  options.request.verify = static_cast<VerifyMode>(random.below(3));
  options.compress = static_cast<CompressMode>(random.below(3));
  options.lanes = static_cast<std::uint32_t>(1 + random.below(4));
  options.seed = random.next();
  return options;
}

TEST(Transfer, ANewDiskOfEverySizeAndFormatEqualsItsSource) {
  const auto seed = sim::seed_from_environment(1);
  std::uint64_t round = 0;
  for (const auto size : kSizes)
    for (const auto format : kFormats)
      for (const auto sync : {SyncMode::delta, SyncMode::full}) {
        if (size == 0 && format != DiskFormat::raw) continue;
        TwoSites sites(seed * 1000 + ++round);
        SCOPED_TRACE(fmt::format("round {}, size {}, format {}, {}", round, size, to_string(*format), to_string(sync)));
        const auto pattern = random_pattern(sites.random, size);
        make_disk(sites.source, "source", DiskFormat::raw, pattern);
        auto options = options_for(sites.random, format);
        options.request.sync = sync;
        Checked checked;
        send_and_check(sites, options, pattern.content, checked);
        EXPECT_TRUE(checked.outcome.opened.blank);
        // Only what is not zero is sent.
        EXPECT_EQ(checked.blocks_changed, blocks_that_differ(pattern.content, {}));
        EXPECT_EQ(checked.blocks_compared, 0U);
      }
}

TEST(Transfer, ADeltaSendsTheBlocksThatDifferAndNoOthers) {
  const auto seed = sim::seed_from_environment(1);
  std::uint64_t round = 0;
  for (const auto size : kSizes)
    for (const auto format : kFormats)
      for (const bool reflink : {false, true}) {
        if (size == 0) continue;
        TwoSites sites(seed * 2000 + ++round, reflink);
        SCOPED_TRACE(fmt::format("round {}, size {}, format {}", round, size, to_string(*format)));
        auto pattern = random_pattern(sites.random, size);
        make_disk(sites.target, "disk", *format, pattern);
        const auto old = pattern.content;
        change_some(sites.random, pattern, static_cast<unsigned>(sites.random.below(6)));
        make_disk(sites.source, "source", DiskFormat::raw, pattern);
        Checked checked;
        send_and_check(sites, options_for(sites.random, std::nullopt), pattern.content, checked);
        EXPECT_EQ(checked.outcome.opened.format, *format);
        EXPECT_EQ(checked.outcome.opened.staging, reflink ? StagingKind::clone : StagingKind::undo);
        // Hole runs are zeroed by the target itself, which counts them.
        EXPECT_EQ(checked.blocks_changed, blocks_that_differ(old, pattern.content));
      }
}

GmacKey some_key(SimRandom& random) {
  GmacKey key;
  for (auto& byte : key) byte = static_cast<std::byte>(random.below(256));
  return key;
}

TEST(Transfer, ADeltaByTagsSendsTheSameBlocksAndProvesTheRootOnlyWhenAllIsRead) {
  if (!gmac_available()) GTEST_SKIP() << "this CPU lacks AES and carry-less multiplication";
  const auto seed = sim::seed_from_environment(1);
  std::uint64_t round = 0;
  for (const auto size : kSizes)
    for (const auto format : kFormats)
      for (const auto verify : {VerifyMode::none, VerifyMode::written, VerifyMode::full}) {
        if (size == 0) continue;
        ++round;
        TwoSites sites(seed * 6000 + round, round % 2 == 0);
        SCOPED_TRACE(
            fmt::format("round {}, size {}, format {}, {}", round, size, to_string(*format), to_string(verify)));
        auto pattern = random_pattern(sites.random, size);
        make_disk(sites.target, "disk", *format, pattern);
        const auto old = pattern.content;
        change_some(sites.random, pattern, 1 + static_cast<unsigned>(sites.random.below(5)));
        make_disk(sites.source, "source", DiskFormat::raw, pattern);
        auto options = options_for(sites.random, std::nullopt);
        options.request.verify = verify;
        options.request.compare_key = some_key(sites.random);
        auto transfer = sites.transfer(options);
        const auto outcome = transfer.run(1);
        ASSERT_OK(outcome);
        EXPECT_EQ(outcome->opened.compare_by, CompareBy::gmac);
        const auto disk = disk_content(sites.target, "disk");
        EXPECT_TRUE(same_disk(disk, pattern.content));
        EXPECT_EQ(transfer.counters().blocks_changed, blocks_that_differ(old, pattern.content));
        const auto root = root_of(disk);
        if (verify == VerifyMode::full) {
          EXPECT_EQ(outcome->source_root, root);
          EXPECT_EQ(outcome->finished.root_digest, root);
        }
        // A disk of holes and zeros has a root without any digest.
        EXPECT_TRUE(outcome->source_root.empty() || outcome->source_root == root);
        EXPECT_TRUE(outcome->finished.root_digest.empty() || outcome->finished.root_digest == root);
      }
}

// Tags of one run must not be taken for digests by the next: rounds by turns, with and without, lose and invent
// nothing.
TEST(Transfer, RoundsByTagsAndByDigestsFollowEachOther) {
  if (!gmac_available()) GTEST_SKIP() << "this CPU lacks AES and carry-less multiplication";
  const auto seed = sim::seed_from_environment(1);
  for (std::uint64_t round = 0; round < sim::share(12); ++round) {
    TwoSites sites(seed * 7000 + round);
    auto pattern = random_pattern(sites.random, 2 * kExtentSize + 700);
    make_disk(sites.source, "source", DiskFormat::raw, pattern);
    for (int turn = 0; turn < 5; ++turn) {
      SCOPED_TRACE(fmt::format("round {}, turn {}", round, turn));
      auto options = options_for(sites.random, *kFormats[round % 3]);
      options.request.verify = VerifyMode::written;
      if (turn % 2 == 1) options.request.compare_key = some_key(sites.random);
      const auto old = pattern.content;
      if (turn > 0) change_some(sites.random, pattern, static_cast<unsigned>(sites.random.below(4)));
      make_disk(sites.source, "source", DiskFormat::raw, pattern);
      auto transfer = sites.transfer(options);
      const auto outcome = transfer.run(1);
      ASSERT_OK(outcome);
      EXPECT_EQ(outcome->opened.compare_by, turn % 2 == 1 ? CompareBy::gmac : CompareBy::sha256);
      const auto disk = disk_content(sites.target, "disk");
      EXPECT_TRUE(same_disk(disk, pattern.content));
      if (turn > 0) {
        EXPECT_EQ(transfer.counters().blocks_changed, blocks_that_differ(old, pattern.content));
      }
      if (turn % 2 == 0) {
        EXPECT_EQ(outcome->source_root, root_of(disk));
        EXPECT_EQ(outcome->finished.root_digest, root_of(disk));
      }
    }
  }
}

// Each attempt has a key of its own, or none; what was acknowledged stays so.
TEST(Transfer, AnInterruptedDeltaGoesOnUnderAnotherKey) {
  if (!gmac_available()) GTEST_SKIP() << "this CPU lacks AES and carry-less multiplication";
  const auto seed = sim::seed_from_environment(1);
  bool reached_the_end = false;
  for (std::uint64_t fail_at = 1; !reached_the_end; fail_at += 1 + fail_at / 8) {
    SCOPED_TRACE(fail_at);
    TwoSites sites(seed * 8000 + fail_at, true);
    auto pattern = random_pattern(sites.random, 3 * kExtentSize);
    make_disk(sites.target, "disk", DiskFormat::raw, pattern);
    change_some(sites.random, pattern, 6);
    make_disk(sites.source, "source", DiskFormat::raw, pattern);
    SimTransferOptions options;
    options.request.disk = "disk";
    options.request.compare_key = some_key(sites.random);
    auto transfer = sites.transfer(options);
    transfer.link_faults = [&](unsigned attempt, std::uint32_t) {
      SimTransfer::LinkFaults faults;
      if (attempt == 1) faults.fail_at_operation = fail_at;
      return faults;
    };
    auto outcome = transfer.attempt();
    reached_the_end = outcome.has_value();
    if (!outcome) {
      if (fail_at % 2 == 0)
        transfer.options().request.compare_key.reset();
      else
        transfer.options().request.compare_key = some_key(sites.random);
      if (fail_at % 3 == 0) transfer.restart_source();
      outcome = transfer.run(1);
    }
    ASSERT_OK(outcome);
    EXPECT_TRUE(same_disk(disk_content(sites.target, "disk"), pattern.content));
    const auto root = root_of(pattern.content);
    EXPECT_TRUE(outcome->source_root.empty() || outcome->source_root == root);
    EXPECT_TRUE(outcome->finished.root_digest.empty() || outcome->finished.root_digest == root);
  }
}

TEST(Transfer, ASecondDeltaReadsNothingAtTheTarget) {
  for (const auto format : kFormats) {
    TwoSites sites(5);
    auto pattern = random_pattern(sites.random, 2 * kExtentSize + 700);
    make_disk(sites.source, "source", DiskFormat::raw, pattern);
    auto options = options_for(sites.random, format);
    options.request.verify = VerifyMode::written;
    Checked checked;
    send_and_check(sites, options, pattern.content, checked);
    auto changed = pattern;
    change_some(sites.random, changed, 1);
    make_disk(sites.source, "source", DiskFormat::raw, changed);
    send_and_check(sites, options, changed.content, checked);
    EXPECT_EQ(checked.blocks_changed, blocks_that_differ(pattern.content, changed.content));
    // What is read: what was written, metadata and the index's records.
    EXPECT_LT(checked.target_bytes_read, checked.blocks_changed * kBlockSize + 3 * kChunkSize);
  }
}

TEST(Transfer, AFullCopyOverAnOldDiskInEveryStagingGivesTheSource) {
  const auto seed = sim::seed_from_environment(1);
  std::uint64_t round = 0;
  for (const auto size : {kBlockSize + 1, 2 * kExtentSize + 700})
    for (const auto format : kFormats)
      for (const auto staging : {StagingChoice::automatic, StagingChoice::clone, StagingChoice::undo}) {
        TwoSites sites(seed * 3000 + ++round);
        SCOPED_TRACE(
            fmt::format("round {}, size {}, format {}, {}", round, size, to_string(*format), to_string(staging)));
        make_disk(sites.target, "disk", *format, random_pattern(sites.random, size));
        const auto pattern = random_pattern(sites.random, size, 5 * kExtentSize);
        make_disk(sites.source, "source", DiskFormat::raw, pattern);
        auto options = options_for(sites.random, std::nullopt);
        options.request.sync = SyncMode::full;
        options.request.staging = staging;
        Checked checked;
        send_and_check(sites, options, pattern.content, checked);
        EXPECT_FALSE(checked.outcome.opened.compare);
        EXPECT_EQ(checked.outcome.opened.blank, staging == StagingChoice::automatic);
        EXPECT_TRUE(checked.outcome.opened.had_old_disk);
      }
}

TEST(Transfer, AVhdxSourceGivesTheSameDiskAndRootAsARawOne) {
  TwoSites sites(6);
  const auto pattern = random_pattern(sites.random, 2 * kExtentSize + 7 * 512);
  make_disk(sites.source, "source", DiskFormat::vhdx, pattern, kMiB);
  for (const auto format : kFormats) {
    auto options = options_for(sites.random, format);
    options.request.sync = SyncMode::full;
    options.request.verify = VerifyMode::written;
    Checked checked;
    send_and_check(sites, options, pattern.content, checked);
    EXPECT_EQ(checked.outcome.source_root, root_of(pattern.content));
  }
}

TEST(Transfer, ChangedExtentsOnlyAreReadAndTheRestStaysAsItWas) {
  const auto seed = sim::seed_from_environment(1);
  for (std::uint64_t round = 0; round < sim::share(18); ++round) {
    TwoSites sites(seed * 4000 + round, round % 2 == 0);
    const auto format = *kFormats[round % 3];
    SCOPED_TRACE(fmt::format("round {}, format {}", round, to_string(format)));
    const auto size = kSizes[1 + round % 6];
    auto pattern = random_pattern(sites.random, size);
    make_disk(sites.target, "disk", format, pattern);
    const auto old = pattern.content;
    auto options = options_for(sites.random, std::nullopt);
    options.request.sync = round % 4 == 3 ? SyncMode::full : SyncMode::delta;
    options.changed = change_some(sites.random, pattern, static_cast<unsigned>(sites.random.below(5)));
    make_disk(sites.source, "source", DiskFormat::raw, pattern);
    Checked checked;
    send_and_check(sites, options, pattern.content, checked);
    std::uint64_t listed = 0;
    for (const auto& range : *options.changed)
      listed += align_up(range.end(), kBlockSize) - align_down(range.offset, kBlockSize);
    EXPECT_LE(checked.bytes_read, listed);
    // With verify `full` the target compares what is listed; else it takes all of it, for no root hangs on it.
    EXPECT_LE(checked.blocks_changed, options.request.verify == VerifyMode::full
                                          ? blocks_that_differ(old, pattern.content)
                                          : listed / kBlockSize);
  }
}

// Both disks full of data, one block of each extent changed at the source and listed.
Pattern one_block_changed_in_each(TwoSites& sites, std::uint64_t extents, SimTransferOptions& options) {
  const auto size = extents * kExtentSize;
  Pattern pattern{Content(size, std::byte{0x3C}), {{0, size}}};
  make_disk(sites.target, "disk", DiskFormat::raw, pattern);
  options.changed.emplace();
  for (std::uint64_t extent = 0; extent < extents; ++extent) {
    const ByteRange range{extent * kExtentSize + (extent * 7 + 3) % kBlocksPerExtent * kBlockSize, kBlockSize};
    options.changed->push_back(range);
    std::fill_n(pattern.content.begin() + static_cast<std::ptrdiff_t>(range.offset), range.length, std::byte{0x77});
  }
  make_disk(sites.source, "source", DiskFormat::raw, pattern);
  return pattern;
}

// The target reads what was written, once, and not the extents around it.
TEST(Transfer, TheCostOfChangedExtentsFollowsTheChanges) {
  const std::uint64_t extents = 12;
  for (const auto verify : {VerifyMode::none, VerifyMode::written}) {
    TwoSites sites(11, true);
    SimTransferOptions options;
    options.request.disk = "disk";
    options.request.verify = verify;
    const auto pattern = one_block_changed_in_each(sites, extents, options);
    Checked checked;
    send_and_check(sites, options, pattern.content, checked);
    EXPECT_EQ(checked.blocks_changed, extents);
    EXPECT_EQ(checked.blocks_compared, 0U);
    EXPECT_EQ(checked.bytes_read, extents * kBlockSize);
    EXPECT_LE(checked.target_bytes_read, 2 * extents * kBlockSize);
    EXPECT_TRUE(checked.outcome.finished.root_digest.empty()) << "of most of the disk nothing is known";
  }
}

// The end of a list is acknowledged at once, however many checkpoints it takes: a last delta is somebody's downtime.
TEST(Transfer, NoListOfChangesWaitsForTheClock) {
  SimClock stopped(Clock::Duration::zero());
  for (const std::uint64_t extents : {std::uint64_t{3}, std::uint64_t{kCheckpointExtents + 2}}) {
    TwoSites sites(11, true);
    SimTransferOptions options;
    options.request.disk = "disk";
    options.request.verify = VerifyMode::written;
    const auto pattern = one_block_changed_in_each(sites, extents, options);
    SimTransfer transfer(sites.source, "source", sites.target, sites.target, stopped, options);
    SCOPED_TRACE(fmt::format("{} extents", extents));
    ASSERT_OK(transfer.run(1));
    EXPECT_TRUE(same_disk(disk_content(sites.target, "disk"), pattern.content));
  }
}

// Acknowledged work is not sent again, although the target compares nothing of a list that comes for the first time.
TEST(Transfer, AnInterruptedListOfChangesIsNotShippedTwice) {
  const std::uint64_t extents = 3;
  for (const auto verify : {VerifyMode::none, VerifyMode::written}) {
    std::uint64_t most_acknowledged = 0;
    for (std::uint64_t fail_at = 1;; ++fail_at) {
      SCOPED_TRACE(fail_at);
      TwoSites sites(12, true);
      SimTransferOptions options;
      options.request.disk = "disk";
      options.request.verify = verify;
      auto pattern = one_block_changed_in_each(sites, extents, options);
      auto transfer = sites.transfer(options);
      transfer.link_faults = [&](unsigned attempt, std::uint32_t) {
        SimTransfer::LinkFaults faults;
        if (attempt == 1) faults.fail_at_operation = fail_at;
        return faults;
      };
      if (transfer.attempt()) break;
      const auto acknowledged = transfer.counters().bytes_done / kExtentSize;
      most_acknowledged = std::max(most_acknowledged, acknowledged);
      transfer.restart_source();
      ASSERT_OK(transfer.run(1));
      EXPECT_LE(transfer.counters().payload_bytes, (extents - acknowledged) * kBlockSize);
      EXPECT_TRUE(same_disk(disk_content(sites.target, "disk"), pattern.content));
    }
    EXPECT_GT(most_acknowledged, 0U);
  }
}

TEST(Transfer, ARoundWithoutASwapLeavesTheDiskStagedAndTheNextGoesOn) {
  for (const auto format : kFormats)
    for (const bool old_disk : {false, true}) {
      TwoSites sites(7);
      auto pattern = random_pattern(sites.random, 2 * kExtentSize + 700);
      const auto old = random_pattern(sites.random, 2 * kExtentSize + 700);
      if (old_disk) make_disk(sites.target, "disk", *format, old);
      make_disk(sites.source, "source", DiskFormat::raw, pattern);
      SimTransferOptions options;
      options.request.disk = "disk";
      options.request.format = format;
      options.swap = false;
      auto first = sites.transfer(options);
      ASSERT_OK(first.run(1));
      if (!old_disk) {
        EXPECT_EQ(sites.target.kind("disk").value(), Storage::Kind::none);
      }
      const auto before = pattern.content;
      const auto touched = change_some(sites.random, pattern, 3);
      make_disk(sites.source, "source", DiskFormat::raw, pattern);
      // A tracker's list is enough now, for the staged disk is whole.
      options.changed = touched;
      options.swap = true;
      options.request.epoch = first.opened().epoch;
      auto second = sites.transfer(options);
      ASSERT_OK(second.run(1));
      EXPECT_TRUE(second.opened().resumed);
      EXPECT_EQ(second.counters().resumed_bytes, 0U);
      EXPECT_LE(second.counters().blocks_changed, blocks_that_differ(before, pattern.content));
      EXPECT_TRUE(same_disk(disk_content(sites.target, "disk"), pattern.content));
      expect_no_leftovers(sites.target, "disk");
    }
}

TEST(Transfer, SmallWindowsAndDelaysChangeNothing) {
  const auto seed = sim::seed_from_environment(1);
  for (std::uint64_t round = 0; round < 6; ++round) {
    TwoSites sites(seed * 5000 + round);
    SCOPED_TRACE(round);
    const auto pattern = random_pattern(sites.random, 2 * kExtentSize + 700);
    make_disk(sites.target, "disk", DiskFormat::vhdx, random_pattern(sites.random, 2 * kExtentSize + 1024));
    make_disk(sites.source, "source", DiskFormat::raw, pattern);
    auto options = options_for(sites.random, std::nullopt);
    options.request.verify = VerifyMode::written;
    auto transfer = sites.transfer(options);
    transfer.link_faults = [&](unsigned, std::uint32_t) {
      SimTransfer::LinkFaults faults;
      for (auto* direction : {&faults.to_target, &faults.to_source}) {
        direction->window = 1000 + sites.random.below(200'000);
        direction->max_write = 100 + sites.random.below(100'000);
        direction->max_read = 100 + sites.random.below(100'000);
        direction->delay_steps = static_cast<std::uint32_t>(sites.random.below(50));
      }
      return faults;
    };
    ASSERT_OK(transfer.run(1));
    EXPECT_TRUE(same_disk(disk_content(sites.target, "disk"), pattern.content));
  }
}

}  // namespace
}  // namespace backhaul
