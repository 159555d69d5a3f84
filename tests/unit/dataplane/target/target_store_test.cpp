// What is remembered of a transfer that ended, and the verbs swap, release, cancel and query between them.
#include <gtest/gtest.h>

#include <thread>

#include "unit/dataplane/transfer_fixture.h"

namespace backhaul {
namespace {

using namespace testing;
using std::chrono::milliseconds;

constexpr std::uint64_t kStoreDiskSize = kExtentSize + 700;

template <class Value>
void expect_refused(const Result<Value>& result, EngineErrc code) {
  ASSERT_TRUE(result.has_error());
  EXPECT_EQ(result.error(), make_error_code(code)) << result.error().to_string();
}

class TargetVerbs : public ::testing::Test {
 protected:
  OpenRequest request_of(std::uint64_t epoch = 0, std::uint64_t transfer = 0) {
    OpenRequest request;
    request.disk = "disk";
    request.size = kStoreDiskSize;
    request.epoch = epoch;
    request.transfer = transfer;
    return request;
  }
  Result<SessionUse> open(const OpenRequest& request) { return store_->open(request, milliseconds(0), opened_); }
  // A whole run of a disk of zeros.
  void run_round(std::uint64_t epoch, bool swap = false) {
    auto use = open(request_of(epoch));
    ASSERT_OK(use);
    ASSERT_OK((*use)->disk().file().write_at(0, Content(kStoreDiskSize)));
    ASSERT_OK((*use)->index().store_zero_run(0, 2));
    const auto finished = store_->finish(**use, {"", swap}, nullptr);
    ASSERT_OK(finished);
    root_ = finished->root_digest;
  }
  void make_old_disk() {
    make_disk(sites_.target, "disk", DiskFormat::raw, random_pattern(sites_.random, kStoreDiskSize));
    old_ = sites_.target.content("disk");
  }
  TargetStatus status() {
    const auto found = store_->query("disk");
    EXPECT_OK(found);
    return found ? *found : TargetStatus{};
  }
  // The host agent is started again.
  void restart() {
    store_ = std::make_unique<TargetStore>(sites_.target, sim::sim_parts(sites_.target, sites_.clock, random_));
  }
  void write_to_disk() {
    auto file = sites_.target.open("disk", OpenMode::write);
    ASSERT_OK(file);
    ASSERT_OK((*file)->write_at(5, Content(10, std::byte{1})));
  }

