// The target's end of a lane: streams digests of claimed extents ahead, takes content, writes it, and acknowledges an
// extent once it is durable, read back and recorded. One thread. Memory: kLaneBuffers chunks, two more for scratch, and
// at most kMaxTargetExtents extents in work.
#pragma once

#include <bitset>
#include <deque>
#include <unordered_map>
#include <vector>

#include "dataplane/disk/buffer_pool.h"
#include "dataplane/protocol/lane.h"
#include "dataplane/target/target_session.h"
#include "transport/frames/compress.h"
#include "transport/frames/frame_io.h"

namespace backhaul {

// A correct source has at most kMaxOpenExtents open; twice that is a protocol error.
inline constexpr std::size_t kMaxTargetExtents = 2 * kMaxOpenExtents;

class TargetLane final : public Lane {
 public:
  TargetLane(TargetSession& session, ByteStream& stream, IoQueue& queue, BlockHasher& hasher, Clock& clock);

  Result<LaneStatus> step(std::span<const Completion> completions) override;
  ByteStream& stream() noexcept override { return stream_; }
  // Tells the peer why the lane ends. Waits for the stream up to `timeout`.
  void send_error(const Error& error, std::chrono::milliseconds timeout);

 private:
  // One extent that the source claimed or wrote to.
  struct Work {
    std::uint32_t blocks = 0;
    ExtentDigests digests{};                // of every block not written now; of all after the read-back
    std::bitset<kBlocksPerExtent> nonzero;  // what the digests say
    std::bitset<kBlocksPerExtent> sent;     // by this run, as data or zeros
    std::bitset<kBlocksPerExtent> written;  // by this run
    std::bitset<kBlocksPerExtent> zeroed;   // by this run, and not zero before
    bool digested = true;                   // digests are true (false: verification is off and blocks were written)
    bool ended = false;                     // the source sent extent_end
    bool content_known = true;              // the digests of blocks that are not sent are true
    bool claim_sent = true;                 // false while a claim is being read
    bool unread = false;                    // claimed, not read: of blocks that are not sent nothing is known
    unsigned claim_reads = 0;
    unsigned writes = 0;  // in flight or pending
    unsigned verify_reads = 0;
    std::uint8_t shipped_before = 0;
  };
  struct Place {
    std::uint32_t buffer;
    std::uint64_t at;  // in the buffer
  };
  enum class OpKind : std::uint8_t { free, claim_read, write, verify_read };
  struct Op {
    OpKind kind = OpKind::free;
    Place place{0, 0};
    std::uint64_t extent = 0;
    std::uint64_t offset = 0;  // of the disk
    std::uint64_t length = 0;
  };
  struct PendingWrite {
    Place place;
    std::uint64_t offset, length;
  };
  struct ZeroRun {
    std::uint64_t first, count;
    std::uint32_t zeroed_blocks;
  };

  std::uint64_t size() const noexcept { return size_; }
  Result<void> complete_ops(std::span<const Completion> completions);
  Result<void> complete_reads(std::span<const Op> reads);
  Result<void> read_frames(bool& progressed);
  Result<bool> place_payload();
  std::optional<Place> place_for(std::uint64_t length);
  Result<void> handle_frame();
  Result<void> handle_data();
  Result<void> handle_zero();
  Result<void> handle_zero_run();
  Result<void> handle_hole_end();
  Result<void> handle_extent_end();
  Result<Work*> work_for(std::uint64_t extent);
  Result<Work*> add_work(std::uint64_t extent);
  bool any_open(std::uint64_t first, std::uint64_t count) const;
  static Result<void> mark_sent(Work& work, std::uint64_t first, std::uint64_t end);

  Result<void> flush_pending();
  Result<void> prepare_pending(std::vector<ByteRange>& file_ranges);
  Result<void> forget_before_write(std::uint64_t extent, bool& forgot);
  Result<void> zero_unread_range(ByteRange range, std::uint32_t& zeroed_blocks);
  Result<void> zero_chunk(std::uint64_t offset, std::uint64_t length, std::uint32_t& zeroed_blocks);
  Result<void> wait_for_completions();
  void release_buffer(std::uint32_t buffer);

  Result<void> advance_claims(bool& progressed);
  Result<bool> assume_content(std::uint64_t extent, Work& work);
  void mark_nonzero(std::uint64_t extent, Work& work);
  Result<void> start_claim(std::uint64_t extent, std::uint64_t claim_end, std::uint64_t& next);
  Result<bool> issue_claim_reads(std::uint64_t extent, Work& work);
  bool claim_without_reading(std::uint64_t extent) const;
  void send_digests(std::uint64_t extent, Work& work);
  void send_no_digests(std::uint64_t extent);
  void send_zero_digests(std::uint64_t first, std::uint64_t count);

  Result<void> end_extents();
  void acknowledge(std::uint64_t extent, const Work& work);
  Result<void> record(std::uint64_t extent, const Work& work);
  bool is_recorded(std::uint64_t extent, const Work& work) const;
  bool checkpoint_due() const;
  Result<void> checkpoint();
  Result<void> read_back();
  Result<void> check_zero_run(const ZeroRun& run);
  Bytes content_of(const Op& op);
  void digest_reads(std::span<const Op> reads);
  Result<Place> place_for_read_back(std::uint64_t length);

  std::uint32_t start_op(OpKind kind, Place place, std::uint64_t extent, std::uint64_t offset, std::uint64_t length);
  std::uint64_t extent_length(std::uint64_t extent) const noexcept;

  TargetSession& session_;
  ByteStream& stream_;
  IoQueue& queue_;
  BlockHasher& hasher_;
  Clock& clock_;
  const std::uint64_t size_;
  const bool verify_;

  FrameReader reader_;
  FrameWriter writer_;
  BufferPool pool_;
  AlignedBuffer compressed_;  // a compressed payload on its way in
  AlignedBuffer scratch_;     // content that is looked at and forgotten
  Decompressor decompressor_;
  std::vector<std::byte> control_;        // payload of an error or ping frame
  std::optional<Place> incoming_;         // of the data frame being received
  std::optional<std::uint32_t> filling_;  // buffer that takes further small frames
  std::uint64_t filled_ = 0;              // how much of it is taken
  bool no_room_ = false;                  // a data frame found no buffer in this step

  std::vector<Op> ops_;
  std::vector<std::uint32_t> free_ops_;
  std::vector<std::uint32_t> buffer_uses_;  // of each buffer: writes to come or in flight, and one while it is filled
  std::unordered_map<std::uint64_t, std::unique_ptr<Work>> works_;
  std::deque<ByteRange> claims_;
  std::uint64_t reading_claim_ = kNone;  // the extent whose claim reads are not all issued
  std::uint64_t reading_at_ = 0;         // where they go on
  std::vector<PendingWrite> pending_;
  std::vector<std::uint64_t> ended_;    // extents that ended and have writes in flight
  std::vector<std::uint64_t> waiting_;  // extents that wait for a checkpoint
  std::vector<ZeroRun> waiting_zero_;
  std::optional<ByteRange> zero_run_;  // the hole that is being sent: zeroed, not ended
  std::uint32_t hole_zeroed_ = 0;      // blocks zeroed since the last hole run ended
  Clock::Duration waiting_since_{};
  bool lane_end_ = false;  // the source waits for acknowledgements and for nothing else
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};
};

}  // namespace backhaul
