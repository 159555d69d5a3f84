// Power losses at the target in the middle of a transfer: at any operation, with torn and lost writes. What was
// acknowledged stays, the transfer goes on or the old disk comes back, and no torn disk ever has a disk's name.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "unit/dataplane/transfer_fixture.h"

namespace backhaul {
namespace {

using namespace testing;

enum class Way { fresh, clone, undo };

struct Case {
  Way way = Way::fresh;
  DiskFormat format = DiskFormat::raw;
  SyncMode sync = SyncMode::delta;
};

class PowerLoss : public ::testing::Test {
 protected:
  static Case case_of(std::uint64_t round) {
    Case c;
    c.way = static_cast<Way>(round % 3);
    c.format = round / 3 % 2 == 0 ? DiskFormat::raw : DiskFormat::vhdx;
    c.sync = round / 6 % 3 == 2 ? SyncMode::full : SyncMode::delta;
    return c;
  }
  void prepare(std::uint64_t seed, std::uint64_t round) {
    case_ = case_of(round);
    sites_ = std::make_unique<TwoSites>(seed, case_.way != Way::undo);
    const auto size = kExtentSize + 5 * kBlockSize + 512 * sites_->random.below(3);
    pattern_ = random_pattern(sites_->random, size, 600 * kKiB);
    const bool old_disk = case_.way != Way::fresh || case_.sync == SyncMode::full;
    if (old_disk) {
      old_pattern_ = pattern_;
      change_some(sites_->random, old_pattern_, 12);
      make_disk(sites_->target, "disk", case_.format, old_pattern_, kMiB);
      old_ = sites_->target.content("disk");
    } else {
      old_.reset();
    }
    make_disk(sites_->source, "source", DiskFormat::raw, pattern_);
    SimTransferOptions options;
    options.request.disk = "disk";
    options.request.sync = case_.sync;
    if (!old_disk) options.request.format = case_.format;
    if (case_.way == Way::undo) options.request.staging = StagingChoice::undo;
    if (case_.way == Way::clone) options.request.staging = StagingChoice::clone;
    options.lanes = static_cast<std::uint32_t>(1 + sites_->random.below(2));
    options.seed = sites_->random.next();
    transfer_.emplace(sites_->source, "source", sites_->target, sites_->target, sites_->clock, options);
    // In some runs a checkpoint comes every few steps, in others only at the end.
    const std::chrono::milliseconds pace(sites_->random.one_in(2) ? 100 : 1);
    transfer_->before_step = [this, pace] { sites_->clock.sleep_for(pace); };
  }
  // Runs into a power loss at the operation. False: the transfer ended before it.
  bool crash_at(std::uint64_t operation) {
    sites_->target.crash_at_operation(operation);
    const auto outcome = transfer_->attempt();
    const bool struck = sites_->target.crashed();
    if (struck)
      sites_->target.restart();
    else
      sites_->target.clear_faults();
    transfer_->restart_target();
    EXPECT_TRUE(struck || outcome) << outcome.error().to_string();
    return struck;
  }
  // What stands under the disk's name is the old disk or the new one, whole.
  void expect_no_torn_disk() {
    if (sites_->target.kind("disk").value() != Storage::Kind::file) return;
    const auto content = sites_->target.content("disk");
    if (old_ && content == *old_) return;
    EXPECT_TRUE(same_disk(disk_content(sites_->target, "disk"), pattern_.content));
  }

