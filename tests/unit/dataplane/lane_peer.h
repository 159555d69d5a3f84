// The other end of a lane under test: frames in, frames out, in one thread.
#pragma once

#include <string_view>
#include <vector>

#include "dataplane/protocol/lane.h"
#include "sim/memory_stream.h"
#include "transport/frames/frame_io.h"
#include "unit/dataplane/transfer_fixture.h"

namespace backhaul::testing {

struct SentFrame {
  FrameHeader header;
  Content payload;
};

inline SentFrame frame(FrameType type, std::uint64_t offset = 0, std::uint64_t length = 0, std::uint8_t flags = 0,
                       Content payload = {}) {
  SentFrame sent;
  sent.header.type = type;
  sent.header.offset = offset;
  sent.header.length = length;
  sent.header.flags = flags;
  sent.payload = std::move(payload);
  return sent;
}
inline SentFrame data_frame(std::uint64_t offset, std::uint64_t length) {
  return frame(FrameType::data, offset, length, 0, Content(length, std::byte{0x5A}));
}
inline SentFrame text_frame(FrameType type, std::string_view text) {
  const auto bytes = as_bytes(text.data(), text.size());
  return frame(type, 0, 0, 0, {bytes.begin(), bytes.end()});
}

class LanePeer {
 public:
  // Frames without an epoch get this one.
  LanePeer(Lane& lane, IoQueue& queue, ByteStream& stream, std::uint64_t epoch)
      : lane_(lane), queue_(queue), stream_(stream), writer_(stream), reader_(stream), epoch_(epoch) {}
  ~LanePeer() {
    while (queue_.in_flight() > 0)
      if (!queue_.wait(nullptr, std::chrono::seconds(1))) break;
  }

  // Sends all of it and steps the lane until it fails, ends, or nothing has happened for a while.
  Result<void> feed(const std::vector<SentFrame>& frames) {
    for (const auto& sent : frames) {
      auto header = sent.header;
      if (header.epoch == 0) header.epoch = epoch_;
      writer_.push_owned(header, sent.payload);
    }
    for (int quiet = 0; quiet < 40; ++quiet) {
      if (auto out = writer_.pump(); !out) return std::move(out).error();
      BH_TRY(const auto completions, queue_.wait(nullptr, Clock::Duration::zero()));
      const bool progress = !completions.empty() || !writer_.idle();
      BH_TRY(const auto status, lane_.step(completions));
      if (take_answers() || progress) quiet = 0;
      if (status.finished) return {};
    }
    return {};
  }
  void end() { stream_.close(); }
  bool read_answers = true;

  std::vector<SentFrame> answers;
  std::size_t count(FrameType type) const {
    return static_cast<std::size_t>(
        std::count_if(answers.begin(), answers.end(), [&](const auto& sent) { return sent.header.type == type; }));
  }

 private:
  bool take_answers() {
    bool any = false;
    while (read_answers) {
      const auto step = reader_.step();
      if (!step || *step == FrameReader::Step::blocked) break;
      if (*step == FrameReader::Step::need_buffer) {
        place_.resize(reader_.header().payload_size);
        reader_.set_buffer(place_);
        continue;
      }
      const auto payload = reader_.payload();
      answers.push_back({reader_.header(), {payload.begin(), payload.end()}});
      any = true;
    }
    return any;
  }

  Lane& lane_;
  IoQueue& queue_;
  ByteStream& stream_;
  FrameWriter writer_;
  FrameReader reader_;
  const std::uint64_t epoch_;
  Content place_;
};

inline SentFrame zero(std::uint64_t offset, std::uint64_t length, std::uint8_t flags = 0) {
  return frame(FrameType::zero, offset, length, flags);
}
inline SentFrame end(std::uint64_t offset, std::uint64_t length, std::uint8_t flags = 0) {
  return frame(FrameType::extent_end, offset, length, flags);
}
inline SentFrame lane_end() { return frame(FrameType::lane_end); }
inline SentFrame of_epoch(SentFrame sent, std::uint64_t epoch) {
  sent.header.epoch = epoch;
  return sent;
}
inline SentFrame bad_zstd(std::uint64_t offset) {
  auto sent = frame(FrameType::data, offset, kBlockSize, kFrameZstd, Content(100, std::byte{7}));
  sent.header.raw_size = kBlockSize;
  return sent;
}

}  // namespace backhaul::testing
