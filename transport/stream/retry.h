// Retry with exponential backoff and jitter, for faults whose Error says Retry::later.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/world.h"

namespace backhaul {

struct RetryPolicy {
  std::chrono::milliseconds first_delay{200};
  std::chrono::milliseconds max_delay{10'000};
  // Attempts in a row without progress. With the delays above, 8 attempts span about 30 s.
  std::uint32_t max_attempts = 8;
};

class Backoff {
 public:
  Backoff(RetryPolicy policy, Random& random) : policy_(policy), random_(random) {}
  // Progress was made: counting starts again.
  void progress() noexcept { attempts_ = 0; }
  // False when the attempts are used up; else `delay` is between half and all of the exponential step.
  bool next(Clock::Duration& delay) noexcept;
  std::uint32_t attempts() const noexcept { return attempts_; }

 private:
  RetryPolicy policy_;
  Random& random_;
  std::uint32_t attempts_ = 0;
};

}  // namespace backhaul
