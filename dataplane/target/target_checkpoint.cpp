#include "dataplane/target/target_checkpoint.h"

#include <algorithm>

namespace backhaul {

TargetCheckpoint::TargetCheckpoint(TargetSession& session, TargetIo& io, TargetWriter& writer, TargetExtents& extents,
                                   Clock& clock)
    : session_(session),
      io_(io),
      writer_(writer),
      extents_(extents),
      clock_(clock),
      verify_(session.request().verify != VerifyMode::none) {}

void TargetCheckpoint::end(TargetExtent& extent) {
  extent.become(TargetExtentState::ended);
  ended_.push_back(&extent);
}

void TargetCheckpoint::begin_waiting() {
  if (!waiting()) waiting_since_ = clock_.now();
}

Result<void> TargetCheckpoint::end_hole(const TargetHole& hole) {
  begin_waiting();
  return extents_.add_hole(hole);
}

void TargetCheckpoint::take_ended() {
  std::size_t busy = 0;
  for (auto* extent : ended_) {
    if (extent->writes > 0) {
      ended_[busy++] = extent;
    } else if (is_recorded(*extent)) {
      extents_.acknowledge(*extent);
    } else {
      begin_waiting();
      extent->become(TargetExtentState::written);
      written_.push_back(extent);
    }
  }
  ended_.resize(busy);
}

// Nothing changed and the index says so already: nothing needs to become durable before the acknowledgement.
bool TargetCheckpoint::is_recorded(const TargetExtent& extent) const {
  const auto state = session_.index().state(extent.number);
  return extent.written.none() && extent.zeroed.none() && (state == ExtentState::known || state == ExtentState::zero);
}

bool TargetCheckpoint::due(bool hurry) const {
  if (!waiting()) return false;
  if (written_.size() >= kCheckpointExtents || extents_.holes().size() >= kCheckpointExtents) return true;
  return (hurry && ended_.empty()) || wait() <= Clock::Duration::zero();
}

Result<void> TargetCheckpoint::run() {
  BH_RETURN_IF_ERROR(session_.disk().checkpoint());
  for (auto* extent : written_) extent->become(TargetExtentState::durable);
  if (verify_) BH_RETURN_IF_ERROR(read_back());
  for (const auto* extent : written_) BH_RETURN_IF_ERROR(record(*extent));
  for (const auto& [run, zeroed_blocks] : extents_.holes()) {
    if (zeroed_blocks > 0 && verify_) BH_RETURN_IF_ERROR(writer_.check_zero(bytes_of(run, session_.disk_size())));
    BH_RETURN_IF_ERROR(session_.index().store_zero_run(run.first, run.count));
  }
  BH_RETURN_IF_ERROR(session_.index().sync());
  if (session_.revoked()) return session_.revoked_error();
  for (auto* extent : written_) extents_.acknowledge(*extent);
  written_.clear();
  extents_.acknowledge_holes();
  return {};
}

Result<void> TargetCheckpoint::record(const TargetExtent& extent) {
  auto& index = session_.index();
  if (is_recorded(extent)) return {};
  const auto shipped = static_cast<std::uint8_t>(
      std::min<std::size_t>(extent.shipped_before + extent.written.count(), kBlocksPerExtent));
  const bool all_known = extent.digested && (!extent.unread || extent.sent.count() == extent.blocks());
  if (all_known && extent.content.nonzero.none() && shipped == 0) return index.store_zero_run(extent.number, 1);
  if (!all_known || session_.compare_by() == CompareBy::gmac) return index.store_durable(extent.number, shipped);
  return index.store(extent.number, extent.content.digests, shipped);
}

// Reads what was written to the waiting extents from the device and takes their digests from that.
Result<void> TargetCheckpoint::read_back() {
  for (auto* extent : written_) BH_RETURN_IF_ERROR(read_back_of(*extent));
  while (std::any_of(written_.begin(), written_.end(), [](const auto* extent) { return extent->reads > 0; }))
    BH_RETURN_IF_ERROR(io_.wait());
  return {};
}

Result<void> TargetCheckpoint::read_back_of(TargetExtent& extent) {
  const auto touched = extent.written | extent.zeroed;
  for (std::uint32_t b = 0; b < extent.blocks();) {
    if (!touched.test(b)) {
      ++b;
      continue;
    }
    const auto at = extent.block_offset(b);
    const auto chunk_end = std::min(extent.end(), align_down(at, kChunkSize) + kChunkSize);
    auto until = at;
    for (; until < chunk_end && touched.test(b); ++b) until = std::min(until + kBlockSize, chunk_end);
    const ByteRange chunk{at, until - at};
    BH_TRY(const auto segment, map_chunk(session_.disk(), chunk));
    if (segment.kind == Segment::Kind::zero)
      continue;  // zeroed and not allocated: its digest is the zero digest already
    while (io_.full()) BH_RETURN_IF_ERROR(io_.wait());
    // Small reads share a buffer, as small frames do, so that the device gets many of them at once.
    auto place = io_.pool().place(chunk.length);
    for (; !place; place = io_.pool().place(chunk.length)) BH_RETURN_IF_ERROR(io_.wait());
    io_.read(extent, chunk, segment.file_offset, *place);
  }
  return {};
}

}  // namespace backhaul
