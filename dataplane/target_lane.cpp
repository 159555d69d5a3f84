#include "dataplane/target_lane.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>

#include "dataplane/engine_error.h"
#include "dataplane/scan.h"
#include "transport/tls_stream.h"
#include "transport/transport_error.h"

namespace backhaul {
namespace {

// Frames taken in one step before the lane looks at its completions again.
constexpr int kFramesPerStep = 32;
// Digest frames (2 KiB each) that may wait for the stream: 128 KiB.
constexpr std::size_t kMaxQueuedFrames = 64;

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
  BH_CHECK(complete_ops(completions));
  if (session_.revoked()) return session_.revoked_error();
  LaneStatus status;
  bool progressed = false;
  auto read = read_frames(progressed);
  if (!read) {
    const bool clean = read.error() == make_error_code(TransportErrc::closed);
    if (!clean || !works_.empty() || !waiting_zero_.empty()) return std::move(read).error();
    status.finished = true;
    return status;
  }
  BH_CHECK(flush_pending());
  BH_CHECK(end_extents());
  BH_CHECK(advance_claims(progressed));
  if (checkpoint_due()) BH_CHECK(checkpoint());
  BH_TRY(const bool out, writer_.pump());
  status.want_write = !out;
  status.want_read = pool_.free_count() > 0 || incoming_.has_value();
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

std::uint32_t TargetLane::start_op(OpKind kind, std::uint32_t buffer, std::uint64_t extent, std::uint64_t offset,
                                   std::uint64_t length) {
  const auto id = free_ops_.back();
  free_ops_.pop_back();
  ops_[id] = {kind, buffer, extent, offset, length};
  return id;
}

Result<void> TargetLane::complete_ops(std::span<const Completion> completions) {
  // First give every op and buffer back, so that an error leaves nothing that looks in flight.
  std::optional<Error> failed;
  for (const auto& completion : completions) {
    const Op op = std::exchange(ops_[completion.tag], Op{});
    free_ops_.push_back(static_cast<std::uint32_t>(completion.tag));
    const auto what = op.kind == OpKind::write ? "write target disk " : "read target disk ";
    if (completion.error != 0 || completion.bytes < op.length) {
      if (!failed)
        failed = Error::from_errno(completion.error != 0 ? completion.error : EIO,
                                   what + session_.request().disk + " at " + std::to_string(op.offset));
      continue;
    }
    if (failed) continue;
    auto& work = *works_.at(op.extent);
    const auto content = pool_.at(op.buffer).first(op.length);
    switch (op.kind) {
      case OpKind::write:
        release_buffer(op.buffer);
        --work.writes;
        break;
      case OpKind::claim_read:
        digest_chunk(work, op.extent, op.offset, content);
        pool_.give(op.buffer);
        BH_CHECK(complete_claim_read(op));
        break;
      case OpKind::verify_read:
        digest_chunk(work, op.extent, op.offset, content);
        pool_.give(op.buffer);
        --work.verify_reads;
        break;
      case OpKind::free: break;
    }
  }
  if (failed) return std::move(*failed);
  return {};
}

void TargetLane::release_buffer(std::uint32_t buffer) {
  if (--buffer_uses_[buffer] == 0) pool_.give(buffer);
}

Result<void> TargetLane::complete_claim_read(const Op& op) {
  auto& work = *works_.at(op.extent);
  --work.claim_reads;
  if (work.claim_reads == 0 && reading_claim_ != op.extent && !work.claim_sent) send_digests(op.extent, work);
  return {};
}

void TargetLane::digest_chunk(Work& work, std::uint64_t extent, std::uint64_t offset, Bytes content) {
  std::array<Bytes, kChunkSize / kBlockSize> blocks;
  std::array<std::uint32_t, kChunkSize / kBlockSize> numbers;
  std::array<BlockDigest, kChunkSize / kBlockSize> digests;
  std::size_t count = 0;
  auto number = static_cast<std::uint32_t>((offset - extent * kExtentSize) / kBlockSize);
  for (std::size_t at = 0; at < content.size(); at += kBlockSize, ++number) {
    const auto block = content.subspan(at, std::min<std::size_t>(kBlockSize, content.size() - at));
    if (is_zero(block)) {
      work.digests[number] = zero_block_digest(block.size());
      work.nonzero.reset(number);
      continue;
    }
    blocks[count] = block;
    numbers[count++] = number;
  }
  hasher_.digest(std::span(blocks).first(count), std::span(digests).first(count));
  for (std::size_t i = 0; i < count; ++i) {
    work.digests[numbers[i]] = digests[i];
    work.nonzero.set(numbers[i]);
  }
}

// ---- frames

Result<void> TargetLane::read_frames(bool& progressed) {
  for (int i = 0; i < kFramesPerStep;) {
    BH_TRY(const auto step, reader_.step());
    if (step == FrameReader::Step::blocked) return {};
    if (step == FrameReader::Step::need_buffer) {
      BH_TRY(const bool placed, place_payload());
      if (!placed) return {};
      continue;
    }
    BH_CHECK(handle_frame());
    ++i;
  }
  progressed = true;
  return {};
}

// Gives the announced payload a place; false when all buffers are busy with writes.
Result<bool> TargetLane::place_payload() {
  const auto& header = reader_.header();
  if (header.type == FrameType::data) {
    BH_CHECK(check_frame_range(header, size()));
    if (header.raw_size != header.length)
      return make_error(TransportErrc::bad_frame, "data of " + std::to_string(header.raw_size) +
                                                      " bytes for a range of " + std::to_string(header.length));
    if (!incoming_) incoming_ = pool_.take();
    if (!incoming_) return false;
    reader_.set_buffer((header.flags & kFrameZstd) != 0 ? compressed_.span() : pool_.at(*incoming_));
    return true;
  }
  control_.resize(header.payload_size);
  reader_.set_buffer(control_);
  return true;
}

Result<void> TargetLane::handle_frame() {
  const auto& header = reader_.header();
  if (header.epoch != session_.epoch() && header.type != FrameType::error &&
      !(header.type == FrameType::ping || header.type == FrameType::pong))
    return make_error(EngineErrc::session_fenced, "a frame of epoch " + std::to_string(header.epoch));
  switch (header.type) {
    case FrameType::claim:
      BH_CHECK(check_frame_range(header, size()));
      if (claims_.size() >= kMaxTargetExtents) return make_error(TransportErrc::unexpected_frame, "too many claims");
      claims_.push_back({header.offset, header.length});
      return {};
    case FrameType::data: return handle_data();
    case FrameType::zero: return handle_zero();
    case FrameType::extent_end: return handle_extent_end();
    case FrameType::lane_end: lane_end_ = true; return {};
    case FrameType::ping: {
      FrameHeader pong;
      pong.type = FrameType::pong;
      writer_.push(pong);
      return {};
    }
    case FrameType::pong: return {};
    case FrameType::error: {
      const auto payload = reader_.payload();
      boost::system::error_code code;
      const auto value = boost::json::parse({reinterpret_cast<const char*>(payload.data()), payload.size()}, code);
      if (code || !value.is_object()) return make_error(TransportErrc::bad_message, "error");
      return error_from_json(value.get_object());
    }
    default:
      return make_error(TransportErrc::unexpected_frame,
                        std::string(to_string(header.type)) + " on a lane of a target");
  }
}

Result<TargetLane::Work*> TargetLane::work_for(std::uint64_t extent) {
  if (const auto it = works_.find(extent); it != works_.end()) return it->second.get();
  if (works_.size() >= kMaxTargetExtents) return make_error(TransportErrc::unexpected_frame, "too many open extents");
  auto work = std::make_unique<Work>();
  work->blocks = blocks_in_extent(size(), extent);
  const auto first = extent * kBlocksPerExtent;
  for (std::uint32_t b = 0; b < work->blocks; ++b)
    work->digests[b] = zero_block_digest(block_length(size(), first + b));
  if (session_.resumed()) work->shipped_before = session_.index().shipped(extent);
  return works_.emplace(extent, std::move(work)).first->second.get();
}

Result<void> TargetLane::handle_data() {
  const auto& header = reader_.header();
  const auto buffer = *incoming_;
  if ((header.flags & kFrameZstd) != 0)
    BH_CHECK(decompressor_.decompress(reader_.payload(), pool_.at(buffer).first(header.length)));
  incoming_.reset();
  const auto extent = header.offset / kExtentSize;
  BH_TRY(auto* work, work_for(extent));
  if (work->ended || !work->claim_sent)
    return make_error(TransportErrc::unexpected_frame, "data for an extent that is not open");
  const auto first = (header.offset - extent * kExtentSize) / kBlockSize;
  for (std::uint64_t b = 0; b < div_up(header.length, kBlockSize); ++b) work->written.set(first + b);
  if (!verify_) work->digested = false;
  ++work->writes;
  pending_.push_back({buffer, header.offset, header.length});
  return {};
}

Result<void> TargetLane::handle_zero() {
  const auto& header = reader_.header();
  BH_CHECK(check_frame_range(header, size()));
  const auto extent = header.offset / kExtentSize;
  if ((header.flags & kFrameZeroRun) != 0) return zero_unread_range({header.offset, header.length}, hole_zeroed_);
  if (header.length > extent_length(extent))
    return make_error(TransportErrc::bad_frame, "zero over more than one extent");
  BH_TRY(auto* work, work_for(extent));
  if (work->ended || !work->claim_sent)
    return make_error(TransportErrc::unexpected_frame, "zero for an extent that is not open");
  std::uint32_t zeroed = 0;
  BH_CHECK(zero_unread_range({header.offset, header.length}, zeroed));
  if (zeroed == 0) return {};
  const auto first = (header.offset - extent * kExtentSize) / kBlockSize;
  for (std::uint64_t b = first; b < first + div_up(header.length, kBlockSize); ++b) {
    work->zeroed.set(b);
    work->nonzero.reset(b);
    work->digests[b] = zero_block_digest(block_length(size(), extent * kBlocksPerExtent + b));
  }
  return {};
}

Result<void> TargetLane::handle_extent_end() {
  const auto& header = reader_.header();
  BH_CHECK(check_frame_range(header, size()));
  const auto first = header.offset / kExtentSize;
  const auto count = div_up(header.length, kExtentSize);
  if ((header.flags & kFrameHoleEnd) != 0) {
    if (waiting_.empty() && waiting_zero_.empty()) waiting_since_ = clock_.now();
    waiting_zero_.push_back({first, count, std::exchange(hole_zeroed_, 0)});
    if (waiting_zero_.size() > kMaxTargetExtents)
      return make_error(TransportErrc::unexpected_frame, "too many open runs");
    return {};
  }
  for (auto extent = first; extent < first + count; ++extent) {
    BH_TRY(auto* work, work_for(extent));
    if (work->ended || !work->claim_sent) return make_error(TransportErrc::unexpected_frame, "extent_end out of place");
    work->ended = true;
    ended_.push_back(extent);
  }
  return {};
}

// ---- writing

// The record of an extent must not outlive its content: it is forgotten, durably, before the first write.
Result<void> TargetLane::forget_before_write(std::uint64_t extent, bool& forgot) {
  if (session_.index().state(extent) == ExtentState::unknown) return {};
  BH_CHECK(session_.index().forget(extent));
  forgot = true;
  return {};
}

Result<void> TargetLane::flush_pending() {
  if (pending_.empty()) return {};
  std::vector<ByteRange> ranges;
  BH_CHECK(prepare_pending(ranges));
  BH_CHECK(session_.disk().file().prepare_write(ranges));
  auto range = ranges.begin();
  for (const auto& write : pending_) {
    auto content = Bytes(pool_.at(write.buffer).first(write.length));
    auto& work = *works_.at(write.offset / kExtentSize);
    auto offset = write.offset;
    bool first = true;
    ++buffer_uses_[write.buffer];  // held until all parts are issued
    while (!content.empty()) {
      while (free_ops_.empty() || queue_.in_flight() >= queue_.capacity()) BH_CHECK(wait_for_completions());
      const auto id = start_op(OpKind::write, write.buffer, write.offset / kExtentSize, offset, range->length);
      queue_.write(session_.disk().file().native(), range->offset, content.first(range->length), id);
      ++buffer_uses_[write.buffer];
      if (!first) ++work.writes;  // one was counted when the frame came
      first = false;
      offset += range->length;
      content = content.subspan(range->length);
      ++range;
    }
    release_buffer(write.buffer);
  }
  pending_.clear();
  return {};
}

// Finds a place in the file for everything pending; makes the index forget what will be overwritten.
Result<void> TargetLane::prepare_pending(std::vector<ByteRange>& ranges) {
  bool forgot = false;
  for (const auto& write : pending_) {
    BH_CHECK(forget_before_write(write.offset / kExtentSize, forgot));
    for (std::uint64_t done = 0; done < write.length;) {
      BH_TRY(const auto segment, session_.disk().allocate(write.offset + done, write.length - done));
      ranges.push_back({segment.file_offset, segment.length});
      done += segment.length;
    }
  }
  if (forgot) BH_CHECK(session_.index().sync());
  return {};
}

Result<void> TargetLane::wait_for_completions() {
  BH_TRY(const auto completions, queue_.wait(nullptr, std::chrono::seconds(1)));
  return complete_ops(completions);
}

// Zeroes the blocks of a range that are not zero yet; what the format or the file does not hold costs nothing.
Result<void> TargetLane::zero_unread_range(ByteRange range, std::uint32_t& zeroed_blocks) {
  auto& disk = session_.disk();
  for (auto at = range.offset; at < range.end();) {
    BH_TRY(const auto run, disk.next_data(at));
    if (!run || run->offset >= range.end()) return {};
    at = std::max(at, align_down(run->offset, kBlockSize));
    const auto end = std::min({range.end(), at - at % kChunkSize + kChunkSize, align_up(run->end(), kBlockSize)});
    BH_CHECK(zero_chunk(at, end - at, zeroed_blocks));
    at = end;
  }
  return {};
}

Result<void> TargetLane::zero_chunk(std::uint64_t offset, std::uint64_t length, std::uint32_t& zeroed_blocks) {
  auto& disk = session_.disk();
  const auto segment = disk.map(offset, length);
  if (segment.kind == Segment::Kind::zero) return {};
  if (segment.length != length) return make_error(BaseErrc::internal, "a chunk in two places");
  const auto content = scratch_.span().first(length);
  BH_CHECK(disk.file().read_at(segment.file_offset, content));
  bool forgot = false;
  for (std::uint64_t at = 0; at < length;) {
    auto end = at;
    while (end < length && !is_zero(content.subspan(end, std::min(kBlockSize, length - end))))
      end = std::min(end + kBlockSize, length);
    if (end == at) {
      at = std::min(at + kBlockSize, length);
      continue;
    }
    BH_CHECK(forget_before_write(offset / kExtentSize, forgot));
    if (forgot) BH_CHECK(session_.index().sync());
    BH_CHECK(disk.file().zero_at(segment.file_offset + at, end - at));
    const auto blocks = static_cast<std::uint32_t>(div_up(end - at, kBlockSize));
    zeroed_blocks += blocks;
    session_.blocks_zeroed += blocks;
    at = end;
  }
  return {};
}

// ---- claims

Result<void> TargetLane::advance_claims(bool& progressed) {
  while (writer_.queued_frames() < kMaxQueuedFrames) {
    if (reading_claim_ != kNone) {
      BH_TRY(const bool issued, issue_claim_reads(reading_claim_, *works_.at(reading_claim_)));
      if (!issued) return {};
      continue;
    }
    if (claims_.empty()) return {};
    auto& claim = claims_.front();
    std::uint64_t next = 0;
    BH_CHECK(start_claim(claim.offset / kExtentSize, div_up(claim.end(), kExtentSize), next));
    progressed = true;
    const auto end = claim.end();
    claim.offset = next * kExtentSize;
    if (claim.offset >= end)
      claims_.pop_front();
    else
      claim.length = end - claim.offset;
  }
  return {};
}

Result<void> TargetLane::start_claim(std::uint64_t extent, std::uint64_t claim_end, std::uint64_t& next) {
  auto& index = session_.index();
  next = extent + 1;
  if (works_.contains(extent)) return make_error(TransportErrc::unexpected_frame, "an extent was claimed twice");
  const auto state = index.state(extent);
  if (state == ExtentState::zero) {
    while (next < claim_end && index.state(next) == ExtentState::zero) ++next;
    send_zero_digests(extent, next - extent);
    return {};
  }
  if (state == ExtentState::known) {
    BH_TRY(auto* work, work_for(extent));
    BH_TRY(const bool good, index.load(extent, work->digests));
    if (good) {
      for (std::uint32_t b = 0; b < work->blocks; ++b)
        work->nonzero.set(b,
                          work->digests[b] != zero_block_digest(block_length(size(), extent * kBlocksPerExtent + b)));
      send_digests(extent, *work);
      return {};
    }
    works_.erase(extent);
  }
  BH_TRY(const auto run, session_.disk().next_data(extent * kExtentSize));
  const auto data_extent = run ? run->offset / kExtentSize : extent_count(size());
  if (data_extent > extent) {
    while (next < std::min(claim_end, data_extent) && index.state(next) == ExtentState::unknown) ++next;
    send_zero_digests(extent, next - extent);
    return {};
  }
  BH_TRY(auto* work, work_for(extent));
  work->claim_sent = false;
  reading_claim_ = extent;
  reading_at_ = extent * kExtentSize;
  return {};
}

// Issues reads of the extent's data; false when buffers or ops are short, to be continued. Holes keep their zero
// digests.
Result<bool> TargetLane::issue_claim_reads(std::uint64_t extent, Work& work) {
  auto& disk = session_.disk();
  const auto end = extent * kExtentSize + extent_length(extent);
  while (reading_at_ < end) {
    BH_TRY(const auto run, disk.next_data(reading_at_));
    if (!run || run->offset >= end) break;
    // One buffer always stays for incoming data, so that claims never starve writes.
    if (pool_.free_count() < 2 || free_ops_.empty() || queue_.in_flight() >= queue_.capacity()) return false;
    const auto at = std::max(reading_at_, align_down(run->offset, kBlockSize));
    const auto length = std::min({end, at - at % kChunkSize + kChunkSize, align_up(run->end(), kBlockSize)}) - at;
    const auto segment = disk.map(at, length);
    reading_at_ = at + length;
    if (segment.kind == Segment::Kind::zero) continue;
    if (segment.length != length) return make_error(BaseErrc::internal, "a chunk in two places");
    const auto buffer = *pool_.take();
    queue_.read(disk.file().native(), segment.file_offset, pool_.at(buffer).first(length),
                start_op(OpKind::claim_read, buffer, extent, at, length));
    ++work.claim_reads;
  }
  reading_claim_ = kNone;
  if (work.claim_reads == 0) send_digests(extent, work);
  return true;
}

void TargetLane::send_digests(std::uint64_t extent, Work& work) {
  work.claim_sent = true;
  FrameHeader header;
  header.type = FrameType::digests;
  header.epoch = session_.epoch();
  header.offset = extent * kExtentSize;
  header.length = extent_length(extent);
  if (work.shipped_before > 0) {
    header.flags |= kFrameResumed;
    header.aux = work.shipped_before;
  }
  std::vector<std::byte> payload(kBlocksPerExtent / 8 + work.nonzero.count() * sizeof(BlockDigest));
  auto* at = payload.data() + kBlocksPerExtent / 8;
  for (std::uint32_t b = 0; b < work.blocks; ++b) {
    if (!work.nonzero.test(b)) continue;
    payload[b / 8] |= static_cast<std::byte>(1U << (b % 8));
    std::memcpy(at, work.digests[b].bytes.data(), sizeof(BlockDigest));
    at += sizeof(BlockDigest);
  }
  writer_.push_owned(header, std::move(payload));
}

void TargetLane::send_zero_digests(std::uint64_t first, std::uint64_t count) {
  FrameHeader header;
  header.type = FrameType::digests;
  header.flags = kFrameZeroRun;
  header.epoch = session_.epoch();
  header.offset = first * kExtentSize;
  header.length = std::min(count * kExtentSize, size() - header.offset);
  writer_.push(header);
}

// ---- acknowledging

std::uint64_t TargetLane::extent_length(std::uint64_t extent) const noexcept {
  return std::min(kExtentSize, size_ - extent * kExtentSize);
}

Result<void> TargetLane::end_extents() {
  std::vector<std::uint64_t> busy;
  for (const auto extent : ended_) {
    const auto& work = *works_.at(extent);
    if (work.writes > 0) {
      busy.push_back(extent);
    } else if (work.written.none() && work.zeroed.none()) {
      // Nothing changed: nothing needs to become durable first.
      BH_CHECK(record(extent, work));
      acknowledge(extent, work);
      works_.erase(extent);
    } else {
      if (waiting_.empty() && waiting_zero_.empty()) waiting_since_ = clock_.now();
      waiting_.push_back(extent);
    }
  }
  ended_ = std::move(busy);
  return {};
}

Result<void> TargetLane::record(std::uint64_t extent, const Work& work) {
  auto& index = session_.index();
  const auto shipped =
      static_cast<std::uint8_t>(std::min<std::size_t>(work.shipped_before + work.written.count(), kBlocksPerExtent));
  const bool changed = work.written.any() || work.zeroed.any();
  if (!changed && index.state(extent) != ExtentState::unknown && index.state(extent) != ExtentState::durable) return {};
  if (!work.digested) return index.store_durable(extent, shipped);
  if (work.nonzero.none() && shipped == 0) return index.store_zero_run(extent, 1);
  return index.store(extent, work.digests, shipped);
}

void TargetLane::acknowledge(std::uint64_t extent, const Work& work) {
  FrameHeader header;
  header.type = FrameType::extent_done;
  header.epoch = session_.epoch();
  header.offset = extent * kExtentSize;
  header.length = extent_length(extent);
  std::vector<std::byte> payload;
  if (work.digested) {
    const auto digest = extent_digest(std::span(work.digests).first(work.blocks));
    payload.assign(digest.bytes.begin(), digest.bytes.end());
  }
  writer_.push_owned(header, std::move(payload));
}

bool TargetLane::checkpoint_due() const {
  if (waiting_.empty() && waiting_zero_.empty()) return false;
  if (waiting_.size() >= kCheckpointExtents || waiting_zero_.size() >= kCheckpointExtents) return true;
  if (lane_end_ && ended_.empty()) return true;
  return clock_.now() - waiting_since_ >= kCheckpointDelay;
}

Result<void> TargetLane::checkpoint() {
  BH_CHECK(session_.disk().checkpoint());
  if (verify_) BH_CHECK(read_back());
  for (const auto extent : waiting_) BH_CHECK(record(extent, *works_.at(extent)));
  for (const auto& run : waiting_zero_) {
    if (run.zeroed_blocks > 0 && verify_) BH_CHECK(check_zero_run(run));
    BH_CHECK(session_.index().store_zero_run(run.first, run.count));
  }
  BH_CHECK(session_.index().sync());
  if (session_.revoked()) return session_.revoked_error();
  for (const auto extent : waiting_) {
    acknowledge(extent, *works_.at(extent));
    works_.erase(extent);
  }
  for (const auto& run : waiting_zero_) {
    FrameHeader header;
    header.type = FrameType::extent_done;
    header.flags = kFrameZeroRun;
    header.epoch = session_.epoch();
    header.offset = run.first * kExtentSize;
    header.length = std::min(run.count * kExtentSize, size() - header.offset);
    header.aux = run.zeroed_blocks;
    writer_.push(header);
  }
  waiting_.clear();
  waiting_zero_.clear();
  lane_end_ = false;
  return {};
}

// Reads what was written to the waiting extents from the device and takes its digests from that.
Result<void> TargetLane::read_back() {
  auto& disk = session_.disk();
  for (const auto extent : waiting_) {
    auto& work = *works_.at(extent);
    const auto touched = work.written | work.zeroed;
    const auto begin = extent * kExtentSize;
    const auto end = begin + extent_length(extent);
    for (std::uint32_t b = 0; b < work.blocks;) {
      if (!touched.test(b)) {
        ++b;
        continue;
      }
      const auto at = begin + b * kBlockSize;
      const auto chunk_end = std::min(end, at - at % kChunkSize + kChunkSize);
      auto until = at;
      while (until < chunk_end && b < work.blocks && touched.test(b)) {
        until = std::min(until + kBlockSize, chunk_end);
        ++b;
      }
      const auto segment = disk.map(at, until - at);
      if (segment.kind == Segment::Kind::zero)
        continue;  // zeroed and not allocated: its digest is the zero digest already
      if (segment.length != until - at) return make_error(BaseErrc::internal, "a chunk in two places");
      disk.file().drop_cache(segment.file_offset, segment.length);
      while (pool_.free_count() == 0 || free_ops_.empty() || queue_.in_flight() >= queue_.capacity())
        BH_CHECK(wait_for_completions());
      const auto buffer = *pool_.take();
      queue_.read(disk.file().native(), segment.file_offset, pool_.at(buffer).first(segment.length),
                  start_op(OpKind::verify_read, buffer, extent, at, segment.length));
      ++work.verify_reads;
    }
  }
  const auto outstanding = [&] {
    return std::any_of(waiting_.begin(), waiting_.end(),
                       [&](std::uint64_t extent) { return works_.at(extent)->verify_reads > 0; });
  };
  while (outstanding()) BH_CHECK(wait_for_completions());
  return {};
}

// A hole run in which something was zeroed: whatever the file still holds there must read as zeros.
Result<void> TargetLane::check_zero_run(const ZeroRun& run) {
  auto& disk = session_.disk();
  const auto end = std::min((run.first + run.count) * kExtentSize, size());
  for (auto at = run.first * kExtentSize; at < end;) {
    BH_TRY(const auto data, disk.next_data(at));
    if (!data || data->offset >= end) return {};
    at = std::max(at, align_down(data->offset, kBlockSize));
    const auto length = std::min({end, at - at % kChunkSize + kChunkSize, align_up(data->end(), kBlockSize)}) - at;
    const auto segment = disk.map(at, length);
    if (segment.kind == Segment::Kind::data) {
      disk.file().drop_cache(segment.file_offset, length);
      BH_CHECK(disk.file().read_at(segment.file_offset, scratch_.span().first(length)));
      if (!is_zero(scratch_.span().first(length)))
        return make_error(EngineErrc::verify_mismatch,
                          "zeroed range at " + std::to_string(at) + " reads back non-zero");
    }
    at += length;
  }
  return {};
}

}  // namespace backhaul
