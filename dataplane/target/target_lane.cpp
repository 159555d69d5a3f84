#include "dataplane/target/target_lane.h"

#include <boost/json/serialize.hpp>

#include <algorithm>

#include "dataplane/protocol/engine_error.h"
#include "transport/stream/transport_error.h"
#include "transport/tls/tls_stream.h"

namespace backhaul {
namespace {

// Frames taken in one step before the lane looks at its completions again.
constexpr int kFramesPerStep = 128;
// Answers that wait for the stream. A correct source has at most kMaxOpenExtents open, each of which has one digests
// and one extent_done frame at most, and sends few pings; a frame is at most 2.1 KiB, so this is 2 MiB.
constexpr std::size_t kMaxAnswers = 1024;
static_assert(kMaxAnswers > 2 * kMaxOpenExtents);

}  // namespace

TargetLane::TargetLane(TargetSession& session, ByteStream& stream, IoQueue& queue, BlockHasher& hasher, Clock& clock)
    : session_(session),
      stream_(stream),
      clock_(clock),
      size_(session.disk_size()),
      frames_(stream),
      writer_(stream),
      extents_(session, writer_),
      io_(session, queue, hasher, extents_),
      claims_(session, io_, extents_),
      disk_writer_(session, io_),
      checkpoint_(session, io_, disk_writer_, extents_, clock),
      compressed_(kChunkSize) {}

Result<LaneStatus> TargetLane::step(std::span<const Completion> completions) {
  BH_RETURN_IF_ERROR(io_.complete(completions));
  if (session_.revoked()) return session_.revoked_error();
  LaneStatus status;
  bool progressed = false;
  no_room_ = false;
  auto read = read_frames(progressed);
  if (!read) {
    const bool clean = read.error().code() == TransportErrc::closed;
    if (!clean || !extents_.empty()) return std::move(read).error();
    status.finished = true;
    return status;
  }
  BH_RETURN_IF_ERROR(disk_writer_.flush());
  checkpoint_.take_ended();
  BH_RETURN_IF_ERROR(claims_.advance(progressed));
  // A checkpoint waits for completions itself: they may have ended what nothing would wake the lane for.
  while (checkpoint_.due(lane_end_)) {
    BH_RETURN_IF_ERROR(checkpoint_.run());
    checkpoint_.take_ended();
    BH_RETURN_IF_ERROR(claims_.advance(progressed));
  }
  BH_TRY(const bool out, writer_.pump());
  status.want_write = !out;
  status.want_read = !no_room_ || io_.pool().free_count() > 0;
  status.again = progressed && out;
  if (checkpoint_.waiting())
    status.wake_after =
        std::min(status.wake_after, std::max<Clock::Duration>(checkpoint_.wait(), std::chrono::milliseconds(1)));
  return status;
}

void TargetLane::send_error(const Error& error, std::chrono::milliseconds timeout) {
  const auto text = boost::json::serialize(error_to_json(error));
  const auto bytes = as_bytes(text.data(), text.size());
  writer_.push_owned({.type = FrameType::error, .epoch = session_.epoch()}, {bytes.begin(), bytes.end()});
  const auto deadline = clock_.now() + timeout;
  while (clock_.now() < deadline) {
    const auto out = writer_.pump();
    if (!out || *out) return;
    if (!wait_stream(stream_, true, std::chrono::milliseconds(100))) return;
  }
}

Result<void> TargetLane::read_frames(bool& progressed) {
  for (int i = 0; i < kFramesPerStep;) {
    if (writer_.queued_frames() > kMaxAnswers)
      return make_error(TransportErrc::unexpected_frame, "the source reads none of the answers");
    BH_TRY(const auto step, frames_.step());
    if (step == FrameReader::Step::blocked) return {};
    if (step == FrameReader::Step::need_buffer) {
      BH_TRY(const bool placed, place_payload());
      if (!placed) return {};
      continue;
    }
    BH_RETURN_IF_ERROR(handle_frame());
    ++i;
  }
  progressed = true;
  return {};
}

// Gives the announced payload a place; false when all buffers are busy with writes.
Result<bool> TargetLane::place_payload() {
  const auto& header = frames_.header();
  if (header.type != FrameType::data) {
    control_.resize(header.payload_size);
    frames_.set_buffer(control_);
    return true;
  }
  BH_RETURN_IF_ERROR(check_frame_range(header, size_));
  if (header.raw_size != header.length)
    return make_error(TransportErrc::bad_frame, "data of " + std::to_string(header.raw_size) +
                                                    " bytes for a range of " + std::to_string(header.length));
  // Small frames share a buffer: of scattered changes many come before one sync of the undo log has to cover them.
  if (!incoming_) incoming_ = io_.pool().place(header.length);
  no_room_ = !incoming_;
  if (no_room_) return false;
  frames_.set_buffer((header.flags & kFrameZstd) != 0 ? compressed_.span() : io_.pool().at(*incoming_, header.length));
  return true;
}

Result<void> TargetLane::handle_frame() {
  const auto& header = frames_.header();
  if (header.epoch != session_.epoch() && header.type != FrameType::error &&
      !(header.type == FrameType::ping || header.type == FrameType::pong))
    return make_error(EngineErrc::session_fenced, "a frame of epoch " + std::to_string(header.epoch));
  // What a checkpoint leaves of the ended extents needs no other lane_end: only more work takes it back.
  if (header.type == FrameType::claim || header.type == FrameType::data || header.type == FrameType::zero ||
      header.type == FrameType::extent_end) {
    BH_RETURN_IF_ERROR(check_frame_range(header, size_));
    lane_end_ = false;
  }
  switch (header.type) {
    case FrameType::claim: return claims_.add(extents_of(header));
    case FrameType::data: zero_run_.reset(); return handle_data();
    case FrameType::zero: zero_run_.reset(); return handle_zero();
    case FrameType::extent_end: return handle_extent_end();
    case FrameType::lane_end: lane_end_ = true; return {};
    case FrameType::ping: writer_.push({.type = FrameType::pong}); return {};
    case FrameType::pong: return {};
    case FrameType::error: return error_from_payload(frames_.payload());
    default:
      return make_error(TransportErrc::unexpected_frame,
                        std::string(to_string(header.type)) + " on a lane of a target");
  }
}

// The extent that content comes for. Error: it may not come now.
Result<TargetExtent*> TargetLane::receive() {
  const auto& header = frames_.header();
  BH_TRY(auto* extent, extents_.open(header.offset / kExtentSize));
  if (!extent->is_open())
    return make_error(TransportErrc::unexpected_frame,
                      std::string(to_string(header.type)) + " for an extent that is not open");
  BH_RETURN_IF_ERROR(extent->receive({header.offset, header.length}));
  return extent;
}

Result<void> TargetLane::handle_data() {
  const auto& header = frames_.header();
  const ByteRange range{header.offset, header.length};
  const auto place = *std::exchange(incoming_, std::nullopt);
  if ((header.flags & kFrameZstd) != 0)
    BH_RETURN_IF_ERROR(decompressor_.decompress(frames_.payload(), io_.pool().at(place, header.length)));
  BH_TRY(auto* extent, receive());
  for (auto b = extent->block_at(range.offset); b < extent->block_end(range); ++b) extent->written.set(b);
  if (session_.request().verify == VerifyMode::none) extent->digested = false;
  disk_writer_.add(*extent, range, place);
  return {};
}

Result<void> TargetLane::handle_zero() {
  const auto& header = frames_.header();
  const ByteRange range{header.offset, header.length};
  if ((header.flags & kFrameZeroRun) != 0) return handle_zero_run();
  if (range.length > extent_length(size_, range.offset / kExtentSize))
    return make_error(TransportErrc::bad_frame, "zero over more than one extent");
  BH_TRY(auto* extent, receive());
  BH_TRY(const auto zeroed, disk_writer_.zero(range));
  if (zeroed == 0) return {};
  for (auto b = extent->block_at(range.offset); b < extent->block_end(range); ++b) {
    extent->zeroed.set(b);
    extent->content.set_zero(b, extent->block_length(b));
  }
  return {};
}

Result<void> TargetLane::handle_zero_run() {
  const auto run = extents_of(frames_.header());
  if (extents_.any_in(run)) return make_error(TransportErrc::unexpected_frame, "a zero run over an open extent");
  BH_TRY(const auto zeroed, disk_writer_.zero(bytes_of(run, size_)));
  zero_run_ = {run, zeroed};
  return {};
}

Result<void> TargetLane::handle_extent_end() {
  const auto& header = frames_.header();
  const auto run = extents_of(header);
  if ((header.flags & kFrameHoleEnd) != 0) return handle_hole_end(run);
  for (auto number = run.first; number < run.end(); ++number) {
    BH_TRY(auto* extent, extents_.open(number));
    if (!extent->is_open()) return make_error(TransportErrc::unexpected_frame, "extent_end out of place");
    if (!extent->content_known && extent->sent.count() != extent->blocks())
      return make_error(TransportErrc::unexpected_frame, "the end of an extent that was neither claimed nor all sent");
    checkpoint_.end(*extent);
  }
  return {};
}

// A run is recorded as zero without being read: it must be known that it is.
Result<void> TargetLane::handle_hole_end(const ExtentRun& run) {
  auto hole = std::exchange(zero_run_, std::nullopt);
  if (!hole || hole->run != run) {
    bool untouched = session_.blank() && !extents_.any_in(run);
    for (auto extent = run.first; untouched && extent < run.end(); ++extent) {
      const auto state = session_.index().state(extent);
      untouched = state == ExtentState::unknown || state == ExtentState::zero;
    }
    if (!untouched) return make_error(TransportErrc::unexpected_frame, "the end of a hole that was not zeroed");
    hole = TargetHole{run, 0};
  }
  return checkpoint_.end_hole(*hole);
}

}  // namespace backhaul
