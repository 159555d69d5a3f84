// Frames over a ByteStream. FrameWriter and FrameReader are the lanes' (non-blocking, no allocation per frame);
// ControlChannel is the control stream's (blocking, JSON payloads). Each belongs to one thread.
#pragma once

#include <boost/json/object.hpp>
#include <chrono>
#include <deque>
#include <memory>
#include <vector>

#include "transport/frames/frame.h"
#include "transport/stream/stream.h"

namespace backhaul {

// Queues frames and sends them. A payload is borrowed until take_released() gives its token back, after the pump() in
// which the stream took its last byte.
class FrameWriter {
 public:
  explicit FrameWriter(ByteStream& stream) : stream_(stream) {}

  static constexpr std::uint64_t kNoToken = ~std::uint64_t{0};
  void push(FrameHeader header, Bytes payload = {}, std::uint64_t token = kNoToken);  // fills sizes and CRC
  // Payload owned by the writer (small frames: digests, messages).
  void push_owned(FrameHeader header, std::vector<std::byte> payload);

  // Moves what the stream takes. True when everything is out and flushed.
  Result<bool> pump();
  bool idle() const noexcept { return queue_.empty() && flushed_; }
  std::size_t queued_frames() const noexcept { return queue_.size(); }
  // Tokens whose payload is no longer needed, in order; empties the list.
  std::vector<std::uint64_t> take_released();

 private:
  struct Entry {
    std::array<std::byte, kFrameHeaderSize> header;
    Bytes payload;
    std::vector<std::byte> owned;
    std::uint64_t token = kNoToken;
    std::size_t sent = 0;  // of header and payload together
  };
  ByteStream& stream_;
  std::deque<Entry> queue_;
  std::vector<std::uint64_t> released_;
  bool flushed_ = true;
};

// Reads one frame at a time. The owner gives each payload its place, so that data lands where it will be written from.
class FrameReader {
 public:
  explicit FrameReader(ByteStream& stream) : stream_(stream) {}

  enum class Step {
    blocked,      // nothing more can be read now
    need_buffer,  // header() is valid; the owner calls set_buffer(), then step()
    frame,        // a frame is complete: header() and payload(), valid until the next step()
  };
  // Errors: the stream's, or the codec's. After an error the reader is dead.
  Result<Step> step();
  const FrameHeader& header() const noexcept { return header_; }
  // REQUIRES: last step was need_buffer; into.size() >= header().payload_size.
  void set_buffer(MutableBytes into);
  Bytes payload() const noexcept { return buffer_.first(header_.payload_size); }

 private:
  enum class State { header, waiting_buffer, payload, complete };
  Step blocked(std::size_t expected);
  ByteStream& stream_;
  State state_ = State::header;
  std::array<std::byte, kFrameHeaderSize> raw_header_{};
  FrameHeader header_;
  MutableBytes buffer_;
  std::size_t have_ = 0;
};

// A blocking channel of control messages; an error is one of them.
class ControlChannel {
 public:
  explicit ControlChannel(std::unique_ptr<ByteStream> stream) : stream_(std::move(stream)) {}

  struct Message {
    FrameHeader header;
    boost::json::object body;
  };
  // Sends one message (ping and pong without the body). Blocks up to `timeout`; after an error or a timeout nothing
  // more can be sent. When the stream breaks because the peer gave up, the error is the one that the peer reported.
  Result<void> send(FrameType type, const boost::json::object& body, std::uint64_t epoch,
                    std::chrono::milliseconds timeout);
  // Next message; ping is answered inside, pong skipped. An `error` frame becomes the Error that the peer meant.
  Result<Message> receive(std::chrono::milliseconds timeout);
  // Receives a message of this type; another type is TransportErrc::unexpected_frame.
  Result<Message> expect(FrameType type, std::chrono::milliseconds timeout);

  ByteStream& stream() noexcept { return *stream_; }
  // REQUIRES: no receive() timed out in the middle of a message. The channel is used no more.
  std::unique_ptr<ByteStream> release() noexcept { return std::move(stream_); }

 private:
  Result<Message> next(std::chrono::steady_clock::time_point deadline, bool answer_pings);

  std::unique_ptr<ByteStream> stream_;
  std::unique_ptr<FrameReader> reader_;  // made by the first receive()
  std::vector<std::byte> payload_;
};

// The error message's JSON (symbol, cause, fix, retry) and back; texts are bounded and made printable on receipt.
boost::json::object error_to_json(const Error& error);
Error error_from_json(const boost::json::object& body);
// What the peer meant by the payload of an `error` frame; TransportErrc::bad_message when it is none.
Error error_from_payload(Bytes payload);

// hello: {"versions":[1,1],"features":[...],"software":"backhaul VERSION"}
struct Hello {
  std::uint16_t version = kProtocolVersion;  // the highest in common
  bool zstd = false;
};
// Both sides send hello, then read the other's. Errors: version_mismatch.
Result<Hello> exchange_hello(ControlChannel& channel, std::chrono::milliseconds timeout);

}  // namespace backhaul
