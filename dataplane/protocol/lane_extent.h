// What the lanes of both ends share of an extent that is under way: where it lies, the one way its state changes, its
// frames' headers, and the chunks in which its content moves. A lane's; one thread.
#pragma once

#include <algorithm>
#include <string_view>

#include "dataplane/disk/disk.h"
#include "dataplane/protocol/transfer.h"

namespace backhaul {

// Whole extents in a row: what claims, holes and acknowledgements are of.
struct ExtentRun {
  std::uint64_t first = 0, count = 0;
  std::uint64_t end() const noexcept { return first + count; }
  bool contains(std::uint64_t extent) const noexcept { return extent >= first && extent < end(); }
  friend bool operator==(const ExtentRun&, const ExtentRun&) = default;
};
// REQUIRES: check_frame_range() took the frame.
inline ExtentRun extents_of(const FrameHeader& header) noexcept {
  return {header.offset / kExtentSize, div_up(header.length, kExtentSize)};
}
inline ByteRange bytes_of(const ExtentRun& run, std::uint64_t disk_size) noexcept {
  return {run.first * kExtentSize, extent_length(disk_size, run.first, run.count)};
}

// A change of state that the table does not know: a defect of ours. Says which, and dies.
[[noreturn]] void abort_transition(std::uint64_t extent, std::string_view from, std::string_view to) noexcept;

// One extent as a range of the disk, and its state. `State` is an enum with may_follow(from, to), the table, and
// to_string().
template <typename State>
class LaneExtent : public ByteRange {
 public:
  LaneExtent(std::uint64_t disk_size, std::uint64_t extent, State state)
      : ByteRange(bytes_of({extent, 1}, disk_size)), number(extent), state_(state) {}

  State state() const noexcept { return state_; }
  // A peer's fault never leads here: whoever takes a frame looks at state() first.
  void become(State next) noexcept {
    if (!may_follow(state_, next)) abort_transition(number, to_string(state_), to_string(next));
    state_ = next;
  }

  std::uint32_t blocks() const noexcept { return static_cast<std::uint32_t>(div_up(length, kBlockSize)); }
  // The block of the extent at an offset of the disk.
  std::uint32_t block_at(std::uint64_t disk_offset) const noexcept {
    return static_cast<std::uint32_t>((disk_offset - offset) / kBlockSize);
  }
  // The block behind a range of the extent that ends with a block.
  std::uint32_t block_end(const ByteRange& range) const noexcept {
    return static_cast<std::uint32_t>(div_up(range.end() - offset, kBlockSize));
  }
  std::uint64_t block_offset(std::uint64_t block) const noexcept { return offset + block * kBlockSize; }
  std::uint64_t block_length(std::uint64_t block) const noexcept {
    return std::min(kBlockSize, end() - block_offset(block));
  }

  const std::uint64_t number;

 private:
  State state_;
};

// The headers of one end's frames: all carry the epoch of the run.
class LaneHeaders {
 public:
  LaneHeaders(std::uint64_t epoch, std::uint64_t disk_size) : epoch_(epoch), disk_size_(disk_size) {}
  FrameHeader make(FrameType type, const ByteRange& range = {}, std::uint8_t flags = 0) const noexcept {
    return {.type = type, .flags = flags, .epoch = epoch_, .offset = range.offset, .length = range.length};
  }
  FrameHeader make(FrameType type, const ExtentRun& run, std::uint8_t flags = 0) const noexcept {
    return make(type, bytes_of(run, disk_size_), flags);
  }

 private:
  std::uint64_t epoch_, disk_size_;
};

// The first piece of the disk in [at, end) that may hold non-zero bytes: whole blocks (but for the disk's tail) of one
// chunk. Nothing when there is none. REQUIRES: `at` begins a block, `end` ends one.
Result<std::optional<ByteRange>> next_chunk(const Disk& disk, std::uint64_t at, std::uint64_t end);
// Where a chunk of a disk that is written lies. Its formats give a chunk one place: BaseErrc::internal otherwise.
Result<Segment> map_chunk(const Disk& disk, const ByteRange& chunk);

}  // namespace backhaul