  TwoSites sites_{1};
  SimRandom random_{2};
  std::unique_ptr<TargetStore> store_ =
      std::make_unique<TargetStore>(sites_.target, sim::sim_parts(sites_.target, sites_.clock, random_));
  OpenedSession opened_;
  std::string root_;
  Content old_;
};

TEST_F(TargetVerbs, WhatWasDeliveredIsKnownByItsRootAlsoWhenTheDiskHasChangedSince) {
  make_old_disk();
  run_round(7);
  EXPECT_EQ(status().root_digest, "") << "staged";
  ASSERT_OK(store_->swap("disk", 8));
  EXPECT_EQ(status().root_digest, root_);
  sites_.clock.sleep_for(milliseconds(100));
  write_to_disk();
  EXPECT_EQ(status().root_digest, "") << "somebody has written to it";
  const auto delivered = [&](const std::string& root) {
    const auto found = store_->delivered_digests("disk", root);
    EXPECT_OK(found);
    return found && *found ? to_hex(root_of(**found)) : std::string();
  };
  EXPECT_EQ(delivered(root_), "") << "not before the old disk is released";
  ASSERT_OK(store_->release("disk", 9));
  restart();
  EXPECT_EQ(delivered(root_), root_);
  EXPECT_EQ(delivered(std::string(64, '0')), "");
  ASSERT_OK(open(request_of(10)));
  EXPECT_EQ(delivered(root_), "") << "another transfer has begun";
}

TEST_F(TargetVerbs, ARunThatAsksForTheTransferItFinishedHearsSoAndOpensNothing) {
  run_round(7, true);
  const auto mine = opened_;
  for (int restarted = 0; restarted < 2; ++restarted) {
    const auto again = open(request_of(7, mine.transfer));
    ASSERT_OK(again);
    EXPECT_FALSE(*again);
    EXPECT_TRUE(opened_.finished);
    EXPECT_EQ(opened_.root_digest, root_);
    EXPECT_EQ(opened_.transfer, mine.transfer);
    EXPECT_EQ(opened_.epoch, 7U);
    EXPECT_EQ(opened_.size, kStoreDiskSize);
    EXPECT_EQ(opened_.staging, StagingKind::fresh);
    EXPECT_EQ(sites_.target.kind(".disk.backhaul").value(), Storage::Kind::none);
    restart();
  }
  EXPECT_FALSE(store_->cancel("disk").value());  // nothing to undo
  EXPECT_EQ(sites_.target.content("disk").size(), kStoreDiskSize);
  // Another run of that transfer did not finish it, and says nothing of its content.
  expect_refused(open(request_of(6, mine.transfer)), EngineErrc::session_fenced);
}

TEST_F(TargetVerbs, TheEpochOutlivesTheTransferHoweverItEnded) {
  run_round(7, true);
  for (const std::uint64_t epoch : {1, 6, 7}) expect_refused(open(request_of(epoch)), EngineErrc::session_fenced);
  run_round(8);
  EXPECT_EQ(opened_.epoch, 8U);
  ASSERT_OK(store_->cancel("disk", 20));
  EXPECT_EQ(status().epoch, 20U);
  for (const std::uint64_t epoch : {8, 20}) expect_refused(open(request_of(epoch)), EngineErrc::session_fenced);
  ASSERT_OK(open(request_of()));
  EXPECT_EQ(opened_.epoch, 21U);
}

TEST_F(TargetVerbs, ACancelThatFindsNothingStillFencesOlderRuns) {
  EXPECT_FALSE(store_->cancel("disk", 5).value());
  EXPECT_FALSE(store_->cancel("disk", 5).value());
  expect_refused(store_->cancel("disk", 4), EngineErrc::session_fenced);
  expect_refused(open(request_of(5)), EngineErrc::session_fenced);
  EXPECT_EQ(status().state, TargetState::absent);
  EXPECT_OK(open(request_of(6)));
}

TEST_F(TargetVerbs, ACancelOfALowerEpochLeavesTheLiveRunAlone) {
  const auto use = open(request_of(7));
  ASSERT_OK(use);
  for (const std::uint64_t epoch : {6, 7}) {
    expect_refused(store_->cancel("disk", epoch), EngineErrc::session_fenced);
    expect_refused(store_->swap("disk", epoch), EngineErrc::session_fenced);
  }
  EXPECT_OK(store_->join(opened_.session, opened_.epoch));
}

TEST_F(TargetVerbs, WhatIsLeftOfTheMemoryDoesNoHarm) {
  run_round(7, true);
  const auto mine = opened_.transfer;
  {
    auto leftover = sites_.target.create(".disk.last.new");
    ASSERT_OK(leftover);
    ASSERT_OK((*leftover)->write_at(0, Content(10, std::byte{1})));
  }
  ASSERT_OK(store_->cancel("disk", 9));
  EXPECT_EQ(status().epoch, 9U);
  EXPECT_EQ(sites_.target.kind(".disk.last.new").value(), Storage::Kind::none);
  {
    auto last = sites_.target.open(".disk.last", OpenMode::write);
    ASSERT_OK(last);
    ASSERT_OK((*last)->write_at(0, Content((*last)->size(), std::byte{7})));
  }
  EXPECT_EQ(status().epoch, 0U);
  expect_refused(open(request_of(7, mine)), EngineErrc::session_cancelled);
  run_round(1, true);
  EXPECT_EQ(status().epoch, 1U);
  ASSERT_OK(sites_.target.remove(".disk.last"));
  run_round(1);
}

TEST_F(TargetVerbs, ADiskStandsWhereItsVerbsPutIt) {
  EXPECT_EQ(status().state, TargetState::absent);
  make_old_disk();
  EXPECT_EQ(status().state, TargetState::plain);
  EXPECT_EQ(status().size, kStoreDiskSize);
  expect_refused(store_->swap("disk", 1), EngineErrc::session_not_staged);
  {
    const auto use = open(request_of(2));
    ASSERT_OK(use);
    EXPECT_EQ(status().state, TargetState::staged);
    EXPECT_EQ(status().epoch, 2U);
    EXPECT_FALSE(status().whole);
    expect_refused(store_->swap("disk", 0), EngineErrc::session_busy);
    expect_refused(store_->release("disk", 3), EngineErrc::session_incomplete);
  }
  expect_refused(store_->swap("disk", 3), EngineErrc::session_incomplete);
  run_round(4);
  EXPECT_TRUE(status().whole);
  ASSERT_OK(store_->swap("disk", 5));
  EXPECT_EQ(status().state, TargetState::swapped);
  EXPECT_EQ(status().epoch, 5U);
  EXPECT_TRUE(sites_.target.content("disk") == Content(kStoreDiskSize));
  expect_refused(open(request_of(6)), EngineErrc::session_kept);
  expect_refused(open(request_of(5)), EngineErrc::session_kept);
  expect_refused(open(request_of(4)), EngineErrc::session_fenced);
  ASSERT_OK(store_->release("disk", 6));
  EXPECT_EQ(status().state, TargetState::plain);
  EXPECT_EQ(status().epoch, 6U);
  expect_no_leftovers(sites_.target, "disk");
}

TEST_F(TargetVerbs, TwiceIsOnceAndAnOlderEpochIsRefused) {
  make_old_disk();
  run_round(1);
  for (const std::uint64_t epoch : {2, 2, 3, 0}) {
    ASSERT_OK(store_->swap("disk", epoch));
    restart();
  }
  expect_refused(store_->swap("disk", 2), EngineErrc::session_fenced);
  expect_refused(store_->release("disk", 3), EngineErrc::session_fenced);
  for (const std::uint64_t epoch : {4, 4, 5, 0}) {
    ASSERT_OK(store_->release("disk", epoch));
    restart();
  }
  expect_refused(store_->release("disk", 4), EngineErrc::session_fenced);
  EXPECT_FALSE(store_->cancel("disk", 6).value());
  EXPECT_TRUE(sites_.target.content("disk") == Content(kStoreDiskSize));
}

TEST_F(TargetVerbs, ACancelAfterTheSwapGivesTheOldDiskBack) {
  for (const auto staging : {StagingChoice::clone, StagingChoice::undo})
    for (const bool written : {false, true}) {
      make_old_disk();
      auto request = request_of();
      request.staging = staging;
      {
        auto use = open(request);
        ASSERT_OK(use);
        ASSERT_OK((*use)->disk().file().write_at(0, Content(kStoreDiskSize)));
        ASSERT_OK((*use)->index().store_zero_run(0, 2));
        ASSERT_OK(store_->finish(**use, {"", false}, nullptr));
      }
      ASSERT_OK(store_->swap("disk", 0));
      EXPECT_TRUE(sites_.target.content("disk") == Content(kStoreDiskSize));
      if (written) write_to_disk();
      const auto cancelled = store_->cancel("disk");
      if (written && staging == StagingChoice::undo) {
        // The log does not know what was there before: better a whole new disk than a mixed one.
        expect_refused(cancelled, EngineErrc::session_kept_changed);
        EXPECT_EQ(status().state, TargetState::swapped);
        ASSERT_OK(store_->release("disk", 0));
        continue;
      }
      ASSERT_OK(cancelled);
      EXPECT_TRUE(*cancelled);
      EXPECT_TRUE(sites_.target.content("disk") == old_);
      expect_no_leftovers(sites_.target, "disk");
    }
}

TEST_F(TargetVerbs, ASwapOfADiskThatWasNotThereLeavesNoneWhenItIsCancelled) {
  run_round(1);
  ASSERT_OK(store_->swap("disk", 2));
  EXPECT_EQ(sites_.target.kind("disk").value(), Storage::Kind::file);
  EXPECT_TRUE(store_->cancel("disk", 3).value());
  EXPECT_EQ(sites_.target.kind("disk").value(), Storage::Kind::none);
  EXPECT_FALSE(store_->cancel("disk", 3).value());
}

TEST_F(TargetVerbs, TheDigestsOfAReleasedDiskAreBelievedUnlessSomeoneWroteToIt) {
  for (const bool written : {false, true}) {
    run_round(0);
    ASSERT_OK(store_->swap("disk", 0));
    if (written) write_to_disk();
    ASSERT_OK(store_->release("disk", 0));
    auto use = open(request_of());
    ASSERT_OK(use);
    EXPECT_EQ((*use)->index().state(1), written ? ExtentState::unknown : ExtentState::zero);
    { const auto gone = std::move(*use); }
    ASSERT_OK(store_->cancel("disk"));
    ASSERT_OK(sites_.target.remove("disk"));
  }
}

TEST_F(TargetVerbs, ALaneThatWritesAfterTheRoundTakesTheRoundBack) {
  make_old_disk();
  for (const bool changed_only : {false, true}) {
    auto request = request_of();
    request.changed_only = changed_only;
    auto use = open(request);
    ASSERT_OK(use);
    ASSERT_OK((*use)->index().store_zero_run(0, 2));
    ASSERT_OK(store_->finish(**use, {"", false}, nullptr));
    EXPECT_TRUE(status().whole);
    ASSERT_OK(store_->join(opened_.session, opened_.epoch));
    EXPECT_FALSE(status().whole);
    { const auto gone = std::move(*use); }
    expect_refused(store_->swap("disk", 0), EngineErrc::session_incomplete);
    EXPECT_EQ(recorded_session(sites_.target, DiskPaths::of("disk").value()).value()->whole, changed_only);
    run_round(0);
  }
}

TEST_F(TargetVerbs, ASwapSendsARunOfALowerEpochAway) {
  run_round(1);
  auto use = open(request_of(2));
  ASSERT_OK(use);
  std::thread lane([held = std::move(*use)]() mutable {
    while (!held->revoked()) std::this_thread::yield();
    EXPECT_EQ(held->revoked_error(), make_error_code(EngineErrc::session_fenced));
    auto gone = std::move(held);
  });
  const auto swapped = store_->swap("disk", 3);
  lane.join();
  expect_refused(swapped, EngineErrc::session_incomplete);  // its round never ended
}

// Rounds of one transfer: every one continues the staged disk under its epoch, whole or by a list of changes.
TEST(Rounds, EachContinuesTheStagedDiskUnderAHigherEpoch) {
  const auto seed = sim::seed_from_environment(1);
  for (const auto way : {StagingChoice::automatic, StagingChoice::clone, StagingChoice::undo})
    for (const bool by_list : {false, true}) {
      SCOPED_TRACE(std::string(to_string(way)) + (by_list ? " by list" : ""));
      TwoSites sites(seed * 10 + (by_list ? 1 : 0));
      auto pattern = random_pattern(sites.random, 2 * kExtentSize + 700);
      if (way != StagingChoice::automatic)
        make_disk(sites.target, "disk", DiskFormat::vhdx, random_pattern(sites.random, 2 * kExtentSize + 1024));
      make_disk(sites.source, "source", DiskFormat::raw, pattern);
      SimTransferOptions options;
      options.request.disk = "disk";
      options.request.staging = way;
      options.swap = false;
      options.lanes = 2;
      std::uint64_t transfer = 0;
      Content before(pattern.content.size());
      for (std::uint64_t round = 1; round <= 4; ++round) {
        options.request.epoch = round * 100;
        options.seed = sites.random.next();
        auto run = sites.transfer(options);
        run.link_faults = [&](unsigned attempt, std::uint32_t) {  // a retry takes an epoch between the rounds'
          SimTransfer::LinkFaults faults;
          if (attempt == 1 && round % 2 == 0) faults.to_target.cut_after = 100;
          return faults;
        };
        const auto ended = run.run(3);
        ASSERT_OK(ended);
        EXPECT_EQ(run.opened().resumed, round > 1);
        EXPECT_GE(run.opened().epoch, round * 100);
        if (round == 1) transfer = run.opened().transfer;
        EXPECT_EQ(run.opened().transfer, transfer);
        if (round > 1) {
          // What a cut link lost is counted twice.
          EXPECT_LE(run.counters().blocks_changed, run.attempts() * blocks_that_differ(before, pattern.content));
        }
        const auto status = run.store().query("disk");
        ASSERT_OK(status);
        EXPECT_EQ(status->state, TargetState::staged);
        EXPECT_TRUE(status->whole);
        before = pattern.content;
        const auto touched = change_some(sites.random, pattern, 3);
        if (by_list) options.changed = touched;
        make_disk(sites.source, "source", DiskFormat::raw, pattern);
      }
      TargetStore store(sites.target, sim::sim_parts(sites.target, sites.clock, sites.random));
      ASSERT_OK(store.swap("disk", 500));
      EXPECT_TRUE(same_disk(disk_content(sites.target, "disk"), before));
      ASSERT_OK(store.release("disk", 501));
      expect_no_leftovers(sites.target, "disk");
      // The next transfer finds the digests.
      options.request.epoch = 600;
      options.changed.reset();
      options.swap = true;
      auto next = sites.transfer(options);
      ASSERT_OK(next.run(1));
      EXPECT_FALSE(next.opened().resumed);
      EXPECT_EQ(next.counters().blocks_changed, blocks_that_differ(before, pattern.content));
      EXPECT_TRUE(same_disk(disk_content(sites.target, "disk"), pattern.content));
    }
}

}  // namespace
}  // namespace backhaul
