#include "dataplane/source/source_lane.h"

#include <algorithm>

#include "checksum/root_digest.h"
#include "dataplane/protocol/engine_error.h"
#include "transport/stream/transport_error.h"

namespace backhaul {
namespace {

constexpr int kFramesPerStep = 64;
// No more pings are answered above this: all open extents with a zero frame for every other block, and more.
constexpr std::size_t kMaxQueuedFrames = kMaxOpenExtents * kBlocksPerExtent;

}  // namespace

SourceLane::SourceLane(SourceSession& session, const SourceLaneOptions& options, ByteStream& stream, IoQueue& queue,
                       BlockHasher& hasher, Clock& clock)
    : session_(session),
      options_(options),
      stream_(stream),
      size_(session.disk().size()),
      headers_(options.epoch, size_),
      frames_(stream),
      writer_(stream),
      pool_(kLaneBuffers, kChunkSize),
      sender_(session, options_, writer_, pool_, hasher, clock),
      reader_(session, options_, queue, pool_, sender_) {
  queue.register_memory(pool_.memory());
}

SourceLane::~SourceLane() {
  for (const auto& [number, extent] : open_) session_.give_back({number, 1, false});
  for (const auto& run : holes_) session_.give_back({run.first, run.count, true});
}

Result<LaneStatus> SourceLane::step(std::span<const Completion> completions) {
  LaneStatus status;
  bool progressed = false;
  BH_RETURN_IF_ERROR(reader_.complete(completions, progressed));
  BH_RETURN_IF_ERROR(read_frames(progressed));
  BH_RETURN_IF_ERROR(take_items(progressed));
  BH_RETURN_IF_ERROR(reader_.issue(progressed));
  // Also while the session says `later`: it waits for the very acknowledgements that the target would gather.
  if ((queue_empty_ || later_) && !lane_end_sent_ && (!open_.empty() || !holes_.empty()) && all_ended()) {
    writer_.push(headers_.make(FrameType::lane_end));
    lane_end_sent_ = true;
  }
  BH_TRY(const bool out, sender_.pump(stream_, progressed));
  status.finished = queue_empty_ && open_.empty() && holes_.empty() && out;
  status.want_write = !out;
  status.again = progressed && out && reader_.may_go_on();
  if (const auto wait = sender_.wait(); wait > Clock::Duration::zero() && !reader_.idle())
    status.wake_after = std::min(status.wake_after, wait);
  if (later_) status.wake_after = std::min<Clock::Duration>(status.wake_after, std::chrono::milliseconds(10));
  return status;
}

bool SourceLane::all_ended() const {
  return std::all_of(open_.begin(), open_.end(),
                     [](const auto& entry) { return entry.second->state() == SourceExtentState::ended; });
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
      send_hole_run({item.first, item.count});
    else
      open_extent(item.first);
  }
  flush_claims();
  return {};
}

void SourceLane::open_extent(std::uint64_t number) {
  const auto& changed = session_.changed();
  auto extent = std::make_unique<SourceExtent>(size_, number,
                                               options_.compare ? SourceExtentState::claimed : SourceExtentState::ready,
                                               changed ? changed->blocks(number) : ExtentBlocks().set());
  auto& opened = *open_.emplace(number, std::move(extent)).first->second;
  if (!options_.compare) {
    reader_.add(opened);
    return;
  }
  if (claim_.end() != number) flush_claims();
  if (claim_.count == 0) claim_.first = number;
  ++claim_.count;
}

void SourceLane::flush_claims() {
  if (claim_.count > 0) writer_.push(headers_.make(FrameType::claim, claim_));
  claim_.count = 0;
}

void SourceLane::send_hole_run(const ExtentRun& run) {
  flush_claims();  // frames stay in the order of the extents
  if (!options_.blank) writer_.push(headers_.make(FrameType::zero, run, kFrameZeroRun));
  writer_.push(headers_.make(FrameType::extent_end, run, kFrameHoleEnd));
  holes_.push_back(run);
}

// ---- frames from the target

Result<void> SourceLane::read_frames(bool& progressed) {
  for (int i = 0; i < kFramesPerStep;) {
    auto step = frames_.step();
    if (!step) {
      if (step.error().is(TransportErrc::closed))
        return make_error(TransportErrc::lost, "the host agent closed a lane before it was done");
      return std::move(step).error();
    }
    if (*step == FrameReader::Step::blocked) return {};
    if (*step == FrameReader::Step::need_buffer) {
      incoming_.resize(frames_.header().payload_size);
      frames_.set_buffer(incoming_);
      continue;
    }
    BH_RETURN_IF_ERROR(handle_frame());
    progressed = true;
    ++i;
  }
  return {};
}

