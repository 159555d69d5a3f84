// What a peer can send: any bytes, in any pieces, through FrameReader and all that checks a frame before it is used.
// The first byte chooses the size of the pieces, so that every way of being interrupted is met.
#include <algorithm>
#include <boost/json.hpp>
#include <vector>

#include "base/endian.h"
#include "checksum/crc32c.h"
#include "dataplane/protocol/messages.h"
#include "tests/fuzz/fuzz_input.h"
#include "transport/frames/compress.h"
#include "transport/frames/frame_io.h"
#include "transport/stream/transport_error.h"

namespace backhaul {
namespace {

// Gives `input` in pieces; every other call would block. Then the peer is gone. Takes and forgets what is written.
class InputStream final : public ByteStream {
 public:
  InputStream(Bytes input, std::size_t piece) : input_(input), piece_(piece) {}
  Result<std::size_t> read_some(MutableBytes into) override {
    if (input_.empty()) return make_error(TransportErrc::closed);
    blocked_ = !blocked_;
    if (blocked_) return 0U;
    const auto count = std::min({into.size(), piece_, input_.size()});
    std::copy_n(input_.begin(), count, into.begin());
    input_ = input_.subspan(count);
    return count;
  }
  Result<std::size_t> write_some(Bytes from) override { return from.size(); }
  Result<bool> flush() override { return true; }
  PollHandle poll_handle() const noexcept override { return -1; }
  bool has_buffered_input() const noexcept override { return !input_.empty(); }
  void close() noexcept override {}
  std::uint64_t wire_bytes_sent() const noexcept override { return 0; }
  std::uint64_t wire_bytes_received() const noexcept override { return 0; }
  std::string peer_name() const override { return {}; }

 private:
  Bytes input_;
  std::size_t piece_;
  bool blocked_ = false;
};

void use(const FrameHeader& header, Bytes payload, Decompressor& decompressor) {
  // What was decoded encodes to the same again: nothing of the header is lost or invented.
  std::array<std::byte, kFrameHeaderSize> raw;
  encode_frame_header(header, raw);
  const auto again = decode_frame_header(raw);
  require(again && *again == header);
  require(header.payload_size <= kMaxPayloadSize && header.raw_size <= kMaxPayloadSize);
  require(header.offset + header.length >= header.offset);
  for (const std::uint64_t size : {std::uint64_t{0}, kExtentSize, 5 * kExtentSize + 100, ~std::uint64_t{0}})
    if (check_frame_range(header, size) && header.length > 0) require(header.offset + header.length <= size);
  if (header.type == FrameType::digests && check_digests_payload(header, payload) && !payload.empty())
    require(payload.size() >= 16 && (payload.size() - 16) / 16 <= block_count(header.length));
  if ((header.flags & kFrameZstd) != 0) {
    std::vector<std::byte> into(header.raw_size);
    (void)decompressor.decompress(payload, into);
  }
}

// The lanes' way: any frame.
void read_frames(Bytes input, std::size_t piece) {
  InputStream stream(input, piece);
  FrameReader reader(stream);
  Decompressor decompressor;
  std::vector<std::byte> place;
  while (true) {
    const auto step = reader.step();
    if (!step) {
      require(!step.error().symbol().empty());
      return;
    }
    if (*step == FrameReader::Step::need_buffer) {
      place.resize(reader.header().payload_size);
      reader.set_buffer(place);
    } else if (*step == FrameReader::Step::frame) {
      use(reader.header(), reader.payload(), decompressor);
    }
  }
}

// As every message of the data plane: what one decoder takes, it takes again after it was written.
void use_fields(const boost::json::object& body) {
  const auto again = [&](auto read) {
    const auto value = read(body);
    if (value) require(read(to_json(*value)).has_value());
  };
  again(open_request_from_json);
  again(opened_from_json);
  again(join_from_json);
  again(verb_from_json);
  again(offer_from_json);
  again(status_from_json);
  again(finish_from_json);
  again(finished_from_json);
}

// The control stream's way: JSON. The hello is read like one, whatever it is.
void read_messages(Bytes input, std::size_t piece) {
  for (const bool hello : {false, true}) {
    ControlChannel channel(std::make_unique<InputStream>(input, piece));
    if (hello) {
      const auto agreed = exchange_hello(channel, std::chrono::milliseconds(100));
      require(!agreed || agreed->version == kProtocolVersion);
      continue;
    }
    while (true) {
      const auto message = channel.receive(std::chrono::milliseconds(100));
      if (message) {
        const auto error = error_from_json(message->body);
        require(error.cause().size() <= 2048 && error.fix().size() <= 2048 && error.symbol().size() <= 64);
        use_fields(message->body);
        continue;
      }
      const auto error = message.error();
      for (const char c : error.cause()) require(!error.from_peer() || static_cast<unsigned char>(c) >= 0x20);
      break;
    }
  }
}

// Random bytes never have a right CRC: makes the CRCs right, frame by frame, so that what is behind them is reached.
std::vector<std::byte> repaired(Bytes input) {
  std::vector<std::byte> out(input.begin(), input.end());
  std::size_t at = 0;
  while (out.size() - at >= kFrameHeaderSize) {
    std::byte* header = out.data() + at;
    store_le(header, kFrameMagic);
    std::uint32_t size = load_le<std::uint32_t>(header + 32);
    const auto left = out.size() - at - kFrameHeaderSize;
    if (size <= left) store_le(header + 40, size == 0 ? 0 : crc32c({header + kFrameHeaderSize, size}));
    store_le(header + 60, crc32c({header, 60}));
    if (size > left) break;
    at += kFrameHeaderSize + size;
  }
  return out;
}

}  // namespace
}  // namespace backhaul

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace backhaul;
  if (size == 0) return 0;
  const std::size_t piece = 1 + data[0] % 128 * 7;
  const auto input = as_bytes(data + 1, size - 1);
  const auto fixed = repaired(input);
  for (const Bytes bytes : {input, Bytes(fixed)}) {
    read_frames(bytes, piece);
    // A blocked read pauses for a moment where there is no handle: few and large pieces keep the fuzzer quick.
    read_messages(bytes, std::max<std::size_t>(piece, 4096));
  }
  return 0;
}
