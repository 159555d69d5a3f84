// A byte stream for HTTP's server and client: blocking, with deadlines by the given clock, stopped by a flag. It knows
// no grammar. The connection's thread uses it. Private to its room.
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

  // Appends received bytes to input(); waits for at least one. Errors: closed and lost, timed_out when `deadline`
  // (clock's time) passed, cancelled when stopping.
  Result<void> fill(Clock::Duration deadline);
  // Returns when all is written. Error: timed_out when the peer took nothing for `stall`, or `deadline` passed. A stop
  // does not end it: a begun answer is finished.
  Result<void> write_all(std::string_view bytes, Clock::Duration stall, Clock::Duration deadline);

  // Whether the peer has closed or broken the stream. What it sends meanwhile is kept in input() up to a limit, then
  // it counts as gone.
  bool peer_gone();
  // Reads and discards until the peer closes, `limit` bytes have come or `deadline` has passed, so that a peer that
  // still sends gets our answer and not a reset.
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

// Header names are kept in lower case.
std::string to_lower(std::string_view text);

}  // namespace backhaul
