// The byte stream seam: a reliable, ordered, non-blocking stream of bytes to one peer. The real one is TLS 1.3 over
// TCP (transport/tls/tls_stream.h); tests use an in-memory pair that can cut, delay and flip. One thread at a time.
#pragma once

#include <cstdint>
#include <string>

#include "base/buffer.h"
#include "base/error.h"

namespace backhaul {

// What to poll for readiness: a descriptor on Linux, a handle elsewhere; -1 for none (an in-memory stream of tests,
// which the caller asks again).
using PollHandle = std::intptr_t;

class ByteStream {
 public:
  virtual ~ByteStream() = default;

  // Bytes read; 0: would block. TransportErrc::closed: the peer ended its stream cleanly.
  virtual Result<std::size_t> read_some(MutableBytes into) = 0;
  // Takes a prefix of `from` (0: would block); taken bytes may wait in the stream until flush(). After a failed write
  // or flush, read_some() still gives what the peer sent before (perhaps why it gave up).
  virtual Result<std::size_t> write_some(Bytes from) = 0;
  // Pushes taken bytes to the network. True when all are out; false when the network would block.
  virtual Result<bool> flush() = 0;

  virtual PollHandle poll_handle() const noexcept = 0;
  // Hints, before a wait for input, that at least `bytes` will come whatever happens (0: not known). The poll handle
  // may then become ready only when many of them are there, which spares a fast stream most wake-ups. Holds until
  // something is read; less may be read at any time.
  virtual void expect_input(std::size_t bytes) noexcept { static_cast<void>(bytes); }
  // Whether read_some() could return data now, without the poll handle becoming ready.
  virtual bool has_buffered_input() const noexcept = 0;

  // Says goodbye (TLS close_notify) if that can be done without blocking, and closes.
  virtual void close() noexcept = 0;
  // Bytes that went over the wire so far, both directions, framing and encryption included.
  virtual std::uint64_t wire_bytes_sent() const noexcept = 0;
  virtual std::uint64_t wire_bytes_received() const noexcept = 0;
  // The peer's certificate subject common name; empty for tests' streams.
  virtual std::string peer_name() const = 0;
};

}  // namespace backhaul
