// The source's end of a lane: takes extents from the session's queue, asks for the target's digests ahead of reading,
// reads with a deep queue (holes never), digests, compares, and sends only blocks that differ. One thread. Memory: see
// kLaneBuffers and kMaxOpenExtents.
#pragma once

#include <bitset>
#include <deque>
#include <unordered_map>
#include <vector>

#include "checksum/block_digest.h"
#include "dataplane/disk/buffer_pool.h"
#include "dataplane/protocol/lane.h"
#include "dataplane/source/source_session.h"
#include "dataplane/store/digest_index.h"
#include "transport/frames/compress.h"
#include "transport/frames/frame_io.h"
#include "transport/stream/link_gauge.h"
#include "transport/stream/rate_limit.h"

namespace backhaul {

struct SourceLaneOptions {
  std::uint64_t epoch = 0;
  bool compare = false;  // OpenedSession::compare
  bool blank = false;    // OpenedSession::blank
  bool keyed = false;    // OpenedSession::keyed: the hasher gives tags, which are good for comparing alone
  CompressMode compress = CompressMode::automatic;
  RateLimit* limit = nullptr;  // shared by all lanes; may be null
};

class SourceLane final : public Lane {
 public:
  SourceLane(SourceSession& session, const SourceLaneOptions& options, ByteStream& stream, IoQueue& queue,
             BlockHasher& hasher, Clock& clock);
  // Gives what was not acknowledged back to the session.
  ~SourceLane() override;

  Result<LaneStatus> step(std::span<const Completion> completions) override;
  ByteStream& stream() noexcept override { return stream_; }

 private:
  using Blocks = std::bitset<kBlocksPerExtent>;
  struct Open {
    std::uint32_t blocks = 0;
    bool have_target = false;     // the target's digests are here
    bool target_unknown = false;  // the target has none: everything is sent
    bool issued = false;          // all reads are issued
    bool ended = false;           // extent_end was sent
    unsigned chunks = 0;          // being read
    std::uint64_t read_at = 0;    // where reading goes on
    Blocks listed;                // blocks that may be sent (all, or the changed ones)
    Blocks target_nonzero, own_nonzero;
    ExtentDigests target{}, own{};
    std::uint32_t shipped_before = 0, changed_blocks = 0;
  };
  struct Chunk {
    std::uint64_t extent = 0, offset = 0, length = 0;
    std::uint32_t buffer = 0;
    std::uint64_t at = 0;  // in the buffer
    unsigned reads = 0;    // in flight
  };
  struct HoleRun {
    std::uint64_t first, count;
  };

  Result<void> complete_reads(std::span<const Completion> completions, bool& progressed);
  Result<void> read_frames(bool& progressed);
  Result<void> place_payload();
  Result<void> handle_frame();
  Result<void> handle_digests();
  Result<void> handle_done();
  Result<void> finish_extent(std::uint64_t extent, Open& open, Bytes payload);

  Result<void> take_items(bool& progressed);
  void open_extent(std::uint64_t extent);
  void flush_claims();
  void send_hole_run(const SourceSession::Item& item);

  Result<void> issue_reads(bool& progressed);
  Result<bool> issue_extent_reads(std::uint64_t extent, Open& open);
  std::uint64_t skip_unlisted(std::uint64_t base, Open& open);
  bool buffers_run_short(std::uint64_t needed) const;
  std::uint32_t place_chunk(std::uint64_t length);
  void read_chunk(std::uint64_t extent, Open& open, std::uint64_t offset, std::uint64_t length);
  void skip_hole(std::uint64_t extent, Open& open, std::uint64_t from, std::uint64_t to);
  Bytes content_of(const Chunk& chunk);
  void process_chunks(std::span<const std::uint32_t> chunks);
  void digest_chunks(std::span<const std::uint32_t> chunks);
  void send_chunk(std::uint32_t index);
  bool block_differs(const Open& open, std::uint32_t number) const;
  void send_run(std::uint32_t buffer, std::uint64_t offset, Bytes content);
  void send_zero(std::uint64_t offset, std::uint64_t length);
  void end_if_complete(std::uint64_t extent, Open& open);
  void release(std::uint32_t buffer);
  std::size_t compress(Bytes content, std::uint32_t spare);
  void charge(std::uint64_t bytes);
  FrameHeader make_header(FrameType type, std::uint64_t offset, std::uint64_t length) const;
  std::uint64_t extent_length(std::uint64_t extent) const noexcept;

  SourceSession& session_;
  const SourceLaneOptions options_;
  ByteStream& stream_;
  IoQueue& queue_;
  BlockHasher& hasher_;
  Clock& clock_;
  const std::uint64_t size_;
  const bool digest_;  // blocks are digested (compare or verify)

  FrameReader reader_;
  FrameWriter writer_;
  BufferPool pool_;
  Compressor compressor_;
  LinkGauge gauge_;
  std::vector<std::byte> incoming_;
  std::vector<Chunk> chunks_;  // being read
  std::vector<std::uint32_t> free_chunks_;
  std::vector<unsigned> buffer_uses_;     // of each buffer: its chunks and frames, and one while it is filled
  std::optional<std::uint32_t> filling_;  // buffer that takes further chunks
  std::uint64_t filled_ = 0;              // how much of it is taken
  std::unordered_map<std::uint64_t, std::unique_ptr<Open>> open_;
  std::deque<std::uint64_t> ready_;  // extents to read, in order
  std::deque<HoleRun> holes_;        // sent, not acknowledged
  std::uint64_t claim_first_ = 0, claim_count_ = 0;
  Clock::Duration not_before_{};
  bool queue_empty_ = false;  // take() said none
  bool later_ = false;        // take() said later
  bool lane_end_sent_ = false;
};

}  // namespace backhaul
