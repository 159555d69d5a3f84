// Sessions of one disk: who holds it, who is sent away, and what a finish asks for.
#include "dataplane/target/target_store.h"

#include <gtest/gtest.h>

#include <thread>

#include "unit/dataplane/transfer_fixture.h"

namespace backhaul {
namespace {

using namespace testing;
using std::chrono::milliseconds;

constexpr std::uint64_t kSessionDiskSize = kExtentSize + 700;

OpenRequest request_of(std::uint64_t epoch = 0, std::string disk = "disk") {
  OpenRequest request;
  request.disk = std::move(disk);
  request.size = kSessionDiskSize;
  request.epoch = epoch;
  return request;
}

template <class Value>
void expect_error(const Result<Value>& result, EngineErrc code) {
  ASSERT_TRUE(result.has_error());
  EXPECT_EQ(result.error(), make_error_code(code)) << result.error().to_string();
}

class TargetStoreTest : public ::testing::Test {
 protected:
  Result<SessionUse> open(const OpenRequest& request) { return store_.open(request, milliseconds(0), opened_); }
  // All zero, as a source of holes has it: every extent is acknowledged as such.
  void acknowledge_all(TargetSession& session) { ASSERT_OK(session.index().store_zero_run(0, 2)); }

  TwoSites sites_{1};
  SimRandom random_{2};
  TargetStore store_{sites_.target, sim::sim_parts(sites_.target, sites_.clock, random_)};
  OpenedSession opened_;
};

TEST_F(TargetStoreTest, TheFirstRunGetsEpochOneAndEachLaterOneAHigherEpoch) {
  for (std::uint64_t epoch = 1; epoch < 4; ++epoch) {
    const auto use = open(request_of());
    ASSERT_OK(use);
    EXPECT_EQ(opened_.epoch, epoch);
    EXPECT_EQ(opened_.resumed, epoch > 1);
  }
}

TEST_F(TargetStoreTest, ALiveRunIsLeftAloneByOneWithoutAnEpoch) {
  auto first = open(request_of());
  ASSERT_OK(first);
  expect_error(open(request_of()), EngineErrc::session_busy);
  EXPECT_FALSE((*first)->revoked());
  EXPECT_OK(store_.join(opened_.session, opened_.epoch));
}

TEST_F(TargetStoreTest, AnOlderEpochIsFencedAndTheLiveRunGoesOn) {
  {
    auto first = open(request_of(7));
    ASSERT_OK(first);
    EXPECT_EQ(opened_.epoch, 7U);
    expect_error(open(request_of(6)), EngineErrc::session_fenced);
    EXPECT_FALSE((*first)->revoked());
  }
  expect_error(open(request_of(6)), EngineErrc::session_fenced);
}

TEST_F(TargetStoreTest, TheSameOrAHigherEpochTakesOverWhenTheOldRunHasGone) {
  for (const std::uint64_t epoch : {7, 7, 9}) {
    const auto use = open(request_of(epoch));
    ASSERT_OK(use);
    EXPECT_GE(opened_.epoch, epoch);
  }
}

TEST_F(TargetStoreTest, ATakeOverRevokesTheLiveRunAndWaitsUntilItHasGone) {
  auto first = open(request_of(7));
  ASSERT_OK(first);
  const auto old = opened_;
  std::thread lane([use = std::move(*first)]() mutable {
    while (!use->revoked()) std::this_thread::yield();
    EXPECT_EQ(use->revoked_error(), make_error_code(EngineErrc::session_fenced));
    auto gone = std::move(use);
  });
  const auto second = open(request_of(8));
  lane.join();
  ASSERT_OK(second);
  EXPECT_TRUE(opened_.resumed);
  expect_error(store_.join(old.session, old.epoch), EngineErrc::session_unknown);
}

TEST_F(TargetStoreTest, ALaneJoinsByNameAndEpoch) {
  const auto use = open(request_of());
  ASSERT_OK(use);
  EXPECT_OK(store_.join(opened_.session, opened_.epoch));
  expect_error(store_.join("no such", opened_.epoch), EngineErrc::session_unknown);
  expect_error(store_.join(opened_.session, opened_.epoch + 1), EngineErrc::session_fenced);
  expect_error(store_.join(opened_.session, opened_.epoch - 1), EngineErrc::session_fenced);
}

TEST_F(TargetStoreTest, AFinishIsRefusedWhileSomethingWasNeverAcknowledged) {
  for (const bool swap : {false, true}) {
    auto use = open(request_of());
    ASSERT_OK(use);
    ASSERT_OK((*use)->index().store_zero_run(0, 1));
    expect_error(store_.finish(**use, {"", swap}, nullptr), EngineErrc::session_incomplete);
    EXPECT_EQ(sites_.target.kind("disk").value(), Storage::Kind::none);
    ASSERT_OK(store_.cancel("other"));
  }
}

TEST_F(TargetStoreTest, AFinishWithAnotherRootIsRefusedAndSwapsNothing) {
  auto use = open(request_of());
  ASSERT_OK(use);
  acknowledge_all(**use);
  expect_error(store_.finish(**use, {std::string(64, 'a'), true}, nullptr), EngineErrc::root_mismatch);
  EXPECT_EQ(sites_.target.kind("disk").value(), Storage::Kind::none);
  // The right one is taken.
  const auto root = root_of(Content(kSessionDiskSize));
  const auto finished = store_.finish(**use, {root, true}, nullptr);
  ASSERT_OK(finished);
  EXPECT_EQ(finished->root_digest, root);
  EXPECT_EQ(sites_.target.content("disk").size(), kSessionDiskSize);
  expect_error(store_.join(opened_.session, opened_.epoch), EngineErrc::session_unknown);
}

TEST_F(TargetStoreTest, NoLaneJoinsWhileTheDiskIsVerified) {
  auto request = request_of();
  request.verify = VerifyMode::full;
  auto use = open(request);
  ASSERT_OK(use);
  acknowledge_all(**use);
  bool tried = false;
  const auto step = [&](std::string_view, double) -> Result<void> {
    tried = true;
    expect_error(store_.join(opened_.session, opened_.epoch), EngineErrc::session_busy);
    return {};
  };
  ASSERT_OK(store_.finish(**use, {"", false}, step));
  EXPECT_TRUE(tried);
  EXPECT_OK(store_.join(opened_.session, opened_.epoch));
}

TEST_F(TargetStoreTest, AnErrorOfTheListenerStopsAFinish) {
  auto use = open(request_of());
  ASSERT_OK(use);
  acknowledge_all(**use);
  const auto lost = [](std::string_view, double) -> Result<void> { return make_error(BaseErrc::cancelled); };
  EXPECT_EQ(store_.finish(**use, {"", true}, lost).error(), make_error_code(BaseErrc::cancelled));
  EXPECT_EQ(sites_.target.kind("disk").value(), Storage::Kind::none);
}

TEST_F(TargetStoreTest, ChangedExtentsDoNotCompleteADiskThatWasNeverWhole) {
  {
    const auto use = open(request_of());
    ASSERT_OK(use);
    ASSERT_OK(store_.join(opened_.session, opened_.epoch));
  }
  auto changed = request_of();
  changed.changed_only = true;
  expect_error(open(changed), EngineErrc::session_mismatch);
  {
    auto use = open(request_of());
    ASSERT_OK(use);
    acknowledge_all(**use);
    ASSERT_OK(store_.finish(**use, {"", false}, nullptr));
  }
  EXPECT_OK(open(changed));  // the round made it whole
  EXPECT_OK(open(changed));  // and it stays so, for the next list has to name what this one did
  {
    auto use = open(request_of());
    ASSERT_OK(use);
    ASSERT_OK(store_.join(opened_.session, opened_.epoch));
  }
  expect_error(open(changed), EngineErrc::session_mismatch);
}

TEST_F(TargetStoreTest, ACancelSendsTheLiveRunAwayAndIsNothingWhenThereIsNone) {
  EXPECT_FALSE(store_.cancel("disk").value());
  auto use = open(request_of());
  ASSERT_OK(use);
  std::thread lane([held = std::move(*use)]() mutable {
    while (!held->revoked()) std::this_thread::yield();
    EXPECT_EQ(held->revoked_error(), make_error_code(EngineErrc::session_cancelled));
    auto gone = std::move(held);
  });
  const auto cancelled = store_.cancel("disk");
  lane.join();
  ASSERT_OK(cancelled);
  EXPECT_TRUE(*cancelled);
  EXPECT_FALSE(store_.cancel("disk").value());
  EXPECT_EQ(sites_.target.list("").value(), std::vector<std::string>{".disk.last"});
  EXPECT_TRUE(store_.cancel("../disk").has_error());
}

TEST_F(TargetStoreTest, DisksDoNotStandInEachOthersWay) {
  const auto first = open(request_of());
  ASSERT_OK(first);
  OpenedSession other;
  const auto second = store_.open(request_of(0, "vms/disk"), milliseconds(0), other);
  ASSERT_OK(second);
  EXPECT_NE(other.session, opened_.session);
  EXPECT_OK(store_.join(opened_.session, opened_.epoch));
  EXPECT_OK(store_.join(other.session, other.epoch));
}

// Runs of one disk open, join, finish and cancel at once: no two live ones, no deadlock, no data race (tsan).
TEST_F(TargetStoreTest, RunsFromManyThreadsTakeTurns) {
  std::atomic<int> holders{0}, opens{0}, finished{0};
  std::atomic<std::uint64_t> seeds{1};
  const auto run = [&] {
    SimRandom random(seeds.fetch_add(1));
    for (int i = 0; i < 25; ++i) {
      OpenedSession opened;
      auto request = request_of(random.one_in(3) ? 1 + random.below(60) : 0);
      if (random.one_in(6)) {
        EXPECT_OK(store_.cancel("disk"));
        continue;
      }
      auto use = store_.open(request, milliseconds(random.below(3)), opened);
      if (!use) {
        const auto symbol = use.error().symbol();
        EXPECT_TRUE(symbol == "session.busy" || symbol == "session.fenced" || symbol == "session.cancelled") << symbol;
        continue;
      }
      ++opens;
      EXPECT_EQ(holders.fetch_add(1), 0);
      {
        auto lane = store_.join(opened.session, opened.epoch);
        if (lane && !(*lane)->revoked()) EXPECT_OK((*lane)->index().store_zero_run(0, 2));
      }
      --holders;  // a finish that swaps frees the disk for the next run
      if (random.one_in(3)) finished += store_.finish(**use, {"", random.one_in(2)}, nullptr).has_value() ? 1 : 0;
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back(run);
  for (auto& thread : threads) thread.join();
  EXPECT_GT(opens, 0);
  EXPECT_OK(store_.cancel("disk"));
  EXPECT_EQ(sites_.target.kind(".disk.backhaul").value(), Storage::Kind::none);
}

}  // namespace
}  // namespace backhaul
