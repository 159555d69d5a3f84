#include "transport/stream/link_gauge.h"

#include <gtest/gtest.h>

namespace backhaul {
namespace {

using std::chrono::milliseconds;

// 100 ms of a link that is always full and moves `bytes_per_ms`.
void fill(LinkGauge& gauge, std::uint64_t bytes_per_ms) {
  for (std::uint64_t ms = 0; ms <= 100; ++ms) gauge.pushed(milliseconds(ms), ms * bytes_per_ms, true);
}

TEST(LinkGauge, a_link_that_never_blocks_does_not_call_for_compression) {
  LinkGauge gauge;
  for (int ms = 0; ms < 100; ++ms) gauge.pushed(milliseconds(ms), static_cast<std::uint64_t>(ms) * 1'000'000, false);
  EXPECT_FALSE(gauge.compression_pays(0));
}

TEST(LinkGauge, a_slow_full_link_does) {
  LinkGauge gauge;
  fill(gauge, 10'000);  // 10 MB/s
  EXPECT_TRUE(gauge.compression_pays(0));
}

TEST(LinkGauge, a_full_link_faster_than_the_compressor_does_not) {
  LinkGauge gauge;
  fill(gauge, 2'000'000);  // 2 GB/s
  EXPECT_FALSE(gauge.compression_pays(0));
}

TEST(LinkGauge, a_rate_limit_counts_as_a_link) {
  LinkGauge gauge;
  EXPECT_TRUE(gauge.compression_pays(10'000'000));
  EXPECT_FALSE(gauge.compression_pays(2'000'000'000));
}

TEST(LinkGauge, compression_that_saves_little_or_takes_long_stops) {
  LinkGauge slow;
  fill(slow, 100'000);  // 100 MB/s
  ASSERT_TRUE(slow.compression_pays(0));
  for (int i = 0; i < 50; ++i) slow.compressed(1'000'000, 500'000, milliseconds(100));  // 10 MB/s
  EXPECT_FALSE(slow.compression_pays(0));

  LinkGauge useless;
  fill(useless, 100'000);
  for (int i = 0; i < 50; ++i) useless.compressed(1'000'000, 990'000, milliseconds(2));
  EXPECT_FALSE(useless.compression_pays(0));
}

TEST(LinkGauge, a_link_that_has_room_again_is_forgotten) {
  LinkGauge gauge;
  fill(gauge, 10'000);
  gauge.pushed(milliseconds(200), 2'000'000, false);
  EXPECT_TRUE(gauge.compression_pays(0));
  gauge.pushed(milliseconds(1300), 2'000'000, false);
  EXPECT_FALSE(gauge.compression_pays(0));
}

}  // namespace
}  // namespace backhaul
