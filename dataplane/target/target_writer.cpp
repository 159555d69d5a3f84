#include "dataplane/target/target_writer.h"

#include <algorithm>

#include "dataplane/protocol/engine_error.h"

namespace backhaul {

void TargetWriter::add(TargetExtent& extent, const ByteRange& range, const BufferPool::Place& place) {
  ++extent.writes;
  pending_.push_back({&extent, range, place});
}

// The record of an extent must not outlive its content. True: it is gone with the index's next sync, which must come
// before the write.
Result<bool> TargetWriter::forget(std::uint64_t extent) {
  if (session_.index().state(extent) == ExtentState::unknown) return false;
  BH_RETURN_IF_ERROR(session_.index().forget(extent));
  return true;
}

Result<void> TargetWriter::flush() {
  if (pending_.empty()) return {};
  BH_RETURN_IF_ERROR(place_pending());
  BH_RETURN_IF_ERROR(session_.disk().file().prepare_write(places_));
  auto place = places_.begin();
  for (const auto& [extent, range, from] : pending_) {
    auto content = Bytes(io_.pool().at(from, range.length));
    for (auto offset = range.offset; offset < range.end(); ++place) {
      while (io_.full()) BH_RETURN_IF_ERROR(io_.wait());
      io_.write(*extent, offset, place->offset, from.buffer, content.first(place->length));
      offset += place->length;
      content = content.subspan(place->length);
    }
    // Both were held since the content came, until all parts are issued.
    io_.pool().release(from.buffer);
    --extent->writes;
  }
  pending_.clear();
  return {};
}

// Finds a place in the file for everything pending; makes the index forget what will be overwritten.
Result<void> TargetWriter::place_pending() {
  places_.clear();
  bool forgot = false;
  for (const auto& [extent, range, from] : pending_) {
    BH_TRY(const bool known, forget(extent->number));
    forgot = forgot || known;
    for (std::uint64_t done = 0; done < range.length;) {
      BH_TRY(const auto segment, session_.disk().allocate(range.offset + done, range.length - done));
      places_.push_back({segment.file_offset, segment.length});
      done += segment.length;
    }
  }
  return forgot ? session_.index().sync() : Result<void>();
}

Result<std::uint32_t> TargetWriter::zero(const ByteRange& range) {
  std::uint32_t blocks = 0;
  for (auto at = range.offset; at < range.end();) {
    BH_TRY(const auto chunk, next_chunk(session_.disk(), at, range.end()));
    if (!chunk) break;
    BH_TRY(const auto zeroed, zero_chunk(*chunk));
    blocks += zeroed;
    at = chunk->end();
  }
  return blocks;
}

Result<std::uint32_t> TargetWriter::zero_chunk(const ByteRange& chunk) {
  auto& file = session_.disk().file();
  BH_TRY(const auto segment, map_chunk(session_.disk(), chunk));
  if (segment.kind == Segment::Kind::zero) return 0U;
  const auto content = scratch_.span().first(chunk.length);
  BH_RETURN_IF_ERROR(file.read_at(segment.file_offset, content));
  std::uint32_t zeroed = 0;
  for (std::uint64_t at = 0; at < chunk.length;) {
    auto end = at;
    while (end < chunk.length && !is_zero(content.subspan(end, std::min(kBlockSize, chunk.length - end))))
      end = std::min(end + kBlockSize, chunk.length);
    if (end == at) {
      at = std::min(at + kBlockSize, chunk.length);
      continue;
    }
    BH_TRY(const bool forgot, forget(chunk.offset / kExtentSize));
    if (forgot) BH_RETURN_IF_ERROR(session_.index().sync());
    BH_RETURN_IF_ERROR(file.zero_at(segment.file_offset + at, end - at));
    zeroed += static_cast<std::uint32_t>(div_up(end - at, kBlockSize));
    at = end;
  }
  session_.blocks_zeroed += zeroed;
  return zeroed;
}

Result<void> TargetWriter::check_zero(const ByteRange& range) {
  auto& disk = session_.disk();
  for (auto at = range.offset; at < range.end();) {
    BH_TRY(const auto chunk, next_chunk(disk, at, range.end()));
    if (!chunk) return {};
    BH_TRY(const auto segment, map_chunk(disk, *chunk));
    at = chunk->end();
    if (segment.kind == Segment::Kind::zero) continue;
    const auto content = scratch_.span().first(chunk->length);
    disk.file().drop_cache(segment.file_offset, chunk->length);
    BH_RETURN_IF_ERROR(disk.file().read_at(segment.file_offset, content));
    if (!is_zero(content))
      return make_error(EngineErrc::verify_mismatch,
                        "zeroed range at " + std::to_string(chunk->offset) + " reads back non-zero");
  }
  return {};
}

}  // namespace backhaul
