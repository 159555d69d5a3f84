#include "sim/sim_random.h"

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <set>

namespace backhaul::sim {

std::uint64_t SimRandom::next() {
  state_ += 0x9e3779b97f4a7c15;
  std::uint64_t mixed = state_;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
  return mixed ^ (mixed >> 31);
}

std::uint64_t seed_from_environment(std::uint64_t otherwise) {
  const char* text = std::getenv("BACKHAUL_SEED");
  const std::uint64_t seed = text != nullptr ? std::strtoull(text, nullptr, 0) : otherwise;
  static std::mutex mutex;
  static std::set<std::uint64_t> said;
  const std::lock_guard lock(mutex);
  if (said.insert(seed).second) std::fprintf(stderr, "BACKHAUL_SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

}  // namespace backhaul::sim
