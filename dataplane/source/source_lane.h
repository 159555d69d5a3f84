// The source's end of a lane: takes extents from the session's queue, asks for the target's digests ahead of reading,
// lets its reader read and its sender compare and send, and hears what the target acknowledged. One thread. Memory: see
// kLaneBuffers and kMaxOpenExtents.
#pragma once

#include <unordered_map>

#include "dataplane/protocol/lane.h"
#include "dataplane/source/source_reader.h"

namespace backhaul {

class SourceLane final : public Lane {
 public:
  SourceLane(SourceSession& session, const SourceLaneOptions& options, ByteStream& stream, IoQueue& queue,
             BlockHasher& hasher, Clock& clock);
  // Gives what was not acknowledged back to the session.
  ~SourceLane() override;

  Result<LaneStatus> step(std::span<const Completion> completions) override;
  ByteStream& stream() noexcept override { return stream_; }

 private:
  Result<void> read_frames(bool& progressed);
  Result<void> handle_frame();
  Result<void> handle_digests();
  Result<void> handle_done();
  Result<void> finish_extent(SourceExtent& extent, Bytes payload);

  Result<void> take_items(bool& progressed);
  void open_extent(std::uint64_t number);
  void flush_claims();
  void send_hole_run(const ExtentRun& run);
  bool all_ended() const;

  SourceSession& session_;
  const SourceLaneOptions options_;
  ByteStream& stream_;
  const std::uint64_t size_;
  const LaneHeaders headers_;

  FrameReader frames_;
  FrameWriter writer_;
  BufferPool pool_;
  SourceSender sender_;
  SourceReader reader_;
  std::vector<std::byte> incoming_;
  std::unordered_map<std::uint64_t, std::unique_ptr<SourceExtent>> open_;
  std::vector<ExtentRun> holes_;  // sent, not acknowledged
  ExtentRun claim_;               // to be sent with the next other frame
  bool queue_empty_ = false;      // take() said none
  bool later_ = false;            // take() said later
  bool lane_end_sent_ = false;
};

}  // namespace backhaul
