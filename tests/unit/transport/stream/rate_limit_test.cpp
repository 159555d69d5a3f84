#include "transport/stream/rate_limit.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace backhaul {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

class FakeClock : public Clock {
 public:
  Duration now() const override { return Duration(now_.load()); }
  std::int64_t unix_time_ms() const override { return 0; }
  void sleep_for(Duration duration) override { now_ += duration.count(); }

 private:
  std::atomic<std::int64_t> now_{0};
};

TEST(RateLimitTest, zero_is_no_limit) {
  FakeClock clock;
  RateLimit limit(clock, 0);
  EXPECT_TRUE(limit.unlimited());
  EXPECT_EQ(limit.charge(~0ULL), nanoseconds(0));
}

TEST(RateLimitTest, a_burst_passes_at_once_and_the_rest_at_the_rate) {
  FakeClock clock;
  RateLimit limit(clock, 1000, 500);
  EXPECT_EQ(limit.charge(300), nanoseconds(0));
  EXPECT_EQ(limit.charge(200), nanoseconds(0));
  EXPECT_EQ(limit.charge(100), nanoseconds(0)) << "the bucket is empty, not in debt";
  EXPECT_EQ(limit.charge(100), milliseconds(100));
  EXPECT_EQ(limit.charge(100), milliseconds(200));
}

TEST(RateLimitTest, a_frame_larger_than_the_bucket_passes_and_is_paid_afterwards) {
  FakeClock clock;
  RateLimit limit(clock, 1000, 100);
  EXPECT_EQ(limit.charge(5100), nanoseconds(0));
  EXPECT_EQ(limit.charge(1), seconds(5));
}

TEST(RateLimitTest, idle_time_gives_no_more_than_a_burst) {
  FakeClock clock;
  RateLimit limit(clock, 1000, 100);
  clock.sleep_for(seconds(1000));
  limit.charge(100);
  EXPECT_EQ(limit.charge(1000), nanoseconds(0));
  EXPECT_EQ(limit.charge(1), seconds(1));
}

TEST(RateLimitTest, an_obedient_sender_gets_the_rate) {
  FakeClock clock;
  constexpr std::uint64_t kRate = 10'000'000;
  RateLimit limit(clock, kRate);
  std::uint64_t sent = 0;
  while (clock.now() < seconds(10)) {
    clock.sleep_for(limit.charge(32'768));
    sent += 32'768;
  }
  EXPECT_GE(sent, 10 * kRate);
  EXPECT_LE(sent, 10 * kRate + 1024 * 1024 + 2 * 32'768) << "more than the rate and one burst";
}

TEST(RateLimitTest, huge_charges_do_not_overflow) {
  FakeClock clock;
  RateLimit limit(clock, 1);
  for (int i = 0; i < 10; ++i) EXPECT_GE(limit.charge(~0ULL), nanoseconds(0));
  EXPECT_GT(limit.charge(1), seconds(1'000'000));
}

TEST(RateLimitTest, lanes_share_it_and_no_charge_is_lost) {
  FakeClock clock;
  RateLimit limit(clock, 1'000'000'000, 1);
  std::vector<std::thread> lanes;
  for (int i = 0; i < 4; ++i)
    lanes.emplace_back([&] {
      for (int j = 0; j < 10'000; ++j) limit.charge(100);
    });
  for (auto& lane : lanes) lane.join();
  EXPECT_EQ(limit.charge(0), nanoseconds(4 * 10'000 * 100 - 1));
}

}  // namespace
}  // namespace backhaul
