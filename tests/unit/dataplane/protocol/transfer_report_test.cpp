// The rate and the time left of a transfer, from its own reports.
#include "dataplane/protocol/transfer_report.h"

#include <gtest/gtest.h>

namespace backhaul {
namespace {

using std::chrono::milliseconds;

struct TransferRateTest : ::testing::Test {
  TransferProgress at(milliseconds now, const std::string& phase, std::uint64_t done) {
    TransferProgress progress;
    progress.phase = phase;
    progress.bytes_total = 10'000;
    progress.bytes_done = done;
    rate.measure(progress, now);
    return progress;
  }
  TransferRate rate;
};

TEST_F(TransferRateTest, a_rate_needs_time_and_says_what_is_left) {
  at(milliseconds(1000), "transfer", 0);
  EXPECT_EQ(at(milliseconds(1100), "transfer", 500).bytes_per_s, 0) << "too short to tell";
  const auto seen = at(milliseconds(2000), "transfer", 2000);
  EXPECT_DOUBLE_EQ(seen.bytes_per_s, 2000);
  EXPECT_DOUBLE_EQ(seen.seconds_left, 4);
}

TEST_F(TransferRateTest, what_an_earlier_run_did_is_no_rate) {
  at(milliseconds(0), "connect", 0);
  at(milliseconds(1000), "transfer", 9000);
  EXPECT_DOUBLE_EQ(at(milliseconds(2000), "transfer", 9100).bytes_per_s, 100);
}

TEST_F(TransferRateTest, a_transfer_that_starts_anew_has_no_negative_rate) {
  at(milliseconds(0), "transfer", 9000);
  EXPECT_EQ(at(milliseconds(1000), "transfer", 100).bytes_per_s, 0);
  EXPECT_DOUBLE_EQ(at(milliseconds(2000), "transfer", 300).bytes_per_s, 200);
}

TEST_F(TransferRateTest, an_old_rate_is_forgotten) {
  at(milliseconds(0), "transfer", 0);
  EXPECT_DOUBLE_EQ(at(milliseconds(5000), "transfer", 5000).bytes_per_s, 1000);
  EXPECT_DOUBLE_EQ(at(milliseconds(6000), "transfer", 5010).bytes_per_s, 10);
}

TEST_F(TransferRateTest, more_than_all_leaves_nothing) {
  at(milliseconds(0), "transfer", 0);
  EXPECT_EQ(at(milliseconds(1000), "transfer", 11'000).seconds_left, 0);
}

}  // namespace
}  // namespace backhaul
