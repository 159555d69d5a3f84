// An extent that a source lane has taken from the session and not given back: its state, and what is known of it.
#pragma once

#include <array>

#include "dataplane/protocol/extent_content.h"
#include "dataplane/protocol/lane_extent.h"

namespace backhaul {

enum class SourceExtentState : std::uint8_t {
  claimed,       // the target was asked for its digests
  ready,         // they are here, or none are needed: to be read
  reading,       // reads are being issued
  sending,       // all are issued; what comes back is compared and sent
  ended,         // extent_end was sent
  acknowledged,  // the target has it, durably
  returned,      // it differs on the target: back in the session's queue
};
inline constexpr std::string_view kSourceExtentStates[] = {"claimed", "ready",        "reading", "sending",
                                                           "ended",   "acknowledged", "returned"};
constexpr std::string_view to_string(SourceExtentState state) noexcept {
  return kSourceExtentStates[static_cast<std::size_t>(state)];
}
constexpr bool may_follow(SourceExtentState from, SourceExtentState to) noexcept {
  using enum SourceExtentState;
  constexpr auto bit = [](SourceExtentState state) { return 1U << static_cast<unsigned>(state); };
  constexpr std::array<unsigned, std::size(kSourceExtentStates)> kFollows = {
      bit(ready),                         // claimed
      bit(reading),                       // ready
      bit(sending),                       // reading
      bit(ended),                         // sending
      bit(acknowledged) | bit(returned),  // ended
      0,                                  // acknowledged
      0,                                  // returned
  };
  return (kFollows[static_cast<std::size_t>(from)] & bit(to)) != 0;
}

struct SourceExtent : LaneExtent<SourceExtentState> {
  SourceExtent(std::uint64_t disk_size, std::uint64_t extent, SourceExtentState state, const ExtentBlocks& to_send)
      : LaneExtent(disk_size, extent, state), listed(to_send), own(length), target(length), read_at(offset) {}

  const ExtentBlocks listed;  // blocks that may be sent (all, or the changed ones)
  ExtentContent own, target;
  bool target_unknown = false;  // the target has no digests: everything is sent
  std::uint64_t read_at;        // where reading goes on
  unsigned chunks = 0;          // being read
  std::uint32_t shipped_before = 0, changed_blocks = 0;
};

}  // namespace backhaul
