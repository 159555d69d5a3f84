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
      queue_(queue),
      hasher_(hasher),
      clock_(clock),
      size_(session.disk().size()),
      verify_(session.request().verify != VerifyMode::none),
      reader_(stream),
      writer_(stream),
      pool_(kLaneBuffers, kChunkSize),
      compressed_(kChunkSize),
      scratch_(kChunkSize),
      ops_(kLaneQueueDepth),
      buffer_uses_(kLaneBuffers, 0) {
  for (std::uint32_t i = kLaneQueueDepth; i > 0; --i) free_ops_.push_back(i - 1);
  queue_.register_memory(pool_.memory());
}

Result<LaneStatus> TargetLane::step(std::span<const Completion> completions) {
  BH_RETURN_IF_ERROR(complete_ops(completions));
  if (session_.revoked()) return session_.revoked_error();
  LaneStatus status;
  bool progressed = false;
  no_room_ = false;
  auto read = read_frames(progressed);
  if (!read) {
    const bool clean = read.error() == make_error_code(TransportErrc::closed);
    if (!clean || !works_.empty() || !waiting_zero_.empty()) return std::move(read).error();
    status.finished = true;
    return status;
  }
  BH_RETURN_IF_ERROR(flush_pending());
  BH_RETURN_IF_ERROR(end_extents());
  BH_RETURN_IF_ERROR(advance_claims(progressed));
  // A checkpoint waits for completions itself: they may have ended what nothing would wake the lane for.
  while (checkpoint_due()) {
    BH_RETURN_IF_ERROR(checkpoint());
    BH_RETURN_IF_ERROR(end_extents());
    BH_RETURN_IF_ERROR(advance_claims(progressed));
  }
  BH_TRY(const bool out, writer_.pump());
  status.want_write = !out;
  status.want_read = !no_room_ || pool_.free_count() > 0;
  status.again = progressed && out;
  if (!waiting_.empty() || !waiting_zero_.empty())
    status.wake_after = std::min<Clock::Duration>(
        status.wake_after,
        std::max<Clock::Duration>(waiting_since_ + kCheckpointDelay - clock_.now(), std::chrono::milliseconds(1)));
  return status;
}

void TargetLane::send_error(const Error& error, std::chrono::milliseconds timeout) {
  const auto text = boost::json::serialize(error_to_json(error));
  FrameHeader header;
  header.type = FrameType::error;
  header.epoch = session_.epoch();
  const auto bytes = as_bytes(text.data(), text.size());
  writer_.push_owned(header, {bytes.begin(), bytes.end()});
  const auto deadline = clock_.now() + timeout;
  while (clock_.now() < deadline) {
    const auto out = writer_.pump();
    if (!out || *out) return;
    if (!wait_stream(stream_, true, std::chrono::milliseconds(100))) return;
  }
}

// ---- completions

std::uint32_t TargetLane::start_op(OpKind kind, Place place, std::uint64_t extent, std::uint64_t offset,
                                   std::uint64_t length) {
  const auto id = free_ops_.back();
  free_ops_.pop_back();
  ops_[id] = {kind, place, extent, offset, length};
  return id;
}

Result<void> TargetLane::complete_ops(std::span<const Completion> completions) {
  // First give every op and buffer back, so that an error leaves nothing that looks in flight.
  std::optional<Error> failed;
  std::vector<Op> reads;
  for (const auto& completion : completions) {
    const Op op = std::exchange(ops_[completion.tag], Op{});
    free_ops_.push_back(static_cast<std::uint32_t>(completion.tag));
    if (completion.error != 0 || completion.bytes < op.length) {
      const auto what = op.kind == OpKind::write ? "write target disk " : "read target disk ";
      if (!failed)
        failed = Error::from_errno(completion.error != 0 ? completion.error : EIO,
                                   what + session_.request().disk + " at " + std::to_string(op.offset));
      continue;
    }
    if (op.kind != OpKind::write) {
      reads.push_back(op);
      continue;
    }
    release_buffer(op.place.buffer);
    --works_.at(op.extent)->writes;
  }
  if (failed) return std::move(*failed);
  return complete_reads(reads);
}

