// Randomness from a seed: the same seed gives the same run on every machine.
#pragma once

#include <cstdint>

#include "base/world.h"

namespace backhaul::sim {

// splitmix64 (Steele, Lea, Flood 2014). One thread.
class SimRandom final : public Random {
 public:
  explicit SimRandom(std::uint64_t seed) noexcept : state_(seed) {}
  std::uint64_t next() override;
  std::uint64_t below(std::uint64_t bound) { return bound == 0 ? 0 : next() % bound; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }

 private:
  std::uint64_t state_;
};

// BACKHAUL_SEED when it is set, else `otherwise`. Says on stderr which one it is, so that a failure can be replayed.
std::uint64_t seed_from_environment(std::uint64_t otherwise);

// How much of a simulation runs: all of it in a release build, a quarter under a sanitizer, where a step takes ten
// times as long and every step can show what the sanitizer looks for. A seed replays the same run in both.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
// Of the failure points; a prime, so that no phase of a step is left out.
inline constexpr std::uint64_t kFaultStride = 7;
constexpr std::uint64_t share(std::uint64_t of_rounds) { return (of_rounds + 3) / 4; }
#else
inline constexpr std::uint64_t kFaultStride = 1;
constexpr std::uint64_t share(std::uint64_t of_rounds) { return of_rounds; }
#endif

}  // namespace backhaul::sim
