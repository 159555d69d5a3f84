// The byte stream seam: a reliable, ordered, non-blocking stream of bytes to one peer. The real one is TLS 1.3 over
// TCP (transport/tls/tls_stream.h); tests use an in-memory pair that can cut, delay and flip. One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/buffer.h"
#include "base/error.h"

namespace backhaul {

// What to poll to learn that a stream can go on: a descriptor on Linux, a handle elsewhere; -1 for none (the
// in-memory stream of tests, which is always asked again).
using PollHandle = std::intptr_t;

class ByteStream {
 public:
  virtual ~ByteStream() = default;

  // Bytes moved; 0 means "would block, nothing moved". A clean end of the peer's stream is TransportErrc::closed.
  virtual Result<std::size_t> read_some(MutableBytes into) = 0;
  // Takes a prefix of `from` (0: would block); taken bytes may wait in the stream until flush(). After a failed write
  // or flush, what the peer sent before (perhaps why it gave up) can still be read.
  virtual Result<std::size_t> write_some(Bytes from) = 0;
  // Pushes taken bytes to the network. True when all are out; false when the network would block.
  virtual Result<bool> flush() = 0;

  virtual PollHandle poll_handle() const noexcept = 0;
  // A hint before a wait for input: so many bytes will come at least, whatever happens (0: nothing is known). The poll
  // handle may then become ready only when many of them are there, which spares a fast stream most of its wake-ups.
  // Holds until something is read. Less may be read at any time.
  virtual void expect_input(std::size_t bytes) noexcept { static_cast<void>(bytes); }
  // Whether read_some could return data right now without the poll handle becoming ready.
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
