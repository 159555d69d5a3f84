// TargetLane, continued: a place in the file for what came, and zeroing.
#include "dataplane/target/target_lane.h"

#include <algorithm>

#include "dataplane/protocol/engine_error.h"

namespace backhaul {

// The record of an extent must not outlive its content: it is forgotten, durably, before the first write.
Result<void> TargetLane::forget_before_write(std::uint64_t extent, bool& forgot) {
  if (session_.index().state(extent) == ExtentState::unknown) return {};
  BH_RETURN_IF_ERROR(session_.index().forget(extent));
  forgot = true;
  return {};
}

Result<void> TargetLane::flush_pending() {
  if (pending_.empty()) return {};
  std::vector<ByteRange> ranges;
  BH_RETURN_IF_ERROR(prepare_pending(ranges));
  BH_RETURN_IF_ERROR(session_.disk().file().prepare_write(ranges));
  auto range = ranges.begin();
  for (const auto& write : pending_) {
    const auto buffer = write.place.buffer;
    auto content = Bytes(pool_.at(buffer).subspan(write.place.at, write.length));
    auto& work = *works_.at(write.offset / kExtentSize);
    auto offset = write.offset;
    bool first = true;
    while (!content.empty()) {
      while (free_ops_.empty() || queue_.in_flight() >= queue_.capacity()) BH_RETURN_IF_ERROR(wait_for_completions());
      const auto id = start_op(OpKind::write, write.place, write.offset / kExtentSize, offset, range->length);
      queue_.write(session_.disk().file().native(), range->offset, content.first(range->length), id);
      ++buffer_uses_[buffer];
      if (!first) ++work.writes;  // one was counted when the frame came
      first = false;
      offset += range->length;
      content = content.subspan(range->length);
      ++range;
    }
    release_buffer(buffer);  // held since it came, until all parts are issued
  }
  pending_.clear();
  return {};
}

// Finds a place in the file for everything pending; makes the index forget what will be overwritten.
Result<void> TargetLane::prepare_pending(std::vector<ByteRange>& ranges) {
  bool forgot = false;
  for (const auto& write : pending_) {
    BH_RETURN_IF_ERROR(forget_before_write(write.offset / kExtentSize, forgot));
    for (std::uint64_t done = 0; done < write.length;) {
      BH_TRY(const auto segment, session_.disk().allocate(write.offset + done, write.length - done));
      ranges.push_back({segment.file_offset, segment.length});
      done += segment.length;
    }
  }
  if (forgot) BH_RETURN_IF_ERROR(session_.index().sync());
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
    BH_RETURN_IF_ERROR(zero_chunk(at, end - at, zeroed_blocks));
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
  BH_RETURN_IF_ERROR(disk.file().read_at(segment.file_offset, content));
  for (std::uint64_t at = 0; at < length;) {
    auto end = at;
    while (end < length && !is_zero(content.subspan(end, std::min(kBlockSize, length - end))))
      end = std::min(end + kBlockSize, length);
    if (end == at) {
      at = std::min(at + kBlockSize, length);
      continue;
    }
    bool forgot = false;
    BH_RETURN_IF_ERROR(forget_before_write(offset / kExtentSize, forgot));
    if (forgot) BH_RETURN_IF_ERROR(session_.index().sync());
    BH_RETURN_IF_ERROR(disk.file().zero_at(segment.file_offset + at, end - at));
    const auto blocks = static_cast<std::uint32_t>(div_up(end - at, kBlockSize));
    zeroed_blocks += blocks;
    session_.blocks_zeroed += blocks;
    at = end;
  }
  return {};
}

}  // namespace backhaul
