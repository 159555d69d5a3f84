// A lane: one thread, one IoQueue, one stream. A Lane is a state machine that never blocks on the stream; run_lane() is
// its loop. Tests step two lanes by hand over simulated queues and an in-memory stream.
#pragma once

#include <atomic>

#include "dataplane/disk/io.h"
#include "transport/stream/stream.h"

namespace backhaul {

struct LaneStatus {
  bool finished = false;                                        // nothing is left to do
  bool again = false;                                           // call step() again without waiting
  bool want_read = true;                                        // wake when the stream is readable
  bool want_write = false;                                      // wake when the stream is writable
  Clock::Duration wake_after = std::chrono::milliseconds(200);  // wake by then in any case
};

class Lane {
 public:
  virtual ~Lane() = default;
  // Does all that can be done now. `completions` are the queue's since the last step.
  virtual Result<LaneStatus> step(std::span<const Completion> completions) = 0;
  virtual ByteStream& stream() noexcept = 0;
};

// Runs a lane to its end. Errors: the lane's own; BaseErrc::cancelled when `stop` became true; BaseErrc::timed_out when
// the stream moved nothing for kLaneIdleTimeout. On return nothing is in flight on the queue.
Result<void> run_lane(Lane& lane, IoQueue& queue, Clock& clock, const std::atomic<bool>& stop);

}  // namespace backhaul
