#include "control/jobs/estimate.h"

#include <gtest/gtest.h>

namespace backhaul {
namespace {

TEST(Estimate, DowntimeGrowsWithTheNextDeltaAndWithWhatWasMeasured) {
  Item item;
  const double assumed = projected_downtime(item, 0).sum();
  EXPECT_DOUBLE_EQ(assumed, kAssumedDowntime.sum());
  EXPECT_DOUBLE_EQ(projected_downtime(item, 500'000'000).sum(), assumed + 5);
  item.bytes_per_s = 50e6;
  // The round took 12 s, 10 of them for its bytes at this rate.
  learn_downtime(item, {.shutdown = 4, .delta = 12, .verify = 0.5, .swap = 0.25, .wait = 100, .start = 1, .boot = 6},
                 500'000'000, true);
  const auto projected = projected_downtime(item, 250'000'000);
  EXPECT_DOUBLE_EQ(projected.delta, 2 + 5);
  EXPECT_DOUBLE_EQ(projected.wait, 0) << "a plan's gates are not foreseen";
  EXPECT_DOUBLE_EQ(projected.sum(), 4 + 7 + 0.5 + 0.25 + 1 + 6);
}

TEST(Estimate, ADriverThatCannotTellTheFirstWriteLeavesTheBootAsItWasKnown) {
  Item item;
  const DowntimeParts measured{.shutdown = 2, .delta = 1, .verify = 0, .swap = 1, .wait = 0, .start = 1, .boot = 0};
  learn_downtime(item, measured, 0, false);
  EXPECT_DOUBLE_EQ(projected_downtime(item, 0).boot, kAssumedDowntime.boot);
  EXPECT_DOUBLE_EQ(projected_downtime(item, 0).shutdown, 2);
  auto seen = measured;
  seen.boot = 7;
  learn_downtime(item, seen, 0, true);
  learn_downtime(item, measured, 0, false);
  EXPECT_DOUBLE_EQ(projected_downtime(item, 0).boot, 7);
}

TEST(Estimate, AdvisesTheFullDownloadOnlyWhenItIsFasterOrThereIsNothingToCompareWith) {
  Item item;
  item.bytes_per_s = 1e8;
  const std::uint64_t allocated = 100'000'000'000;
  // Reading both disks takes 100 s, sending everything 1000 s.
  Estimate few = estimate(item, {{allocated, 0.01, 1e9, true}});
  EXPECT_FALSE(few.advise_for_synchronization) << few.reason;
  EXPECT_EQ(few.bytes, allocated / 100);
  EXPECT_NEAR(few.seconds, 110, 0.1);
  Estimate most = estimate(item, {{allocated, 0.95, 1e9, true}});
  EXPECT_TRUE(most.advise_for_synchronization);
  Estimate gone = estimate(item, {{allocated, 0, 1e9, true}, {1, 0, 1e9, false}});
  EXPECT_TRUE(gone.advise_for_synchronization);
  EXPECT_NE(gone.reason.find("gone"), std::string::npos);
  EXPECT_FALSE(estimate(item, {}).reason.empty());
}

TEST(Estimate, ThePolicySaysWhenFailoverCompletesByItself) {
  EXPECT_FALSE(completes_now({}, 0, 1000));
  CompletePolicy policy{CompleteMode::automatic, 10};
  EXPECT_TRUE(completes_now(policy, 10, 0));
  EXPECT_FALSE(completes_now(policy, 10.1, 0));
  policy = {CompleteMode::scheduled, 0, 500};
  EXPECT_FALSE(completes_now(policy, 0, 499));
  EXPECT_TRUE(completes_now(policy, 1e9, 500));
  policy = {CompleteMode::window, 10, 0, 100, 200};
  EXPECT_FALSE(completes_now(policy, 5, 99));
  EXPECT_TRUE(completes_now(policy, 5, 100));
  EXPECT_FALSE(completes_now(policy, 11, 150));
  EXPECT_FALSE(completes_now(policy, 5, 200));
}

}  // namespace
}  // namespace backhaul
