#include "dataplane/protocol/lane.h"

#include <algorithm>

#include "dataplane/protocol/transfer.h"

namespace backhaul {
namespace {

Result<void> loop(Lane& lane, IoQueue& queue, Clock& clock, const std::atomic<bool>& stop) {
  std::span<const Completion> completions;
  auto& stream = lane.stream();
  std::uint64_t moved = 0;
  auto last_move = clock.now();
  while (true) {
    if (stop.load(std::memory_order_relaxed)) return make_error(BaseErrc::cancelled);
    BH_TRY(const auto status, lane.step(completions));
    if (status.finished) return {};
    const auto now = clock.now();
    if (const auto total = stream.wire_bytes_sent() + stream.wire_bytes_received();
        total != moved || !completions.empty()) {
      moved = total;
      last_move = now;
    } else if (now - last_move > kLaneIdleTimeout) {
      return make_error(BaseErrc::timed_out,
                        "a lane moved nothing for " + std::to_string(kLaneIdleTimeout.count()) + " s");
    }
    const PollRequest poll{stream.poll_handle(), status.want_read, status.want_write};
    const bool at_once = status.again || (status.want_read && stream.has_buffered_input());
    BH_TRY(completions, queue.wait(&poll, at_once ? Clock::Duration::zero() : status.wake_after));
  }
}

}  // namespace

Result<void> run_lane(Lane& lane, IoQueue& queue, Clock& clock, const std::atomic<bool>& stop) {
  auto result = loop(lane, queue, clock, stop);
  while (queue.in_flight() > 0) {
    auto drained = queue.wait(nullptr, std::chrono::seconds(1));
    if (!drained) break;  // the queue's destructor waits for the rest
  }
  return result;
}

}  // namespace backhaul
