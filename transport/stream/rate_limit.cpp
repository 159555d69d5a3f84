#include "transport/stream/rate_limit.h"

#include <algorithm>
#include <limits>

namespace backhaul {
namespace {

constexpr std::uint64_t kNsPerSecond = 1'000'000'000;
constexpr std::uint64_t kMinBurst = 1024 * 1024;

// Long enough for any wait, small enough that sums of two do not overflow.
constexpr std::int64_t kMaxCostNs = std::numeric_limits<std::int64_t>::max() / 4;

std::int64_t cost_ns(std::uint64_t bytes, std::uint64_t bytes_per_s) {
  const auto cost = static_cast<unsigned __int128>(bytes) * kNsPerSecond / bytes_per_s;
  return cost > static_cast<unsigned __int128>(kMaxCostNs) ? kMaxCostNs : static_cast<std::int64_t>(cost);
}

}  // namespace

// The bucket is kept as a time: `paid_until_ns_` is when everything sent so far is paid for. In the past it means
// credit (at most the burst), in the future debt. One atomic holds both.
RateLimit::RateLimit(Clock& clock, std::uint64_t bytes_per_s, std::uint64_t burst_bytes)
    : clock_(clock), bytes_per_s_(bytes_per_s) {
  if (unlimited()) return;
  if (burst_bytes == 0) burst_bytes = std::max(bytes_per_s / 10, kMinBurst);
  burst_ns_ = cost_ns(burst_bytes, bytes_per_s);
  paid_until_ns_ = clock.now().count() - burst_ns_;
}

Clock::Duration RateLimit::charge(std::uint64_t bytes) noexcept {
  if (unlimited()) return {};
  const auto cost = cost_ns(bytes, bytes_per_s_);
  const auto now = clock_.now().count();
  auto paid_until = paid_until_ns_.load(std::memory_order_relaxed);
  std::int64_t start = 0;
  do {
    start = std::max(paid_until, now - burst_ns_);
  } while (
      !paid_until_ns_.compare_exchange_weak(paid_until, std::min(start, kMaxCostNs) + cost, std::memory_order_relaxed));
  return Clock::Duration(std::max<std::int64_t>(0, start - now));
}

}  // namespace backhaul
