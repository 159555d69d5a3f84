// TargetLane, continued: digests of claimed extents, ahead of the data.
#include "dataplane/target/target_lane.h"

#include <algorithm>

#include "transport/stream/transport_error.h"

namespace backhaul {
namespace {

// Digest frames (2 KiB each) that may wait for the stream: 128 KiB.
constexpr std::size_t kMaxQueuedFrames = 64;

}  // namespace

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
    BH_RETURN_IF_ERROR(start_claim(claim.offset / kExtentSize, div_up(claim.end(), kExtentSize), next));
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

// Whether it is known what an extent holds that was not claimed: it was answered as zero, or the disk is new.
Result<bool> TargetLane::assume_content(std::uint64_t extent, Work& work) {
  auto& index = session_.index();
  const auto state = index.state(extent);
  if (state == ExtentState::zero || (state == ExtentState::unknown && session_.blank())) return true;
  if (state == ExtentState::known && session_.blank()) {  // it is sent once more, after a mismatch
    BH_TRY(const bool good, index.load(extent, work.digests));
    if (good) mark_nonzero(extent, work);
    return good;
  }
  BH_TRY(const auto run, session_.disk().next_data(extent * kExtentSize));
  return !run || run->offset >= extent * kExtentSize + extent_length(extent);
}

void TargetLane::mark_nonzero(std::uint64_t extent, Work& work) {
  const auto first = extent * kBlocksPerExtent;
  for (std::uint32_t b = 0; b < work.blocks; ++b)
    work.nonzero.set(b, work.digests[b] != zero_block_digest(block_length(size(), first + b)));
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
  if (state == ExtentState::known && !session_.keyed()) {
    BH_TRY(auto* work, add_work(extent));
    BH_TRY(const bool good, index.load(extent, work->digests));
    if (good) {
      mark_nonzero(extent, *work);
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
  BH_TRY(auto* work, add_work(extent));
  if (claim_without_reading(extent)) {
    work->unread = true;
    send_no_digests(extent);
    return {};
  }
  work->claim_sent = false;
  reading_claim_ = extent;
  reading_at_ = extent * kExtentSize;
  return {};
}

// The cost of a list of changes must follow the changes: reading an extent of 4 MiB to spare a block of it is worth it
// only where the digests make the root provable, or where an earlier run shipped the very blocks (acknowledged work is
// not sent again).
bool TargetLane::claim_without_reading(std::uint64_t extent) const {
  if (!session_.takes_changes_unread()) return false;
  return !session_.resumed() || session_.index().shipped(extent) == 0;
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
    buffer_uses_[buffer] = 1;
    queue_.read(disk.file().native(), segment.file_offset, pool_.at(buffer).first(length),
                start_op(OpKind::claim_read, {buffer, 0}, extent, at, length));
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

void TargetLane::send_no_digests(std::uint64_t extent) {
  FrameHeader header;
  header.type = FrameType::digests;
  header.epoch = session_.epoch();
  header.offset = extent * kExtentSize;
  header.length = extent_length(extent);
  writer_.push(header);
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

}  // namespace backhaul
