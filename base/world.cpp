#include "base/world.h"

#include <random>
#include <thread>

namespace backhaul {
namespace {

class SystemClock final : public Clock {
 public:
  Duration now() const override { return std::chrono::steady_clock::now().time_since_epoch(); }
  std::int64_t unix_time_ms() const override {
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
        .count();
  }
  void sleep_for(Duration duration) override { std::this_thread::sleep_for(duration); }
};

class SystemRandom final : public Random {
 public:
  std::uint64_t next() override {
    thread_local std::random_device device;
    return (std::uint64_t{device()} << 32) | device();
  }
};

}  // namespace

Clock& system_clock() {
  static SystemClock clock;
  return clock;
}

Random& system_random() {
  static SystemRandom random;
  return random;
}

}  // namespace backhaul
