#include "dataplane/source/source_reader.h"

#include <algorithm>

#include "dataplane/protocol/engine_error.h"

namespace backhaul {
namespace {

// Buffers that reads leave free for compressed payloads.
constexpr std::size_t kReservedBuffers = 2;
// Buffers in use at once under a rate limit: what was read is sent, so reads that run ahead would break the limit.
constexpr std::size_t kLimitedBuffers = 3;

}  // namespace

bool SourceReader::may_go_on() const {
  return pool_.free_count() > kReservedBuffers && !idle() && sender_.wait() <= Clock::Duration::zero();
}

Result<void> SourceReader::issue(bool& progressed) {
  while (!idle() && sender_.wait() <= Clock::Duration::zero()) {
    auto& extent = *ready_.front();
    if (extent.state() == SourceExtentState::ready) extent.become(SourceExtentState::reading);
    BH_TRY(const bool issued, issue_extent(extent));
    if (!issued) return {};
    progressed = true;
    ready_.pop_front();
    extent.become(SourceExtentState::sending);
    sender_.end_if_complete(extent);
  }
  return {};
}

// False when buffers or the queue are short, to be continued.
Result<bool> SourceReader::issue_extent(SourceExtent& extent) {
  while (extent.read_at < extent.end()) {
    const auto listed_end = std::min(extent.end(), skip_unlisted(extent));
    if (extent.read_at >= extent.end()) break;
    BH_TRY(const auto chunk, next_chunk(session_.disk(), extent.read_at, listed_end));
    const auto data = chunk ? chunk->offset : listed_end;
    if (data > extent.read_at) {
      sender_.send_hole(extent, std::exchange(extent.read_at, data), data);
      continue;
    }
    if (buffers_run_short(chunk->length) || queue_.in_flight() + 2 > queue_.capacity()) return false;
    extent.read_at = chunk->end();
    read_chunk(extent, *chunk);
  }
  return true;
}

// Moves read_at over blocks that are not to be sent (the target's content counts as ours); returns where the run of
// listed ones ends.
std::uint64_t SourceReader::skip_unlisted(SourceExtent& extent) {
  auto block = extent.block_at(extent.read_at);
  for (; block < extent.blocks() && !extent.listed.test(block); ++block) {
    extent.own.digests[block] = extent.target.digests[block];
    extent.own.nonzero.set(block, extent.target.nonzero.test(block));
    extent.read_at = extent.block_offset(block + 1);
  }
  while (block < extent.blocks() && extent.listed.test(block)) ++block;
  return extent.block_offset(block);
}

bool SourceReader::buffers_run_short(std::uint64_t needed) const {
  if (pool_.fits(needed)) return false;
  if (options_.limited() && pool_.free_count() + kLimitedBuffers <= kLaneBuffers) return true;
  return pool_.free_count() <= kReservedBuffers;
}

std::uint32_t SourceReader::new_chunk() {
  if (free_chunks_.empty()) {
    chunks_.emplace_back();
    return static_cast<std::uint32_t>(chunks_.size() - 1);
  }
  const auto number = free_chunks_.back();
  free_chunks_.pop_back();
  return number;
}

// Small chunks share a buffer: of scattered changes many are read at once. REQUIRES: buffers do not run short.
void SourceReader::read_chunk(SourceExtent& extent, const ByteRange& range) {
  const auto number = new_chunk();
  auto& chunk = chunks_[number];
  chunk = {&extent, range.offset, range.length, *pool_.place(range.length), 0};
  ++extent.chunks;
  std::uint64_t read_bytes = 0;
  for (std::uint64_t done = 0; done < range.length;) {
    // A chunk lies in one piece of the file, but for the padded tail of a disk whose size is no multiple of the sector.
    const auto segment = session_.disk().map(range.offset + done, range.length - done);
    const auto into = pool_.at(chunk.place, range.length).subspan(done, segment.length);
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
  if (chunk.reads > 0) return;
  free_chunks_.push_back(number);
  sender_.send({&chunk, 1});
}

Result<void> SourceReader::complete(std::span<const Completion> completions, bool& progressed) {
  std::optional<Error> failed;
  whole_.clear();
  for (const auto& completion : completions) {
    const auto number = static_cast<std::uint32_t>(completion.tag >> 32);
    auto& chunk = chunks_[number];
    if (completion.error != 0 || completion.bytes < static_cast<std::uint32_t>(completion.tag)) {
      const auto what = "source " + session_.disk().file().name() + " at " + std::to_string(chunk.offset);
      failed = completion.error != 0 ? make_error(EngineErrc::source_read,
                                                  what + ": " + std::generic_category().message(completion.error))
                                     : make_error(EngineErrc::source_read, what + ": the file became shorter");
    }
    if (--chunk.reads > 0) continue;
    whole_.push_back(chunk);
    free_chunks_.push_back(number);
  }
  if (failed) return std::move(*failed);
  if (!whole_.empty()) progressed = true;
  sender_.send(whole_);
  return {};
}

}  // namespace backhaul
