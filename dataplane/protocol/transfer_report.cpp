#include "dataplane/protocol/transfer_report.h"

#include <algorithm>

namespace backhaul {
namespace {

// A window of time: a rate is told as soon as it has the least length, and it begins anew when it is full.
constexpr std::chrono::milliseconds kLeastRateWindow{200};
constexpr std::chrono::seconds kRateWindow{5};

}  // namespace

void TransferProgress::set_seconds_left() {
  const auto left = bytes_total - std::min(bytes_total, bytes_done);
  seconds_left = bytes_per_s > 0 ? static_cast<double>(left) / bytes_per_s : 0;
}

void TransferRate::measure(TransferProgress& progress, Clock::Duration now) {
  const bool new_phase = progress.phase != phase_;
  if (new_phase) {
    phase_ = progress.phase;
    bytes_per_s_ = 0;
  }
  const auto begin = [&] {
    from_ = now;
    bytes_ = progress.bytes_done;
  };
  if (new_phase || progress.bytes_done < bytes_) begin();  // less is done when a transfer starts anew
  const auto elapsed = now - from_;
  if (elapsed >= kLeastRateWindow)
    bytes_per_s_ = static_cast<double>(progress.bytes_done - bytes_) / std::chrono::duration<double>(elapsed).count();
  if (elapsed >= kRateWindow) begin();
  progress.bytes_per_s = bytes_per_s_;
  progress.set_seconds_left();
}

}  // namespace backhaul
