#include "dataplane/target/target_extent.h"

#include <algorithm>

#include "checksum/root_digest.h"
#include "transport/stream/transport_error.h"

namespace backhaul {

Result<void> TargetExtent::receive(const ByteRange& range) {
  if (state() != TargetExtentState::receiving) become(TargetExtentState::receiving);
  for (auto block = block_at(range.offset); block < block_end(range); ++block) {
    if (sent.test(block)) return make_error(TransportErrc::unexpected_frame, "a block was sent twice");
    sent.set(block);
  }
  return {};
}

TargetExtent* TargetExtents::find(std::uint64_t extent) const {
  const auto it = extents_.find(extent);
  return it == extents_.end() ? nullptr : it->second.get();
}

Result<TargetExtent*> TargetExtents::add(std::uint64_t number, TargetExtentState state) {
  for (const auto& hole : holes_)
    if (hole.run.contains(number))
      return make_error(TransportErrc::unexpected_frame, "an extent of a hole that is not acknowledged yet");
  if (extents_.size() >= kMaxTargetExtents) return make_error(TransportErrc::unexpected_frame, "too many open extents");
  auto extent = std::make_unique<TargetExtent>(session_.disk_size(), number, state);
  if (session_.resumed()) extent->shipped_before = session_.index().shipped(number);
  return extents_.emplace(number, std::move(extent)).first->second.get();
}

Result<TargetExtent*> TargetExtents::open(std::uint64_t number) {
  if (auto* extent = find(number)) return extent;
  BH_TRY(auto* extent, add(number, TargetExtentState::receiving));
  BH_TRY(extent->content_known, assume_content(*extent));
  if (!extent->content_known && session_.compare())
    return make_error(TransportErrc::unexpected_frame, "an extent that was not claimed");
  return extent;
}

Result<bool> TargetExtents::load(TargetExtent& extent) {
  auto& [digests, nonzero] = extent.content;
  BH_TRY(const bool good, session_.index().load(extent.number, digests));
  if (!good) return false;
  for (std::uint32_t b = 0; b < extent.blocks(); ++b)
    nonzero.set(b, digests[b] != zero_block_digest(extent.block_length(b)));
  return true;
}

// Whether it is known what an extent holds that was not claimed: it was answered as zero, or the disk is new.
Result<bool> TargetExtents::assume_content(TargetExtent& extent) {
  const auto state = session_.index().state(extent.number);
  if (state == ExtentState::zero || (state == ExtentState::unknown && session_.blank())) return true;
  if (state == ExtentState::known && session_.blank()) return load(extent);  // it is sent once more, after a mismatch
  BH_TRY(const auto run, session_.disk().next_data(extent.offset));
  return !run || run->offset >= extent.end();
}

bool TargetExtents::any_in(const ExtentRun& run) const {
  return std::any_of(extents_.begin(), extents_.end(), [&](const auto& entry) { return run.contains(entry.first); });
}

Result<void> TargetExtents::add_hole(const TargetHole& hole) {
  if (holes_.size() >= kMaxTargetExtents) return make_error(TransportErrc::unexpected_frame, "too many open runs");
  holes_.push_back(hole);
  return {};
}

void TargetExtents::answer(TargetExtent& extent) {
  extent.become(TargetExtentState::answered);
  auto header = headers_.make(FrameType::digests, extent);
  if (extent.shipped_before > 0) {
    header.flags = kFrameResumed;
    header.aux = extent.shipped_before;
  }
  writer_.push_owned(header, encode_digests(extent.content));
}

void TargetExtents::answer_unread(TargetExtent& extent) {
  extent.become(TargetExtentState::answered);
  extent.unread = true;
  writer_.push(headers_.make(FrameType::digests, extent));
}

void TargetExtents::acknowledge(TargetExtent& extent) {
  extent.become(TargetExtentState::acknowledged);
  std::vector<std::byte> payload;
  if (extent.digested) {
    const auto digest = extent_digest(std::span(extent.content.digests).first(extent.blocks()));
    payload.assign(digest.bytes.begin(), digest.bytes.end());
  }
  writer_.push_owned(headers_.make(FrameType::extent_done, extent), std::move(payload));
  extents_.erase(std::uint64_t{extent.number});
}

void TargetExtents::acknowledge_holes() {
  for (const auto& [run, zeroed_blocks] : holes_) {
    auto header = headers_.make(FrameType::extent_done, run, kFrameZeroRun);
    header.aux = zeroed_blocks;
    writer_.push(header);
  }
  holes_.clear();
}

}  // namespace backhaul
