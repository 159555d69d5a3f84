#include "transport/stream/link_gauge.h"

#include <algorithm>

namespace backhaul {
namespace {

// A sample of the link's rate spans this much blocked time. A lane that was not blocked for kForget has a link that
// does not limit it.
constexpr Clock::Duration kSample = std::chrono::milliseconds(20);
constexpr Clock::Duration kForget = std::chrono::seconds(1);
constexpr double kWeight = 0.25;

double blend(double old, double sample) { return old + kWeight * (sample - old); }

}  // namespace

void LinkGauge::pushed(Clock::Duration now, std::uint64_t sent, bool blocked) noexcept {
  const auto elapsed = now - since_;
  if (blocked_ && elapsed >= kSample) {
    const double rate = static_cast<double>(sent - sent_at_) / std::chrono::duration<double>(elapsed).count();
    link_bytes_per_s_ = link_bytes_per_s_ == 0 ? rate : blend(link_bytes_per_s_, rate);
    since_ = now;
    sent_at_ = sent;
  }
  if (blocked && !blocked_) {
    since_ = now;
    sent_at_ = sent;
  } else if (!blocked && blocked_) {
    since_ = now;
  } else if (!blocked && elapsed > kForget) {
    link_bytes_per_s_ = 0;
  }
  blocked_ = blocked;
}

void LinkGauge::compressed(std::uint64_t raw, std::uint64_t compressed, Clock::Duration took) noexcept {
  if (raw == 0) return;
  const auto bytes = static_cast<double>(raw);
  compress_s_per_byte_ = blend(compress_s_per_byte_, std::chrono::duration<double>(took).count() / bytes);
  if (compressed > 0) saved_fraction_ = blend(saved_fraction_, 1 - static_cast<double>(compressed) / bytes);
}

bool LinkGauge::compression_pays(std::uint64_t limit_bytes_per_s) const noexcept {
  double rate = link_bytes_per_s_;
  if (limit_bytes_per_s > 0)
    rate = rate == 0 ? static_cast<double>(limit_bytes_per_s) : std::min(rate, static_cast<double>(limit_bytes_per_s));
  return rate > 0 && compress_s_per_byte_ < saved_fraction_ / rate;
}

}  // namespace backhaul
