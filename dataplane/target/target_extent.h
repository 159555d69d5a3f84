// The extents and holes that the source has under way on one target lane, and what it is told of them. Owned by the
// lane; its thread. Bounds: see kMaxTargetExtents.
#pragma once

#include <array>
#include <memory>
#include <unordered_map>
#include <vector>

#include "dataplane/protocol/extent_content.h"
#include "dataplane/protocol/lane_extent.h"
#include "dataplane/target/target_session.h"
#include "transport/frames/frame_io.h"

namespace backhaul {

// A correct source has at most kMaxOpenExtents open; twice that is a protocol error.
inline constexpr std::size_t kMaxTargetExtents = 2 * kMaxOpenExtents;

enum class TargetExtentState : std::uint8_t {
  claimed,       // the source asked for its digests; reads for them are being issued
  reading,       // all are issued
  answered,      // the digests are on their way to the source
  receiving,     // content comes, or an end without a claim
  ended,         // the source sent extent_end; writes may be in flight
  written,       // they are done; it waits for a checkpoint
  durable,       // content and metadata would survive a power loss; it is read back and recorded
  acknowledged,  // the source was told
};
inline constexpr std::string_view kTargetExtentStates[] = {"claimed", "reading", "answered", "receiving",
                                                           "ended",   "written", "durable",  "acknowledged"};
constexpr std::string_view to_string(TargetExtentState state) noexcept {
  return kTargetExtentStates[static_cast<std::size_t>(state)];
}
constexpr bool may_follow(TargetExtentState from, TargetExtentState to) noexcept {
  using enum TargetExtentState;
  constexpr auto bit = [](TargetExtentState state) { return 1U << static_cast<unsigned>(state); };
  constexpr std::array<unsigned, std::size(kTargetExtentStates)> kFollows = {
      bit(reading) | bit(answered),      // claimed: answered when nothing needs to be read
      bit(answered),                     // reading
      bit(receiving) | bit(ended),       // answered: ended when nothing differs
      bit(ended),                        // receiving
      bit(written) | bit(acknowledged),  // ended: acknowledged when nothing changed and it is on record
      bit(durable),                      // written
      bit(acknowledged),                 // durable
      0,                                 // acknowledged
  };
  return (kFollows[static_cast<std::size_t>(from)] & bit(to)) != 0;
}

struct TargetExtent : LaneExtent<TargetExtentState> {
  TargetExtent(std::uint64_t disk_size, std::uint64_t extent, TargetExtentState state)
      : LaneExtent(disk_size, extent, state), content(length) {}

  // Whether the source may send content, or the end.
  bool is_open() const noexcept {
    return state() == TargetExtentState::answered || state() == TargetExtentState::receiving;
  }
  // A range of its blocks comes. Error: one was sent before, and two writes of it could come to pass in any order.
  // REQUIRES: is_open().
  Result<void> receive(const ByteRange& range);

  ExtentContent content;      // of every block not written now; of all after the read-back
  ExtentBlocks sent;          // by this run, as data or zeros
  ExtentBlocks written;       // by this run
  ExtentBlocks zeroed;        // by this run, and not zero before
  bool digested = true;       // `content` is true (false: verification is off and blocks were written)
  bool content_known = true;  // `content` of blocks that are not sent is true
  bool unread = false;        // claimed, not read: of blocks that are not sent nothing is known
  unsigned writes = 0;        // in flight, and one while some are to come
  unsigned reads = 0;         // in flight: for the digests, or of the read-back
  std::uint8_t shipped_before = 0;
};

// A hole that the source ended: zero by now, acknowledged after the next checkpoint.
struct TargetHole {
  ExtentRun run;
  std::uint32_t zeroed_blocks = 0;
};

class TargetExtents {
 public:
  // Both outlive it.
  TargetExtents(TargetSession& session, FrameWriter& writer)
      : session_(session), writer_(writer), headers_(session.epoch(), session.disk_size()) {}

  // Null when the extent is not under way.
  TargetExtent* find(std::uint64_t extent) const;
  // One that begins; its content says zero until something else is known. Errors: the source may not begin it now.
  Result<TargetExtent*> add(std::uint64_t extent, TargetExtentState state);
  // The one that content or an end came for: without a claim it begins with that. Error: it had to be claimed.
  Result<TargetExtent*> open(std::uint64_t extent);
  // What the index says of its content; false when it says nothing (any more).
  Result<bool> load(TargetExtent& extent);
  // One that was not answered goes without a trace.
  void erase(const TargetExtent& extent) { extents_.erase(extent.number); }
  bool any_in(const ExtentRun& run) const;

  // Error: too many.
  Result<void> add_hole(const TargetHole& hole);
  const std::vector<TargetHole>& holes() const noexcept { return holes_; }
  bool empty() const noexcept { return extents_.empty() && holes_.empty(); }

  // The answers to a claim: what the extent's content is; that nobody knows; that a run is zero.
  void answer(TargetExtent& extent);
  void answer_unread(TargetExtent& extent);
  void answer_zero(const ExtentRun& run) { writer_.push(headers_.make(FrameType::digests, run, kFrameZeroRun)); }
  std::size_t queued_frames() const noexcept { return writer_.queued_frames(); }
  // Tells the source that the extent, or all holes, are done. They are gone then.
  void acknowledge(TargetExtent& extent);
  void acknowledge_holes();

 private:
  Result<bool> assume_content(TargetExtent& extent);

  TargetSession& session_;
  FrameWriter& writer_;
  const LaneHeaders headers_;
  std::unordered_map<std::uint64_t, std::unique_ptr<TargetExtent>> extents_;
  std::vector<TargetHole> holes_;
};

}  // namespace backhaul
