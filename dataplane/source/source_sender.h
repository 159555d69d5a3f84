// The second half of a source lane: what was read is digested, compared with what the target holds, and sent where it
// differs; compressed where that pays, and held to the rate limit. Owned by the lane; its thread.
#pragma once

#include "dataplane/disk/buffer_pool.h"
#include "dataplane/source/source_extent.h"
#include "dataplane/source/source_session.h"
#include "transport/frames/compress.h"
#include "transport/frames/frame_io.h"
#include "transport/stream/link_gauge.h"
#include "transport/stream/rate_limit.h"

namespace backhaul {

struct SourceLaneOptions {
  std::uint64_t epoch = 0;
  bool compare = false;                      // OpenedSession::compare
  bool blank = false;                        // OpenedSession::blank
  CompareBy compare_by = CompareBy::sha256;  // gmac: the hasher gives tags, which are good for comparing alone
  CompressMode compress = CompressMode::automatic;
  RateLimit* limit = nullptr;  // shared by all lanes; may be null
  bool limited() const noexcept { return limit != nullptr && !limit->unlimited(); }
};

// A piece of an extent in a buffer.
struct SourceChunk {
  SourceExtent* extent = nullptr;
  std::uint64_t offset = 0, length = 0;
  BufferPool::Place place;
  unsigned reads = 0;  // in flight
};

class SourceSender {
 public:
  // All outlive it.
  SourceSender(SourceSession& session, const SourceLaneOptions& options, FrameWriter& writer, BufferPool& pool,
               BlockHasher& hasher, Clock& clock);

  // Chunks that were read whole. Their places are given back as soon as what differs is out.
  void send(std::span<const SourceChunk> chunks);
  // [from, to), whole blocks, is a hole of the source.
  void send_hole(SourceExtent& extent, std::uint64_t from, std::uint64_t to);
  // To be called when the extent's last read was issued.
  void end_if_complete(SourceExtent& extent);
  // Moves what the stream takes; true when everything is out. `progressed`: a buffer came free.
  Result<bool> pump(const ByteStream& stream, bool& progressed);

  // How long the rate limit forbids to read more; zero or less: it does not.
  Clock::Duration wait() const { return not_before_ - clock_.now(); }
  // Whether the digests of what was read are made.
  bool digests() const noexcept { return digest_; }

 private:
  bool differs(const SourceExtent& extent, std::uint32_t block) const;
  void send_chunk(const SourceChunk& chunk);
  void send_run(std::uint32_t buffer, std::uint64_t offset, Bytes content);
  void send_zero(std::uint64_t offset, std::uint64_t length);
  std::size_t compress(Bytes content, std::uint32_t spare);
  void charge(std::uint64_t bytes);

  SourceSession& session_;
  const SourceLaneOptions& options_;
  FrameWriter& writer_;
  BufferPool& pool_;
  BlockHasher& hasher_;
  Clock& clock_;
  const LaneHeaders headers_;
  const bool digest_;  // compare or verify
  Compressor compressor_;
  LinkGauge gauge_;
  Clock::Duration not_before_{};
};

}  // namespace backhaul
