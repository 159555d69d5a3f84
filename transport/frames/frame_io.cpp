#include "transport/frames/frame_io.h"

#include <cassert>

#include "checksum/crc32c.h"

namespace backhaul {
namespace {

void seal(FrameHeader& header, Bytes payload) {
  header.payload_size = static_cast<std::uint32_t>(payload.size());
  if ((header.flags & kFrameZstd) == 0) header.raw_size = header.payload_size;
  header.payload_crc = payload.empty() ? 0 : crc32c(payload);
}

}  // namespace

void FrameWriter::push(FrameHeader header, Bytes payload, std::uint64_t token) {
  assert(payload.size() <= kMaxPayloadSize);
  seal(header, payload);
  auto& entry = queue_.emplace_back();
  encode_frame_header(header, entry.header);
  entry.payload = payload;
  entry.token = token;
  flushed_ = false;
}

void FrameWriter::push_owned(FrameHeader header, std::vector<std::byte> payload) {
  push(header, payload);
  // Moving the vector does not move its memory, so the span stays valid.
  queue_.back().owned = std::move(payload);
}

Result<bool> FrameWriter::pump() {
  while (!queue_.empty()) {
    auto& entry = queue_.front();
    while (entry.sent < kFrameHeaderSize + entry.payload.size()) {
      const auto rest = entry.sent < kFrameHeaderSize ? Bytes(entry.header).subspan(entry.sent)
                                                      : entry.payload.subspan(entry.sent - kFrameHeaderSize);
      BH_TRY(const std::size_t taken, stream_.write_some(rest));
      if (taken == 0) {
        // What the stream took must be on its way while we wait.
        BH_RETURN_IF_ERROR(stream_.flush());
        return false;
      }
      entry.sent += taken;
    }
    if (entry.token != kNoToken) released_.push_back(entry.token);
    queue_.pop_front();
  }
  BH_TRY(flushed_, stream_.flush());
  return flushed_;
}

std::vector<std::uint64_t> FrameWriter::take_released() { return std::exchange(released_, {}); }

FrameReader::Step FrameReader::blocked(std::size_t expected) {
  stream_.expect_input(expected);
  return Step::blocked;
}

Result<FrameReader::Step> FrameReader::step() {
  if (state_ == State::complete) {
    state_ = State::header;
    have_ = 0;
    buffer_ = {};
  }
  while (state_ == State::header) {
    BH_TRY(const std::size_t got, stream_.read_some(MutableBytes(raw_header_).subspan(have_)));
    if (got == 0) return blocked(have_ > 0 ? kFrameHeaderSize - have_ : 0);
    have_ += got;
    if (have_ < kFrameHeaderSize) continue;
    BH_TRY(header_, decode_frame_header(raw_header_));
    have_ = 0;
    if (header_.payload_size == 0) {
      state_ = State::complete;
      return Step::frame;
    }
    state_ = State::waiting_buffer;
  }
  if (state_ == State::waiting_buffer) return Step::need_buffer;
  while (have_ < header_.payload_size) {
    BH_TRY(const std::size_t got, stream_.read_some(buffer_.first(header_.payload_size).subspan(have_)));
    if (got == 0) return blocked(header_.payload_size - have_);
    have_ += got;
  }
  BH_RETURN_IF_ERROR(check_payload(header_, payload()));
  state_ = State::complete;
  return Step::frame;
}

void FrameReader::set_buffer(MutableBytes into) {
  assert(state_ == State::waiting_buffer && into.size() >= header_.payload_size);
  buffer_ = into;
  state_ = State::payload;
}

}  // namespace backhaul