Result<void> SourceLane::handle_frame() {
  const auto& header = frames_.header();
  switch (header.type) {
    case FrameType::digests: BH_RETURN_IF_ERROR(check_frame_range(header, size_)); return handle_digests();
    case FrameType::extent_done: BH_RETURN_IF_ERROR(check_frame_range(header, size_)); return handle_done();
    case FrameType::ping:
      if (writer_.queued_frames() > kMaxQueuedFrames)
        return make_error(TransportErrc::unexpected_frame, "pings whose answers are not read");
      writer_.push(headers_.make(FrameType::pong));
      return {};
    case FrameType::pong: return {};
    case FrameType::error: return error_from_payload(frames_.payload());
    default:
      return make_error(TransportErrc::unexpected_frame,
                        std::string(to_string(header.type)) + " on a lane of a source");
  }
}

Result<void> SourceLane::handle_digests() {
  const auto& header = frames_.header();
  const auto payload = frames_.payload();
  const auto run = extents_of(header);
  const bool zero_run = (header.flags & kFrameZeroRun) != 0;
  BH_RETURN_IF_ERROR(check_digests_payload(header, payload));
  if (run.count > kMaxOpenExtents) return make_error(TransportErrc::bad_frame, "digests of too many extents");
  for (auto number = run.first; number < run.end(); ++number) {
    const auto it = open_.find(number);
    if (it == open_.end() || it->second->state() != SourceExtentState::claimed)
      return make_error(TransportErrc::unexpected_frame, "digests that were not asked for");
    auto& extent = *it->second;
    extent.become(SourceExtentState::ready);
    reader_.add(extent);
    if (zero_run || !payload.empty())
      session_.counters().blocks_compared += session_.changed() ? extent.listed.count() : extent.blocks();
    if (zero_run) continue;
    if ((header.flags & kFrameResumed) != 0) extent.shipped_before = std::min(header.aux, extent.blocks());
    if (payload.empty())
      extent.target_unknown = true;
    else
      decode_digests(payload, extent.target);
  }
  return {};
}

Result<void> SourceLane::handle_done() {
  const auto& header = frames_.header();
  const auto run = extents_of(header);
  if ((header.flags & kFrameZeroRun) != 0) {
    const auto it = std::find(holes_.begin(), holes_.end(), run);
    if (it == holes_.end())
      return make_error(TransportErrc::unexpected_frame, "extent_done of a run that was not sent");
    holes_.erase(it);
    session_.counters().blocks_changed += header.aux;
    session_.done_zero_run(run.first, run.count);
    return {};
  }
  const auto it = open_.find(run.first);
  if (run.count != 1 || it == open_.end() || it->second->state() != SourceExtentState::ended)
    return make_error(TransportErrc::unexpected_frame, "extent_done of an extent that was not ended");
  BH_RETURN_IF_ERROR(finish_extent(*it->second, frames_.payload()));
  open_.erase(it);
  return {};
}

// The extent is done, or goes back to the session, to be sent once more.
Result<void> SourceLane::finish_extent(SourceExtent& extent, Bytes payload) {
  const bool digests = sender_.digests();
  const auto digest = digests ? extent_digest(std::span(extent.own.digests).first(extent.blocks())) : Sha256{};
  bool whole = digests;
  if (!digests || payload.empty()) {
    // Without verification the target still answers for extents in which nothing changed.
    if (session_.verify() != VerifyMode::none)
      return make_error(TransportErrc::bad_frame, "extent_done without a digest");
  } else {
    Sha256 theirs;
    if (payload.size() != theirs.bytes.size())
      return make_error(TransportErrc::bad_frame, "extent_done with a short digest");
    std::memcpy(theirs.bytes.data(), payload.data(), payload.size());
    if (theirs != digest) {
      if (!session_.may_retry_mismatch(extent.number))
        return make_error(EngineErrc::verify_mismatch, "extent at " + std::to_string(extent.offset) + ", twice");
      session_.give_back({extent.number, 1, false});
      extent.become(SourceExtentState::returned);
      return {};
    }
    // Of blocks that are not listed, neither end knows the content: the digest is not the whole extent's.
    whole = !extent.target_unknown || extent.listed.count() >= extent.blocks();
  }
  session_.done(extent.number, whole && options_.compare_by == CompareBy::sha256 ? &digest : nullptr);
  extent.become(SourceExtentState::acknowledged);
  if (extent.shipped_before > extent.changed_blocks)
    session_.counters().resumed_bytes +=
        std::min((extent.shipped_before - extent.changed_blocks) * kBlockSize, extent.length);
  return {};
}

}  // namespace backhaul
