// A cancel, or a run that takes over, comes just when the live run wants to finish: neither may wait for the other.
#include <gtest/gtest.h>

#include <thread>

#include "base/world.h"
#include "dataplane/target/target_store.h"
#include "sim/sim_random.h"
#include "sim/sim_storage.h"

namespace backhaul {
namespace {

class TargetSessionCancelTest : public ::testing::Test {
 protected:
  TargetSessionCancelTest()
      : store_(storage_,
               DataplaneParts{[this] { return Result<std::unique_ptr<IoQueue>>(storage_.make_queue()); },
                              [] { return make_block_hasher(HashKernel::one_buffer); }, &system_clock(), &random_}) {
    request_.disk = "disk";
    request_.size = 4096;
    request_.sync = SyncMode::full;
  }

  Result<SessionUse> open(std::uint64_t epoch = 0) {
    request_.epoch = epoch;
    return store_.open(request_, std::chrono::milliseconds(0), opened_);
  }

  sim::SimStorage storage_;
  sim::SimRandom random_{1};
  TargetStore store_;
  OpenRequest request_;
  OpenedSession opened_;
};

TEST_F(TargetSessionCancelTest, AFinishGivesWayToACancelThatWaitsForIt) {
  auto use = open();
  ASSERT_TRUE(use);
  std::optional<SessionUse> finisher(std::move(*use));
  Result<bool> cancelled = false;
  std::thread canceller([&] { cancelled = store_.cancel("disk"); });
  while (!(*finisher)->revoked()) std::this_thread::yield();
  const auto finished = store_.finish(**finisher, {}, nullptr);
  ASSERT_FALSE(finished);
  EXPECT_EQ(finished.error(), make_error_code(EngineErrc::session_cancelled));
  finisher.reset();
  canceller.join();
  ASSERT_TRUE(cancelled);
  EXPECT_TRUE(*cancelled);
}

TEST_F(TargetSessionCancelTest, AFinishGivesWayToARunThatTakesOver) {
  auto use = open();
  ASSERT_TRUE(use);
  std::optional<SessionUse> finisher(std::move(*use));
  bool taken = false;
  std::thread newer([&] { taken = open(5).has_value(); });
  while (!(*finisher)->revoked()) std::this_thread::yield();
  const auto finished = store_.finish(**finisher, {}, nullptr);
  ASSERT_FALSE(finished);
  EXPECT_EQ(finished.error(), make_error_code(EngineErrc::session_fenced));
  finisher.reset();
  newer.join();
  EXPECT_TRUE(taken);
}

TEST_F(TargetSessionCancelTest, ARunGoesOnWithItsOwnTransferOnly) {
  ASSERT_TRUE(open());
  const auto first = opened_.transfer;
  EXPECT_NE(first, 0U);
  request_.transfer = first;
  ASSERT_TRUE(open(opened_.epoch));
  EXPECT_EQ(opened_.transfer, first);

  ASSERT_TRUE(store_.cancel("disk").value());
  const auto gone = open(opened_.epoch);
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error(), make_error_code(EngineErrc::session_cancelled));
  EXPECT_EQ(storage_.list("").value(), std::vector<std::string>{".disk.last"});

  request_.transfer = 0;
  const auto older = open(opened_.epoch);  // nor does it begin anew under its number
  ASSERT_FALSE(older);
  EXPECT_EQ(older.error(), make_error_code(EngineErrc::session_fenced));
  ASSERT_TRUE(open());
  request_.transfer = first;
  const auto other = open(9);
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error(), make_error_code(EngineErrc::session_fenced));
}

}  // namespace
}  // namespace backhaul
