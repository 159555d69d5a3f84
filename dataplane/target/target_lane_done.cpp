// TargetLane, continued: checkpoints, the read-back, and acknowledgements.
#include "dataplane/target/target_lane.h"

#include <algorithm>

#include "checksum/root_digest.h"
#include "dataplane/protocol/engine_error.h"

namespace backhaul {

std::uint64_t TargetLane::extent_length(std::uint64_t extent) const noexcept {
  return std::min(kExtentSize, size_ - extent * kExtentSize);
}

Result<void> TargetLane::end_extents() {
  std::vector<std::uint64_t> busy;
  for (const auto extent : ended_) {
    const auto& work = *works_.at(extent);
    if (work.writes > 0) {
      busy.push_back(extent);
    } else if (is_recorded(extent, work)) {
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

// Nothing changed and the index says so already: nothing needs to become durable before the acknowledgement.
bool TargetLane::is_recorded(std::uint64_t extent, const Work& work) const {
  const auto state = session_.index().state(extent);
  return work.written.none() && work.zeroed.none() && (state == ExtentState::known || state == ExtentState::zero);
}

Result<void> TargetLane::record(std::uint64_t extent, const Work& work) {
  auto& index = session_.index();
  const auto shipped =
      static_cast<std::uint8_t>(std::min<std::size_t>(work.shipped_before + work.written.count(), kBlocksPerExtent));
  if (is_recorded(extent, work)) return {};
  const bool all_known = work.digested && (!work.unread || work.sent.count() == work.blocks);
  if (all_known && work.nonzero.none() && shipped == 0) return index.store_zero_run(extent, 1);
  if (!all_known || session_.keyed()) return index.store_durable(extent, shipped);
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
  BH_RETURN_IF_ERROR(session_.disk().checkpoint());
  if (verify_) BH_RETURN_IF_ERROR(read_back());
  for (const auto extent : waiting_) BH_RETURN_IF_ERROR(record(extent, *works_.at(extent)));
  for (const auto& run : waiting_zero_) {
    if (run.zeroed_blocks > 0 && verify_) BH_RETURN_IF_ERROR(check_zero_run(run));
    BH_RETURN_IF_ERROR(session_.index().store_zero_run(run.first, run.count));
  }
  BH_RETURN_IF_ERROR(session_.index().sync());
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
      while (free_ops_.empty() || queue_.in_flight() >= queue_.capacity()) BH_RETURN_IF_ERROR(wait_for_completions());
      BH_TRY(const auto place, place_for_read_back(segment.length));
      queue_.read(disk.file().native(), segment.file_offset, pool_.at(place.buffer).subspan(place.at, segment.length),
                  start_op(OpKind::verify_read, place, extent, at, segment.length));
      ++work.verify_reads;
    }
  }
  const auto outstanding = [&] {
    return std::any_of(waiting_.begin(), waiting_.end(),
                       [&](std::uint64_t extent) { return works_.at(extent)->verify_reads > 0; });
  };
  while (outstanding()) BH_RETURN_IF_ERROR(wait_for_completions());
  return {};
}

// Small reads share a buffer, as small frames do, so that the device gets many of them at once.
Result<TargetLane::Place> TargetLane::place_for_read_back(std::uint64_t length) {
  auto place = place_for(length);
  while (!place) {
    BH_RETURN_IF_ERROR(wait_for_completions());
    place = place_for(length);
  }
  return *place;
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
      BH_RETURN_IF_ERROR(disk.file().read_at(segment.file_offset, scratch_.span().first(length)));
      if (!is_zero(scratch_.span().first(length)))
        return make_error(EngineErrc::verify_mismatch,
                          "zeroed range at " + std::to_string(at) + " reads back non-zero");
    }
    at += length;
  }
  return {};
}

}  // namespace backhaul
