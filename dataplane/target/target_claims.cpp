#include "dataplane/target/target_claims.h"

#include <algorithm>

#include "transport/stream/transport_error.h"

namespace backhaul {
namespace {

// Digest frames (2 KiB each) that may wait for the stream: 128 KiB.
constexpr std::size_t kMaxQueuedDigests = 64;

}  // namespace

Result<void> TargetClaims::add(const ExtentRun& claim) {
  if (claims_.size() >= kMaxTargetExtents) return make_error(TransportErrc::unexpected_frame, "too many claims");
  claims_.push_back(claim);
  return {};
}

Result<void> TargetClaims::advance(bool& progressed) {
  while (extents_.queued_frames() < kMaxQueuedDigests) {
    if (reading_ != nullptr) {
      BH_TRY(const bool issued, issue_reads());
      if (!issued) return {};
      continue;
    }
    if (claims_.empty()) return {};
    auto& claim = claims_.front();
    BH_TRY(const auto next, start(claim));
    progressed = true;
    claim = {next, claim.end() - next};
    if (claim.count == 0) claims_.pop_front();
  }
  return {};
}

// Answers the claim's first extents, or begins to read the first one. Returns which one is next.
Result<std::uint64_t> TargetClaims::start(const ExtentRun& claim) {
  auto& index = session_.index();
  const auto number = claim.first;
  auto next = number + 1;
  if (extents_.find(number) != nullptr)
    return make_error(TransportErrc::unexpected_frame, "an extent was claimed twice");
  const auto state = index.state(number);
  if (state == ExtentState::zero) {
    while (next < claim.end() && index.state(next) == ExtentState::zero) ++next;
    extents_.answer_zero({number, next - number});
    return next;
  }
  if (state == ExtentState::known && session_.compare_by() == CompareBy::sha256) {
    BH_TRY(auto* extent, extents_.add(number, TargetExtentState::claimed));
    BH_TRY(const bool good, extents_.load(*extent));
    if (good) {
      extents_.answer(*extent);
      return next;
    }
    extents_.erase(*extent);
  }
  BH_TRY(const auto run, session_.disk().next_data(number * kExtentSize));
  const auto data_extent = run ? run->offset / kExtentSize : claim.end();
  if (data_extent > number) {
    while (next < std::min(claim.end(), data_extent) && index.state(next) == ExtentState::unknown) ++next;
    extents_.answer_zero({number, next - number});
    return next;
  }
  BH_TRY(auto* extent, extents_.add(number, TargetExtentState::claimed));
  if (stays_unread(number)) {
    extents_.answer_unread(*extent);
    return next;
  }
  reading_ = extent;
  reading_at_ = extent->offset;
  return next;
}

// The cost of a list of changes must follow the changes: reading an extent of 4 MiB to spare a block of it is worth it
// only where the digests make the root provable, or where an earlier run shipped the very blocks (acknowledged work is
// not sent again).
bool TargetClaims::stays_unread(std::uint64_t extent) const {
  if (!session_.takes_changes_unread()) return false;
  return !session_.resumed() || session_.index().shipped(extent) == 0;
}

// Issues reads of the extent's data; false when buffers or the queue are short, to be continued. Holes keep their zero
// digests.
Result<bool> TargetClaims::issue_reads() {
  auto& disk = session_.disk();
  auto& pool = io_.pool();
  auto& extent = *reading_;
  while (reading_at_ < extent.end()) {
    BH_TRY(const auto chunk, next_chunk(disk, reading_at_, extent.end()));
    if (!chunk) break;
    // One buffer always stays for incoming data, so that claims never starve writes.
    if (pool.free_count() < 2 || io_.full()) return false;
    BH_TRY(const auto segment, map_chunk(disk, *chunk));
    reading_at_ = chunk->end();
    if (segment.kind == Segment::Kind::data) io_.read(extent, *chunk, segment.file_offset, {*pool.take(), 0});
  }
  reading_ = nullptr;
  if (extent.reads == 0)
    extents_.answer(extent);
  else
    extent.become(TargetExtentState::reading);
  return true;
}

}  // namespace backhaul
