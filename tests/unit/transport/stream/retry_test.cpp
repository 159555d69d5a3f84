#include "transport/stream/retry.h"

#include <gtest/gtest.h>

namespace backhaul {
namespace {

using std::chrono::milliseconds;

class FixedRandom : public Random {
 public:
  explicit FixedRandom(std::uint64_t value) : value_(value) {}
  std::uint64_t next() override { return value_; }

 private:
  std::uint64_t value_;
};

TEST(BackoffTest, doubles_up_to_the_longest_delay_then_gives_up) {
  FixedRandom lowest(0);
  Backoff backoff({.first_delay = milliseconds(200), .max_delay = milliseconds(1000), .max_attempts = 5}, lowest);
  Clock::Duration delay{};
  for (const int expected : {100, 200, 400, 500, 500}) {
    ASSERT_TRUE(backoff.next(delay));
    EXPECT_EQ(delay, milliseconds(expected));
  }
  EXPECT_FALSE(backoff.next(delay));
  EXPECT_EQ(backoff.attempts(), 5U);
}

TEST(BackoffTest, jitter_stays_between_half_and_whole) {
  for (const std::uint64_t value : {0ULL, 1ULL, 99'999'999ULL, 100'000'000ULL, 123'456'789'012ULL, ~0ULL}) {
    FixedRandom random(value);
    Backoff backoff({}, random);
    Clock::Duration delay{};
    ASSERT_TRUE(backoff.next(delay));
    EXPECT_GE(delay, milliseconds(100));
    EXPECT_LE(delay, milliseconds(200));
  }
}

TEST(BackoffTest, progress_starts_again) {
  FixedRandom lowest(0);
  Backoff backoff({.max_attempts = 2}, lowest);
  Clock::Duration delay{};
  ASSERT_TRUE(backoff.next(delay) && backoff.next(delay) && !backoff.next(delay));
  backoff.progress();
  ASSERT_TRUE(backoff.next(delay));
  EXPECT_EQ(delay, milliseconds(100));
}

TEST(BackoffTest, the_defaults_span_about_half_a_minute) {
  FixedRandom highest(~0ULL);
  RetryPolicy policy;
  Clock::Duration longest{}, delay{};
  // Just above half each, by a random value of all ones modulo the spread; the whole is at most twice that.
  Backoff backoff(policy, highest);
  while (backoff.next(delay)) longest += delay;
  EXPECT_GE(longest, std::chrono::seconds(16));
  EXPECT_LE(longest, std::chrono::seconds(33));
}

TEST(BackoffTest, many_attempts_do_not_overflow) {
  FixedRandom random(7);
  Backoff backoff({.max_attempts = 200}, random);
  Clock::Duration delay{};
  while (backoff.next(delay)) EXPECT_TRUE(delay > Clock::Duration::zero() && delay <= milliseconds(10'000));
}

}  // namespace
}  // namespace backhaul
