// The first half of a source lane: extents are read in order, with a deep queue and never a hole, and handed to the
// sender. Owned by the lane; its thread.
#pragma once

#include <deque>
#include <vector>

#include "dataplane/source/source_sender.h"

namespace backhaul {

class SourceReader {
 public:
  // All outlive it.
  SourceReader(SourceSession& session, const SourceLaneOptions& options, IoQueue& queue, BufferPool& pool,
               SourceSender& sender)
      : session_(session), options_(options), queue_(queue), pool_(pool), sender_(sender) {}

  // The extent is to be read after those before it. REQUIRES: it is `ready`, and stays until it has ended.
  void add(SourceExtent& extent) { ready_.push_back(&extent); }
  // Issues reads, as many as buffers, queue and rate limit take.
  Result<void> issue(bool& progressed);
  // Error: EngineErrc::source_read.
  Result<void> complete(std::span<const Completion> completions, bool& progressed);

  bool idle() const noexcept { return ready_.empty(); }
  // More could be read at once.
  bool may_go_on() const;

 private:
  Result<bool> issue_extent(SourceExtent& extent);
  std::uint64_t skip_unlisted(SourceExtent& extent);
  bool buffers_run_short(std::uint64_t needed) const;
  std::uint32_t new_chunk();
  void read_chunk(SourceExtent& extent, const ByteRange& range);

  SourceSession& session_;
  const SourceLaneOptions& options_;
  IoQueue& queue_;
  BufferPool& pool_;
  SourceSender& sender_;
  std::deque<SourceExtent*> ready_;  // the first one is being read
  std::vector<SourceChunk> chunks_;  // being read
  std::vector<std::uint32_t> free_chunks_;
  std::vector<SourceChunk> whole_;  // of the completions that are being looked at
};

}  // namespace backhaul