// Small reads are digested together, because the hasher is at its best with many blocks; never more than a chunk's.
Result<void> TargetLane::complete_reads(std::span<const Op> reads) {
  while (!reads.empty()) {
    std::size_t count = 0;
    for (std::uint64_t bytes = 0; count < reads.size(); ++count) {
      bytes += reads[count].length;
      if (count > 0 && bytes > kChunkSize) break;
    }
    const auto group = reads.first(count);
    digest_reads(group);
    for (const auto& op : group) {
      release_buffer(op.place.buffer);
      auto& work = *works_.at(op.extent);
      if (op.kind == OpKind::verify_read)
        --work.verify_reads;
      else if (--work.claim_reads == 0 && reading_claim_ != op.extent && !work.claim_sent)
        send_digests(op.extent, work);
    }
    reads = reads.subspan(count);
  }
  return {};
}

void TargetLane::release_buffer(std::uint32_t buffer) {
  if (--buffer_uses_[buffer] == 0) pool_.give(buffer);
}

Bytes TargetLane::content_of(const Op& op) { return pool_.at(op.place.buffer).subspan(op.place.at, op.length); }

// REQUIRES: no more blocks than one chunk has at most.
void TargetLane::digest_reads(std::span<const Op> reads) {
  std::array<Bytes, kChunkSize / kBlockSize> blocks;
  std::array<BlockDigest*, kChunkSize / kBlockSize> places;
  std::array<BlockDigest, kChunkSize / kBlockSize> digests;
  std::size_t count = 0;
  for (const auto& op : reads) {
    auto& work = *works_.at(op.extent);
    const auto content = content_of(op);
    auto number = static_cast<std::uint32_t>((op.offset - op.extent * kExtentSize) / kBlockSize);
    for (std::size_t at = 0; at < content.size(); at += kBlockSize, ++number) {
      const auto block = content.subspan(at, std::min<std::size_t>(kBlockSize, content.size() - at));
      const bool zero = is_zero(block);
      work.nonzero.set(number, !zero);
      if (zero) {
        work.digests[number] = zero_block_digest(block.size());
        continue;
      }
      blocks[count] = block;
      places[count++] = &work.digests[number];
    }
  }
  hasher_.digest(std::span(blocks).first(count), std::span(digests).first(count));
  for (std::size_t i = 0; i < count; ++i) *places[i] = digests[i];
}

// ---- frames

