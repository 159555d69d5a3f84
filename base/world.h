// The world seam: time and randomness are passed in, so that engine, journal and phases run under a
// simulator. The byte stream is the third part of the seam (transport/stream/stream.h).
#pragma once

#include <chrono>
#include <cstdint>

namespace backhaul {

class Clock {
 public:
  using Duration = std::chrono::nanoseconds;
  virtual ~Clock() = default;
  // Monotonic; for intervals and deadlines only.
  virtual Duration now() const = 0;
  // Wall clock, since 1970 UTC; for records only.
  virtual std::int64_t unix_time_ms() const = 0;
  std::int64_t unix_time_s() const { return unix_time_ms() / 1000; }
  virtual void sleep_for(Duration duration) = 0;
};

class Random {
 public:
  virtual ~Random() = default;
  virtual std::uint64_t next() = 0;
};

// The real ones; thread-safe, they live as long as the process. Randomness comes from the kernel.
Clock& system_clock();
Random& system_random();

}  // namespace backhaul
