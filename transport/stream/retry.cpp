#include "transport/stream/retry.h"

#include <algorithm>

namespace backhaul {

bool Backoff::next(Clock::Duration& delay) noexcept {
  if (attempts_ >= policy_.max_attempts) return false;
  const auto longest = std::chrono::duration_cast<Clock::Duration>(policy_.max_delay);
  auto step = std::min(std::chrono::duration_cast<Clock::Duration>(policy_.first_delay), longest);
  // Doubling stops at the longest delay, so it cannot overflow however many attempts there are.
  for (std::uint32_t i = 0; i < attempts_ && step < longest; ++i) step = std::min(step * 2, longest);
  const auto half = step / 2;
  const auto spread = static_cast<std::uint64_t>((step - half).count());
  delay = half + Clock::Duration(static_cast<std::int64_t>(spread == 0 ? 0 : random_.next() % (spread + 1)));
  ++attempts_;
  return true;
}

}  // namespace backhaul
