// Two ByteStreams joined in memory, with faults: small moves, a limited window, delay, flipped bits, a cut, and a
// failure at the n-th operation. The ends may be used by two threads, or by one in turn; nothing depends on time.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "transport/stream/stream.h"

namespace backhaul::sim {

// One direction of the pair, from its sender's side.
struct MemoryDirection {
  static constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();
  struct Flip {
    std::uint64_t offset = 0;  // counted from the direction's first byte
    unsigned bit = 0;          // 0 to 7
  };

  std::size_t window = 256 * 1024;   // bytes that are sent and not read yet, at most
  std::size_t max_write = SIZE_MAX;  // bytes that one write_some takes at most
  std::size_t max_read = SIZE_MAX;   // bytes that one read_some gives at most
  std::uint32_t delay_steps = 0;     // calls of the receiver's read_some until sent bytes are there
  std::uint64_t cut_after = kNever;  // the link breaks, for both ends, when so many bytes were sent this way
  std::vector<Flip> flips;
};

class MemoryStream : public ByteStream {
 public:
  // The link breaks now: each end reads what was sent before, then gets TransportErrc::lost.
  virtual void cut() = 0;
  // From now on the n-th call of read_some, write_some or flush (0: the next) breaks the link instead.
  virtual void fail_at(std::uint64_t operation) = 0;
  // Calls of read_some, write_some and flush so far.
  virtual std::uint64_t operations() const = 0;
};

using MemoryPair = std::pair<std::unique_ptr<MemoryStream>, std::unique_ptr<MemoryStream>>;
MemoryPair make_memory_pair(MemoryDirection first_to_second = {}, MemoryDirection second_to_first = {});

}  // namespace backhaul::sim
