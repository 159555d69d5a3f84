// Tells whether the link or the processor limits a lane, and so whether compression pays. The lane's loop feeds it; one
// thread.
#pragma once

#include <cstdint>

#include "base/world.h"

namespace backhaul {

class LinkGauge {
 public:
  // Called after every attempt to send. `sent`: bytes that went over the wire so far; `blocked`: the link took no more.
  void pushed(Clock::Duration now, std::uint64_t sent, bool blocked) noexcept;
  // Called after a payload was compressed from `raw` to `compressed` bytes (0: it did not shrink) in `took`.
  void compressed(std::uint64_t raw, std::uint64_t compressed, Clock::Duration took) noexcept;

  // Whether compressing the next payload is expected to save more time on the link than it costs. `limit_bytes_per_s`:
  // a rate limit in force, 0 for none.
  bool compression_pays(std::uint64_t limit_bytes_per_s) const noexcept;

 private:
  bool blocked_ = false;
  Clock::Duration since_{};
  std::uint64_t sent_at_ = 0;
  double link_bytes_per_s_ = 0;               // while it is the bottleneck; 0: it is not
  double compress_s_per_byte_ = 1.0 / 400e6;  // a first guess, replaced by what is measured
  double saved_fraction_ = 0.5;
};

}  // namespace backhaul
