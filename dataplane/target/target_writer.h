// What a target lane puts on the disk: content that came, gathered for one step, and zeros. Before anything is
// overwritten its record in the digest index is forgotten, durably, and the file is told (an undo file saves then).
// Owned by the lane; its thread. Memory: one chunk for content that is looked at and forgotten.
#pragma once

#include <vector>

#include "dataplane/target/target_io.h"

namespace backhaul {

class TargetWriter {
 public:
  // Both outlive it.
  TargetWriter(TargetSession& session, TargetIo& io) : session_(session), io_(io), scratch_(kChunkSize) {}

  // Content for `range` lies at `place`, which the writes give back. It is written by the next flush().
  void add(TargetExtent& extent, const ByteRange& range, const BufferPool::Place& place);
  Result<void> flush();

  // Zeroes the blocks of a range that are not zero yet, and returns how many; what the format or the file does not hold
  // costs nothing.
  Result<std::uint32_t> zero(const ByteRange& range);
  // Whatever the file still holds of a range must read as zeros. Error: EngineErrc::verify_mismatch.
  Result<void> check_zero(const ByteRange& range);

 private:
  struct Pending {
    TargetExtent* extent;
    ByteRange range;
    BufferPool::Place place;
  };
  Result<void> place_pending();
  Result<bool> forget(std::uint64_t extent);
  Result<std::uint32_t> zero_chunk(const ByteRange& chunk);

  TargetSession& session_;
  TargetIo& io_;
  AlignedBuffer scratch_;
  std::vector<Pending> pending_;
  std::vector<ByteRange> places_;  // of what is pending, in the file
};

}  // namespace backhaul
