#include "dataplane/source/source_lane.h"

#include <algorithm>

#include "dataplane/protocol/engine_error.h"
#include "transport/stream/transport_error.h"

namespace backhaul {
namespace {

// Claims ahead of the answers; the rest of the open extents may be in any later state.
constexpr int kFramesPerStep = 64;
// No more pings are answered above this: all open extents with a zero frame for every other block, and more.
constexpr std::size_t kMaxQueuedFrames = kMaxOpenExtents * kBlocksPerExtent;
// Buffers that reads leave free for compressed payloads.
constexpr std::size_t kReservedBuffers = 2;
// Buffers in use at once under a rate limit: what was read is sent, so reads that run ahead would break the limit.
constexpr std::size_t kLimitedBuffers = 3;

}  // namespace

SourceLane::SourceLane(SourceSession& session, const SourceLaneOptions& options, ByteStream& stream, IoQueue& queue,
                       BlockHasher& hasher, Clock& clock)
    : session_(session),
      options_(options),
      stream_(stream),
      queue_(queue),
      hasher_(hasher),
      clock_(clock),
      size_(session.disk().size()),
      digest_(options.compare || session.verify() != VerifyMode::none),
      reader_(stream),
      writer_(stream),
      pool_(kLaneBuffers, kChunkSize),
      compressor_(options.compress),
      buffer_uses_(kLaneBuffers, 0) {
  queue_.register_memory(pool_.memory());
}

SourceLane::~SourceLane() {
  for (const auto& [extent, open] : open_) session_.give_back({extent, 1, false});
  for (const auto& run : holes_) session_.give_back({run.first, run.count, true});
}

std::uint64_t SourceLane::extent_length(std::uint64_t extent) const noexcept {
  return std::min(kExtentSize, size_ - extent * kExtentSize);
}

FrameHeader SourceLane::make_header(FrameType type, std::uint64_t offset, std::uint64_t length) const {
  FrameHeader header;
  header.type = type;
  header.epoch = options_.epoch;
  header.offset = offset;
  header.length = length;
  return header;
}

Result<LaneStatus> SourceLane::step(std::span<const Completion> completions) {
  LaneStatus status;
  bool progressed = false;
  BH_RETURN_IF_ERROR(complete_reads(completions, progressed));
  BH_RETURN_IF_ERROR(read_frames(progressed));
  BH_RETURN_IF_ERROR(take_items(progressed));
  BH_RETURN_IF_ERROR(issue_reads(progressed));
  // Also while the session says `later`: it waits for the very acknowledgements that the target would gather.
  if ((queue_empty_ || later_) && !lane_end_sent_ && (!open_.empty() || !holes_.empty()) &&
      std::all_of(open_.begin(), open_.end(), [](const auto& entry) { return entry.second->ended; })) {
    writer_.push(make_header(FrameType::lane_end, 0, 0));
    lane_end_sent_ = true;
  }
  BH_TRY(const bool out, writer_.pump());
  gauge_.pushed(clock_.now(), stream_.wire_bytes_sent(), !out);
  for (const auto token : writer_.take_released()) {
    release(static_cast<std::uint32_t>(token));
    progressed = true;
  }
  status.finished = queue_empty_ && open_.empty() && holes_.empty() && out;
  status.want_write = !out;
  status.again =
      progressed && out && pool_.free_count() > kReservedBuffers && !ready_.empty() && clock_.now() >= not_before_;
  if (const auto wait = not_before_ - clock_.now(); wait > Clock::Duration::zero() && !ready_.empty())
    status.wake_after = std::min(status.wake_after, wait);
  if (later_) status.wake_after = std::min<Clock::Duration>(status.wake_after, std::chrono::milliseconds(10));
  return status;
}

// ---- the queue of extents

Result<void> SourceLane::take_items(bool& progressed) {
  later_ = false;
  while (open_.size() + holes_.size() < kMaxOpenExtents) {
    SourceSession::Item item;
    BH_TRY(const auto taken, session_.take(item));
    queue_empty_ = taken == SourceSession::Take::none;
    later_ = taken == SourceSession::Take::later;
    if (taken != SourceSession::Take::item) break;
    progressed = true;
    lane_end_sent_ = false;
    if (item.hole)
      send_hole_run(item);
    else
      open_extent(item.first);
  }
  flush_claims();
  return {};
}

void SourceLane::open_extent(std::uint64_t extent) {
  auto open = std::make_unique<Open>();
  open->blocks = blocks_in_extent(size_, extent);
  open->read_at = extent * kExtentSize;
  const auto first = extent * kBlocksPerExtent;
  for (std::uint32_t b = 0; b < open->blocks; ++b) open->own[b] = zero_block_digest(block_length(size_, first + b));
  if (session_.changed())
    open->listed = session_.changed()->blocks(extent);
  else
    open->listed.set();
  open_.emplace(extent, std::move(open));
  if (!options_.compare) {
    ready_.push_back(extent);
    return;
  }
  if (claim_count_ > 0 && claim_first_ + claim_count_ != extent) flush_claims();
  if (claim_count_ == 0) claim_first_ = extent;
  ++claim_count_;
}

void SourceLane::flush_claims() {
  if (claim_count_ == 0) return;
  const auto offset = claim_first_ * kExtentSize;
  writer_.push(make_header(FrameType::claim, offset, std::min(claim_count_ * kExtentSize, size_ - offset)));
  claim_count_ = 0;
}

void SourceLane::send_hole_run(const SourceSession::Item& item) {
  flush_claims();  // frames stay in the order of the extents
  const auto offset = item.first * kExtentSize;
  const auto length = std::min(item.count * kExtentSize, size_ - offset);
  if (!options_.blank) {
    auto zero = make_header(FrameType::zero, offset, length);
    zero.flags = kFrameZeroRun;
    writer_.push(zero);
  }
  auto end = make_header(FrameType::extent_end, offset, length);
  end.flags = kFrameHoleEnd;
  writer_.push(end);
  holes_.push_back({item.first, item.count});
}

// ---- frames from the target

Result<void> SourceLane::read_frames(bool& progressed) {
  for (int i = 0; i < kFramesPerStep;) {
    auto step = reader_.step();
    if (!step) {
      if (step.error().is(TransportErrc::closed))
        return make_error(TransportErrc::lost, "the host agent closed a lane before it was done");
      return std::move(step).error();
    }
    if (*step == FrameReader::Step::blocked) return {};
    if (*step == FrameReader::Step::need_buffer) {
      BH_RETURN_IF_ERROR(place_payload());
      continue;
    }
    BH_RETURN_IF_ERROR(handle_frame());
    progressed = true;
    ++i;
  }
  return {};
}

Result<void> SourceLane::place_payload() {
  incoming_.resize(reader_.header().payload_size);
  reader_.set_buffer(incoming_);
  return {};
}

Result<void> SourceLane::handle_frame() {
  const auto& header = reader_.header();
  switch (header.type) {
    case FrameType::digests: BH_RETURN_IF_ERROR(check_frame_range(header, size_)); return handle_digests();
    case FrameType::extent_done: BH_RETURN_IF_ERROR(check_frame_range(header, size_)); return handle_done();
    case FrameType::ping:
      if (writer_.queued_frames() > kMaxQueuedFrames)
        return make_error(TransportErrc::unexpected_frame, "pings whose answers are not read");
      writer_.push(make_header(FrameType::pong, 0, 0));
      return {};
    case FrameType::pong: return {};
    case FrameType::error: return error_from_payload(reader_.payload());
    default:
      return make_error(TransportErrc::unexpected_frame,
                        std::string(to_string(header.type)) + " on a lane of a source");
  }
}

Result<void> SourceLane::handle_digests() {
  const auto& header = reader_.header();
  const auto payload = reader_.payload();
  const auto first = header.offset / kExtentSize;
  const auto count = div_up(header.length, kExtentSize);
  const bool zero_run = (header.flags & kFrameZeroRun) != 0;
  BH_RETURN_IF_ERROR(check_digests_payload(header, payload));
  if (count > kMaxOpenExtents) return make_error(TransportErrc::bad_frame, "digests of too many extents");
  for (auto extent = first; extent < first + count; ++extent) {
    const auto it = open_.find(extent);
    if (it == open_.end() || it->second->have_target || !options_.compare)
      return make_error(TransportErrc::unexpected_frame, "digests that were not asked for");
    auto& open = *it->second;
    open.have_target = true;
    for (std::uint32_t b = 0; b < open.blocks; ++b) open.target[b] = open.own[b];  // zero so far
    ready_.push_back(extent);
    if (zero_run || !payload.empty())
      session_.counters().blocks_compared += session_.changed() ? open.listed.count() : open.blocks;
    if (zero_run) continue;
    if ((header.flags & kFrameResumed) != 0) open.shipped_before = std::min<std::uint32_t>(header.aux, open.blocks);
    if (payload.empty()) {
      open.target_unknown = true;
      continue;
    }
    constexpr std::size_t kBitmap = kBlocksPerExtent / 8;
    for (std::uint32_t b = 0; b < kBlocksPerExtent; ++b)
      open.target_nonzero.set(b, (static_cast<unsigned>(payload[b / 8]) >> (b % 8) & 1U) != 0);
    const auto* at = payload.data() + kBitmap;
    for (std::uint32_t b = 0; b < open.blocks; ++b) {
      if (!open.target_nonzero.test(b)) continue;
      std::memcpy(open.target[b].bytes.data(), at, sizeof(BlockDigest));
      at += sizeof(BlockDigest);
    }
  }
  return {};
}

Result<void> SourceLane::handle_done() {
  const auto& header = reader_.header();
  const auto first = header.offset / kExtentSize;
  const auto count = div_up(header.length, kExtentSize);
  if ((header.flags & kFrameZeroRun) != 0) {
    const auto it = std::find_if(holes_.begin(), holes_.end(),
                                 [&](const HoleRun& run) { return run.first == first && run.count == count; });
    if (it == holes_.end())
      return make_error(TransportErrc::unexpected_frame, "extent_done of a run that was not sent");
    holes_.erase(it);
    session_.counters().blocks_changed += header.aux;
    session_.done_zero_run(first, count);
    return {};
  }
  const auto it = open_.find(first);
  if (count != 1 || it == open_.end() || !it->second->ended)
    return make_error(TransportErrc::unexpected_frame, "extent_done of an extent that was not ended");
  return finish_extent(first, *it->second, reader_.payload());
}

Result<void> SourceLane::finish_extent(std::uint64_t extent, Open& open, Bytes payload) {
  if (!digest_ || payload.empty()) {
    if (session_.verify() != VerifyMode::none)
      return make_error(TransportErrc::bad_frame, "extent_done without a digest");
    // Without verification the target still answers for extents in which nothing changed.
    const auto digest = digest_ ? extent_digest(std::span(open.own).first(open.blocks)) : Sha256{};
    session_.done(extent, digest_ && !options_.keyed ? &digest : nullptr);
  } else {
    Sha256 theirs;
    if (payload.size() != theirs.bytes.size())
      return make_error(TransportErrc::bad_frame, "extent_done with a short digest");
    std::memcpy(theirs.bytes.data(), payload.data(), payload.size());
    const auto digest = extent_digest(std::span(open.own).first(open.blocks));
    if (theirs != digest) {
      if (!session_.may_retry_mismatch(extent))
        return make_error(EngineErrc::verify_mismatch, "extent at " + std::to_string(extent * kExtentSize) + ", twice");
      session_.give_back({extent, 1, false});
      open_.erase(extent);
      return {};
    }
    // Of blocks that are not listed, neither end knows the content: the digest is not the whole extent's.
    const bool whole = !open.target_unknown || open.listed.count() >= open.blocks;
    session_.done(extent, whole && !options_.keyed ? &digest : nullptr);
  }
  if (open.shipped_before > open.changed_blocks)
    session_.counters().resumed_bytes +=
        std::min((open.shipped_before - open.changed_blocks) * kBlockSize, extent_length(extent));
  open_.erase(extent);
  return {};
}

// ---- reading

Result<void> SourceLane::issue_reads(bool& progressed) {
  while (!ready_.empty() && clock_.now() >= not_before_) {
    const auto extent = ready_.front();
    auto& open = *open_.at(extent);
    BH_TRY(const bool issued, issue_extent_reads(extent, open));
    if (!issued) return {};
    progressed = true;
    ready_.pop_front();
    open.issued = true;
    end_if_complete(extent, open);
  }
  return {};
}

// False when buffers or the queue are short, to be continued.
Result<bool> SourceLane::issue_extent_reads(std::uint64_t extent, Open& open) {
  const auto base = extent * kExtentSize;
  const auto end = base + extent_length(extent);
  while (open.read_at < end) {
    const auto listed_end = std::min(end, skip_unlisted(base, open));
    if (open.read_at >= end) break;
    BH_TRY(const auto run, session_.disk().next_data(open.read_at));
    const auto data = run ? std::min(align_down(run->offset, kBlockSize), listed_end) : listed_end;
    if (data > open.read_at) {
      skip_hole(extent, open, open.read_at, data);
      open.read_at = data;
      continue;
    }
    const auto at = open.read_at;
    const auto until = std::min({listed_end, at - at % kChunkSize + kChunkSize, align_up(run->end(), kBlockSize)});
    if (buffers_run_short(until - at) || queue_.in_flight() + 2 > queue_.capacity()) return false;
    open.read_at = until;
    read_chunk(extent, open, at, until - at);
  }
  return true;
}

// Moves read_at over blocks that are not to be sent (the target's content counts as ours); returns where the run of
// listed ones ends.
std::uint64_t SourceLane::skip_unlisted(std::uint64_t base, Open& open) {
  auto number = static_cast<std::uint32_t>((open.read_at - base) / kBlockSize);
  for (; number < open.blocks && !open.listed.test(number); ++number) {
    open.own[number] = open.target[number];
    open.own_nonzero.set(number, open.target_nonzero.test(number));
    open.read_at = base + (number + 1) * kBlockSize;
  }
  while (number < open.blocks && open.listed.test(number)) ++number;
  return base + number * kBlockSize;
}

bool SourceLane::buffers_run_short(std::uint64_t needed) const {
  if (filling_ && filled_ + align_up(needed, kIoAlignment) <= kChunkSize) return false;
  const bool limited = options_.limit != nullptr && !options_.limit->unlimited();
  if (limited && pool_.free_count() + kLimitedBuffers <= kLaneBuffers) return true;
  return pool_.free_count() <= kReservedBuffers;
}

// Small chunks share a buffer: of scattered changes many are read at once. REQUIRES: buffers do not run short.
std::uint32_t SourceLane::place_chunk(std::uint64_t length) {
  const auto needed = align_up(length, kIoAlignment);
  if (filling_ && filled_ + needed > kChunkSize) release(*std::exchange(filling_, std::nullopt));
  if (!filling_) {
    filling_ = *pool_.take();
    filled_ = 0;
    buffer_uses_[*filling_] = 1;
  }
  if (free_chunks_.empty()) {
    free_chunks_.push_back(static_cast<std::uint32_t>(chunks_.size()));
    chunks_.emplace_back();
  }
  const auto number = free_chunks_.back();
  free_chunks_.pop_back();
  chunks_[number] = {0, 0, length, *filling_, filled_, 0};
  ++buffer_uses_[*filling_];
  filled_ += needed;
  if (filled_ + kBlockSize > kChunkSize) release(*std::exchange(filling_, std::nullopt));
  return number;
}

void SourceLane::read_chunk(std::uint64_t extent, Open& open, std::uint64_t offset, std::uint64_t length) {
  const auto number = place_chunk(length);
  auto& chunk = chunks_[number];
  chunk.extent = extent;
  chunk.offset = offset;
  ++open.chunks;
  std::uint64_t read_bytes = 0;
  for (std::uint64_t done = 0; done < length;) {
    // A chunk lies in one piece of the file, but for the padded tail of a disk whose size is no multiple of the sector.
    const auto segment = session_.disk().map(offset + done, length - done);
    const auto into = pool_.at(chunk.buffer).subspan(chunk.at + done, segment.length);
    if (segment.kind == Segment::Kind::zero) {
      std::fill(into.begin(), into.end(), std::byte{0});
    } else {
      queue_.read(session_.disk().file().native(), segment.file_offset, into,
                  std::uint64_t{number} << 32 | segment.length);
      ++chunk.reads;
      read_bytes += segment.length;
    }
    done += segment.length;
  }
  session_.counters().bytes_read += read_bytes;
  if (chunk.reads == 0) process_chunks({&number, 1});
}

// Blocks in a hole are zero at the source; their digests are the zero digests already.
void SourceLane::skip_hole(std::uint64_t extent, Open& open, std::uint64_t from, std::uint64_t to) {
  const auto base = extent * kExtentSize;
  auto run_begin = to;
  for (auto at = from; at < to; at += kBlockSize) {
    const auto number = static_cast<std::uint32_t>((at - base) / kBlockSize);
    if (block_differs(open, number)) {
      run_begin = std::min(run_begin, at);
      ++open.changed_blocks;
      continue;
    }
    if (run_begin < at) send_zero(run_begin, at - run_begin);
    run_begin = to;
  }
  if (run_begin < to) send_zero(run_begin, to - run_begin);
}

Result<void> SourceLane::complete_reads(std::span<const Completion> completions, bool& progressed) {
  std::optional<Error> failed;
  std::vector<std::uint32_t> whole;
  for (const auto& completion : completions) {
    const auto number = static_cast<std::uint32_t>(completion.tag >> 32);
    auto& chunk = chunks_[number];
    --chunk.reads;
    if (completion.error != 0 || completion.bytes < static_cast<std::uint32_t>(completion.tag)) {
      const auto what = "source " + session_.disk().file().name() + " at " + std::to_string(chunk.offset);
      failed = completion.error != 0 ? make_error(EngineErrc::source_read,
                                                  what + ": " + std::generic_category().message(completion.error))
                                     : make_error(EngineErrc::source_read, what + ": the file became shorter");
    }
    if (chunk.reads == 0) whole.push_back(number);
  }
  if (failed) return std::move(*failed);
  if (!whole.empty()) progressed = true;
  process_chunks(whole);
  return {};
}

}  // namespace backhaul
