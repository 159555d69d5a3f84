// The target's end of a lane: takes the source's frames, checks them against the state of their extents, and lets its
// parts do the work: claims are answered ahead, content is written, and what ended is made durable and acknowledged.
// One thread. Memory: TargetIo's buffers, two chunks more for scratch, and at most kMaxTargetExtents extents under way.
#pragma once

#include "dataplane/protocol/lane.h"
#include "dataplane/target/target_checkpoint.h"
#include "dataplane/target/target_claims.h"
#include "transport/frames/compress.h"

namespace backhaul {

class TargetLane final : public Lane {
 public:
  TargetLane(TargetSession& session, ByteStream& stream, IoQueue& queue, BlockHasher& hasher, Clock& clock);

  Result<LaneStatus> step(std::span<const Completion> completions) override;
  ByteStream& stream() noexcept override { return stream_; }
  // Tells the peer why the lane ends. Waits for the stream up to `timeout`.
  void send_error(const Error& error, std::chrono::milliseconds timeout);

 private:
  Result<void> read_frames(bool& progressed);
  Result<bool> place_payload();
  Result<void> handle_frame();
  Result<void> handle_data();
  Result<void> handle_zero();
  Result<void> handle_zero_run();
  Result<void> handle_extent_end();
  Result<void> handle_hole_end(const ExtentRun& run);
  Result<TargetExtent*> receive();

  TargetSession& session_;
  ByteStream& stream_;
  Clock& clock_;
  const std::uint64_t size_;

  FrameReader frames_;
  FrameWriter writer_;
  TargetExtents extents_;
  TargetIo io_;
  TargetClaims claims_;
  TargetWriter disk_writer_;
  TargetCheckpoint checkpoint_;

  AlignedBuffer compressed_;  // a compressed payload on its way in
  Decompressor decompressor_;
  std::vector<std::byte> control_;             // payload of an error or ping frame
  std::optional<BufferPool::Place> incoming_;  // of the data frame being received
  bool no_room_ = false;                       // a data frame found no buffer in this step
  std::optional<TargetHole> zero_run_;         // the hole that is being sent: zeroed, not ended
  bool lane_end_ = false;                      // the source waits for acknowledgements and for nothing else
};

}  // namespace backhaul
