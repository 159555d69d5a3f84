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

}  // namespace backhaul::sim