  Case case_;
  std::unique_ptr<TwoSites> sites_;
  Pattern pattern_, old_pattern_;
  std::optional<Content> old_;
  std::optional<SimTransfer> transfer_;
};

TEST_F(PowerLoss, AtAnyOperationTheTransferGoesOnToTheRightDisk) {
  const auto seed = sim::seed_from_environment(1);
  unsigned losses = 0;
  for (std::uint64_t round = 0; round < sim::share(48); ++round) {
    SCOPED_TRACE(fmt::format("round {}", round));
    ASSERT_NO_FATAL_FAILURE(prepare(seed * 1000 + round, round));
    bool finished = false;
    for (int loss = 0; loss < 3 && !finished; ++loss) {
      finished = !crash_at(1 + sites_->random.below(round % 5 == 0 ? 40 : 160));
      losses += finished ? 0 : 1;
      expect_no_torn_disk();
      const auto leftovers = recover_store(sites_->target);
      ASSERT_OK(leftovers);
      ASSERT_LE(leftovers->size(), 1U);
      expect_no_torn_disk();
      if (sites_->random.one_in(2)) transfer_->restart_source();
    }
    ASSERT_OK(transfer_->run());
    EXPECT_TRUE(same_disk(disk_content(sites_->target, "disk"), pattern_.content));
    expect_no_leftovers(sites_->target, "disk");
    // It is the same after one more power loss.
    sites_->target.crash();
    EXPECT_TRUE(same_disk(disk_content(sites_->target, "disk"), pattern_.content));
  }
  EXPECT_GT(losses, sim::share(30));
}

TEST_F(PowerLoss, AtAnyOperationACancelGivesTheOldDiskBack) {
  const auto seed = sim::seed_from_environment(1);
  unsigned given_back = 0;
  for (std::uint64_t round = 0; round < sim::share(40); ++round) {
    SCOPED_TRACE(fmt::format("round {}", round));
    ASSERT_NO_FATAL_FAILURE(prepare(seed * 2000 + round, round));
    if (!crash_at(1 + sites_->random.below(120))) continue;
    expect_no_torn_disk();
    // The cancel may be struck too.
    bool had_session = false;
    for (int loss = 0; loss < 2; ++loss) {
      sites_->target.crash_at_operation(1 + sites_->random.below(40));
      const auto cancelled = transfer_->store().cancel("disk");
      if (!sites_->target.crashed()) {
        sites_->target.clear_faults();
        ASSERT_OK(cancelled);
        had_session = *cancelled;
        break;
      }
      sites_->target.restart();
      transfer_->restart_target();
      expect_no_torn_disk();
    }
    const auto last = transfer_->store().cancel("disk");
    ASSERT_OK(last);
    EXPECT_FALSE(had_session && *last);
    expect_no_leftovers(sites_->target, "disk");
    if (!old_) {
      // A disk is there only if the transfer was being finished.
      expect_no_torn_disk();
      continue;
    }
    const auto content = sites_->target.content("disk");
    if (content == *old_)
      ++given_back;
    else
      expect_no_torn_disk();
    EXPECT_TRUE(sites_->target.durable_content("disk") == content);
  }
  EXPECT_GT(given_back, sim::share(14));
}

// The link is lost, the host agent lives on with writes that no checkpoint covered; the next run believes what it
// reads, and then the power goes.
TEST_F(PowerLoss, AfterALinkLossBelievesNothingThatWasNotDurable) {
  const auto seed = sim::seed_from_environment(1);
  unsigned losses = 0;
  for (std::uint64_t round = 0; round < 30; ++round) {
    SCOPED_TRACE(fmt::format("round {}", round));
    ASSERT_NO_FATAL_FAILURE(prepare(seed * 3000 + round, round));
    transfer_->link_faults = [&](unsigned attempt, std::uint32_t) {
      SimTransfer::LinkFaults faults;
      if (attempt == 1) faults.to_target.cut_after = sites_->random.below(4 * kMiB);
      return faults;
    };
    transfer_->before_step = nullptr;  // no checkpoint by time
    if (transfer_->attempt()) continue;
    if (round % 2 == 0) transfer_->restart_source();
    losses += crash_at(10 + sites_->random.below(120)) ? 1 : 0;
    transfer_->restart_source();
    ASSERT_OK(transfer_->run());
    EXPECT_TRUE(same_disk(disk_content(sites_->target, "disk"), pattern_.content));
  }
  EXPECT_GT(losses, 4U);
}

// The target has digests of the old content. A run that overwrites some of it is struck, and the source goes back to
// what it was: what the old digests say is no longer true of the disk.
TEST_F(PowerLoss, DigestsOfWhatWasOverwrittenAreNeverBelieved) {
  const auto seed = sim::seed_from_environment(1);
  unsigned losses = 0;
  for (std::uint64_t round = 0; round < sim::share(24); ++round) {
    SCOPED_TRACE(fmt::format("round {}", round));
    ASSERT_NO_FATAL_FAILURE(prepare(seed * 4000 + round, 1 + round % 2));  // clone or undo, raw, delta
    const auto changed = pattern_;
    make_disk(sites_->source, "source", DiskFormat::raw, old_pattern_);
    ASSERT_OK(transfer_->run(1));  // leaves the digests
    transfer_->restart_source();
    make_disk(sites_->source, "source", DiskFormat::raw, changed);
    if (!crash_at(10 + sites_->random.below(60))) continue;
    ++losses;
    ASSERT_OK(recover_store(sites_->target));
    transfer_->restart_source();
    make_disk(sites_->source, "source", DiskFormat::raw, old_pattern_);
    ASSERT_OK(transfer_->run());
    EXPECT_TRUE(same_disk(disk_content(sites_->target, "disk"), old_pattern_.content));
  }
  EXPECT_GT(losses, sim::share(9));
}

}  // namespace
}  // namespace backhaul
