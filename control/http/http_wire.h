// The byte stream as HTTP's two ends use it: blocking, with deadlines by the clock that is passed in, and stopped by a
// flag. No grammar. Private to its room.
#pragma once

#include <atomic>
#include <string>
#include <string_view>

#include "base/world.h"
#include "transport/stream/stream.h"

namespace backhaul {

class HttpWire {
 public:
  // `stopping` may be null. All references outlive the wire.
  HttpWire(ByteStream& stream, Clock& clock, const std::atomic<bool>* stopping)
      : stream_(stream), clock_(clock), stopping_(stopping) {}

  // Received and not yet consumed. Bounded by whoever calls fill().
  std::string& input() noexcept { return input_; }

  // Appends to input() what came; waits for at least one byte. Errors: closed and lost, timed_out when `deadline`
  // (clock's time) passed, cancelled when stopping.
  Result<void> fill(Clock::Duration deadline);
  // Until all is out. timed_out when nothing was taken for `stall`, or `deadline` passed. Goes on when stopping, up to
  // `stall`: an answer that was begun is finished.
  Result<void> write_all(std::string_view bytes, Clock::Duration stall, Clock::Duration deadline);

  // Whether the peer has closed or broken the stream. What it sends meanwhile is kept in input() up to a limit, then
  // it counts as gone.
  bool peer_gone();
  // Reads and throws away until the peer closes, `limit` bytes came or `deadline` passed: so that a peer in the middle
  // of sending reads our answer instead of a reset.
  void linger(std::size_t limit, Clock::Duration deadline);

  bool stopping() const noexcept { return stopping_ != nullptr && stopping_->load(std::memory_order_relaxed); }

 private:
  Result<std::size_t> read_some();
  Result<void> wait(bool for_write, Clock::Duration deadline);

  ByteStream& stream_;
  Clock& clock_;
  const std::atomic<bool>* stopping_;
  std::string input_;
};

// "Name: Value" pairs as both ends keep them.
std::string to_lower(std::string_view text);

}  // namespace backhaul
