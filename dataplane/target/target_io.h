// A target lane's buffers, and its reads and writes in flight: each is counted at its extent, and what was read becomes
// the extent's digests. Owned by the lane; its thread. Memory: kLaneBuffers chunks.
#pragma once

#include <vector>

#include "dataplane/disk/buffer_pool.h"
#include "dataplane/target/target_extent.h"

namespace backhaul {

class TargetIo {
 public:
  // All outlive it.
  TargetIo(TargetSession& session, IoQueue& queue, BlockHasher& hasher, TargetExtents& extents);

  BufferPool& pool() noexcept { return pool_; }
  // Nothing can be issued now.
  bool full() const noexcept { return free_ops_.empty() || queue_.in_flight() >= queue_.capacity(); }
  // `chunk` of the disk, which lies at `file_offset`, into a place that the read gives back. An extent in state
  // `reading` is answered when its last read is done. REQUIRES: !full().
  void read(TargetExtent& extent, const ByteRange& chunk, std::uint64_t file_offset, const BufferPool::Place& place);
  // `content`, a part of `buffer`, to `file_offset`; of the disk it is at `offset`. REQUIRES: !full().
  void write(TargetExtent& extent, std::uint64_t offset, std::uint64_t file_offset, std::uint32_t buffer,
             Bytes content);

  // Takes what the queue has completed. Errors: those of files.
  Result<void> complete(std::span<const Completion> completions);
  // Waits for completions and takes them.
  Result<void> wait();

 private:
  struct Op {
    TargetExtent* extent = nullptr;
    std::uint64_t offset = 0, length = 0;  // of the disk
    BufferPool::Place place;
    bool write = false;
  };
  std::uint32_t start(const Op& op);

  TargetSession& session_;
  IoQueue& queue_;
  BlockHasher& hasher_;
  TargetExtents& extents_;
  BufferPool pool_;
  std::vector<Op> ops_;
  std::vector<std::uint32_t> free_ops_;
  std::vector<Op> reads_;  // of the completions that are being looked at
};

}  // namespace backhaul
