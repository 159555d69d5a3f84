// A token bucket shared by all lanes of a transfer. Lock-free; any thread.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/world.h"

namespace backhaul {

class RateLimit {
 public:
  // 0: no limit. The bucket holds at most `burst_bytes` (default: a tenth of a second's worth, at least 1 MiB).
  RateLimit(Clock& clock, std::uint64_t bytes_per_s, std::uint64_t burst_bytes = 0);

  // Charges `bytes` now and says how long the caller must wait before it sends them. The bucket may go into debt: a
  // frame larger than the bucket passes and is paid for afterwards.
  Clock::Duration charge(std::uint64_t bytes) noexcept;
  bool unlimited() const noexcept { return bytes_per_s_ == 0; }
  std::uint64_t bytes_per_s() const noexcept { return bytes_per_s_; }  // 0: no limit

 private:
  Clock& clock_;
  std::uint64_t bytes_per_s_;
  std::int64_t burst_ns_ = 0;
  std::atomic<std::int64_t> paid_until_ns_{0};
};

}  // namespace backhaul