Result<void> TargetLane::read_frames(bool& progressed) {
  for (int i = 0; i < kFramesPerStep;) {
    if (writer_.queued_frames() > kMaxAnswers)
      return make_error(TransportErrc::unexpected_frame, "the source reads none of the answers");
    BH_TRY(const auto step, reader_.step());
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
  const auto& header = reader_.header();
  if (header.type == FrameType::data) {
    BH_RETURN_IF_ERROR(check_frame_range(header, size()));
    if (header.raw_size != header.length)
      return make_error(TransportErrc::bad_frame, "data of " + std::to_string(header.raw_size) +
                                                      " bytes for a range of " + std::to_string(header.length));
    if (!incoming_) incoming_ = place_for(header.length);
    no_room_ = !incoming_;
    if (no_room_) return false;
    reader_.set_buffer((header.flags & kFrameZstd) != 0
                           ? compressed_.span()
                           : pool_.at(incoming_->buffer).subspan(incoming_->at, header.length));
    return true;
  }
  control_.resize(header.payload_size);
  reader_.set_buffer(control_);
  return true;
}

// Small frames share a buffer: of scattered changes many come before one sync of the undo log has to cover them.
std::optional<TargetLane::Place> TargetLane::place_for(std::uint64_t length) {
  const auto needed = align_up(length, kIoAlignment);
  if (!filling_ || filled_ + needed > kChunkSize) {
    const auto buffer = pool_.take();
    if (!buffer) return std::nullopt;
    if (filling_) release_buffer(*filling_);
    filling_ = buffer;
    filled_ = 0;
    buffer_uses_[*buffer] = 1;
  }
  const Place place{*filling_, filled_};
  ++buffer_uses_[place.buffer];
  filled_ += needed;
  if (filled_ + kBlockSize > kChunkSize) {
    release_buffer(place.buffer);
    filling_.reset();
  }
  return place;
}

Result<void> TargetLane::handle_frame() {
  const auto& header = reader_.header();
  if (header.epoch != session_.epoch() && header.type != FrameType::error &&
      !(header.type == FrameType::ping || header.type == FrameType::pong))
    return make_error(EngineErrc::session_fenced, "a frame of epoch " + std::to_string(header.epoch));
  // What a checkpoint leaves of the ended extents needs no other lane_end: only more work takes it back.
  if (header.type == FrameType::claim || header.type == FrameType::data || header.type == FrameType::zero ||
      header.type == FrameType::extent_end)
    lane_end_ = false;
  switch (header.type) {
    case FrameType::claim:
      BH_RETURN_IF_ERROR(check_frame_range(header, size()));
      if (claims_.size() >= kMaxTargetExtents) return make_error(TransportErrc::unexpected_frame, "too many claims");
      claims_.push_back({header.offset, header.length});
      return {};
    case FrameType::data: zero_run_.reset(); return handle_data();
    case FrameType::zero: zero_run_.reset(); return handle_zero();
    case FrameType::extent_end: return handle_extent_end();
    case FrameType::lane_end: lane_end_ = true; return {};
    case FrameType::ping: {
      FrameHeader pong;
      pong.type = FrameType::pong;
      writer_.push(pong);
      return {};
    }
    case FrameType::pong: return {};
    case FrameType::error: return error_from_payload(reader_.payload());
    default:
      return make_error(TransportErrc::unexpected_frame,
                        std::string(to_string(header.type)) + " on a lane of a target");
  }
}

// The extent that a frame belongs to. One that was not claimed opens with it.
Result<TargetLane::Work*> TargetLane::work_for(std::uint64_t extent) {
  if (const auto it = works_.find(extent); it != works_.end()) return it->second.get();
  BH_TRY(auto* work, add_work(extent));
  BH_TRY(work->content_known, assume_content(extent, *work));
  if (!work->content_known && session_.compare())
    return make_error(TransportErrc::unexpected_frame, "an extent that was not claimed");
  return work;
}

bool TargetLane::any_open(std::uint64_t first, std::uint64_t count) const {
  return std::any_of(works_.begin(), works_.end(),
                     [&](const auto& entry) { return entry.first >= first && entry.first - first < count; });
}

// A new extent in work; its digests say zero until something else is known.
Result<TargetLane::Work*> TargetLane::add_work(std::uint64_t extent) {
  for (const auto& run : waiting_zero_)
    if (extent >= run.first && extent - run.first < run.count)
      return make_error(TransportErrc::unexpected_frame, "an extent of a hole that is not acknowledged yet");
  if (works_.size() >= kMaxTargetExtents) return make_error(TransportErrc::unexpected_frame, "too many open extents");
  auto work = std::make_unique<Work>();
  work->blocks = blocks_in_extent(size(), extent);
  const auto first = extent * kBlocksPerExtent;
  for (std::uint32_t b = 0; b < work->blocks; ++b)
    work->digests[b] = zero_block_digest(block_length(size(), first + b));
  if (session_.resumed()) work->shipped_before = session_.index().shipped(extent);
  return works_.emplace(extent, std::move(work)).first->second.get();
}

// A block is sent once: two writes of it could come to pass in any order.
Result<void> TargetLane::mark_sent(Work& work, std::uint64_t first, std::uint64_t end) {
  for (auto b = first; b < end; ++b) {
    if (work.sent.test(b)) return make_error(TransportErrc::unexpected_frame, "a block was sent twice");
    work.sent.set(b);
  }
  return {};
}

Result<void> TargetLane::handle_data() {
  const auto& header = reader_.header();
  const auto place = *incoming_;
  if ((header.flags & kFrameZstd) != 0)
    BH_RETURN_IF_ERROR(
        decompressor_.decompress(reader_.payload(), pool_.at(place.buffer).subspan(place.at, header.length)));
  incoming_.reset();
  const auto extent = header.offset / kExtentSize;
  BH_TRY(auto* work, work_for(extent));
  if (work->ended || !work->claim_sent)
    return make_error(TransportErrc::unexpected_frame, "data for an extent that is not open");
  const auto first = (header.offset - extent * kExtentSize) / kBlockSize;
  const auto end = first + div_up(header.length, kBlockSize);
  BH_RETURN_IF_ERROR(mark_sent(*work, first, end));
  for (auto b = first; b < end; ++b) work->written.set(b);
  if (!verify_) work->digested = false;
  ++work->writes;
  pending_.push_back({place, header.offset, header.length});
  return {};
}

Result<void> TargetLane::handle_zero() {
  const auto& header = reader_.header();
  BH_RETURN_IF_ERROR(check_frame_range(header, size()));
  const auto extent = header.offset / kExtentSize;
  if ((header.flags & kFrameZeroRun) != 0) return handle_zero_run();
  if (header.length > extent_length(extent))
    return make_error(TransportErrc::bad_frame, "zero over more than one extent");
  BH_TRY(auto* work, work_for(extent));
  if (work->ended || !work->claim_sent)
    return make_error(TransportErrc::unexpected_frame, "zero for an extent that is not open");
  const auto first = (header.offset - extent * kExtentSize) / kBlockSize;
  const auto end = first + div_up(header.length, kBlockSize);
  BH_RETURN_IF_ERROR(mark_sent(*work, first, end));
  std::uint32_t zeroed = 0;
  BH_RETURN_IF_ERROR(zero_unread_range({header.offset, header.length}, zeroed));
  if (zeroed == 0) return {};
  for (auto b = first; b < end; ++b) {
    work->zeroed.set(b);
    work->nonzero.reset(b);
    work->digests[b] = zero_block_digest(block_length(size(), extent * kBlocksPerExtent + b));
  }
  return {};
}

Result<void> TargetLane::handle_zero_run() {
  const auto& header = reader_.header();
  if (any_open(header.offset / kExtentSize, div_up(header.length, kExtentSize)))
    return make_error(TransportErrc::unexpected_frame, "a zero run over an open extent");
  zero_run_ = ByteRange{header.offset, header.length};
  hole_zeroed_ = 0;
  return zero_unread_range(*zero_run_, hole_zeroed_);
}

// A run is recorded as zero without being read: it must be known that it is.
Result<void> TargetLane::handle_hole_end() {
  const auto& header = reader_.header();
  const auto first = header.offset / kExtentSize;
  const auto count = div_up(header.length, kExtentSize);
  const auto zeroed = std::exchange(zero_run_, std::nullopt);
  if (zeroed != ByteRange{header.offset, header.length}) {
    bool untouched = session_.blank();
    for (auto extent = first; untouched && extent < first + count; ++extent) {
      const auto state = session_.index().state(extent);
      untouched = state == ExtentState::unknown || state == ExtentState::zero;
    }
    if (!untouched || any_open(first, count))
      return make_error(TransportErrc::unexpected_frame, "the end of a hole that was not zeroed");
    hole_zeroed_ = 0;
  }
  if (waiting_zero_.size() >= kMaxTargetExtents)
    return make_error(TransportErrc::unexpected_frame, "too many open runs");
  if (waiting_.empty() && waiting_zero_.empty()) waiting_since_ = clock_.now();
  waiting_zero_.push_back({first, count, std::exchange(hole_zeroed_, 0)});
  return {};
}

Result<void> TargetLane::handle_extent_end() {
  const auto& header = reader_.header();
  BH_RETURN_IF_ERROR(check_frame_range(header, size()));
  if ((header.flags & kFrameHoleEnd) != 0) return handle_hole_end();
  const auto first = header.offset / kExtentSize;
  const auto count = div_up(header.length, kExtentSize);
  for (auto extent = first; extent < first + count; ++extent) {
    BH_TRY(auto* work, work_for(extent));
    if (work->ended || !work->claim_sent) return make_error(TransportErrc::unexpected_frame, "extent_end out of place");
    if (!work->content_known && work->sent.count() != work->blocks)
      return make_error(TransportErrc::unexpected_frame, "the end of an extent that was neither claimed nor all sent");
    work->ended = true;
    ended_.push_back(extent);
  }
  return {};
}

}  // namespace backhaul
