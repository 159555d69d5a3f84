// How a target lane finishes extents and holes: it gathers those that ended, makes them durable together, reads back
// what was written, records it, and only then acknowledges. Owned by the lane; its thread.
#pragma once

#include <vector>

#include "dataplane/target/target_writer.h"

namespace backhaul {

class TargetCheckpoint {
 public:
  // All outlive it.
  TargetCheckpoint(TargetSession& session, TargetIo& io, TargetWriter& writer, TargetExtents& extents, Clock& clock);

  // Its end came; it is looked at by the next take_ended().
  void end(TargetExtent& extent);
  // Error: too many.
  Result<void> end_hole(const TargetHole& hole);
  // Ended extents whose writes are done are acknowledged, when they are on record already, or wait for run().
  void take_ended();

  bool waiting() const noexcept { return !written_.empty() || !extents_.holes().empty(); }
  // `hurry`: the source waits for acknowledgements and for nothing else.
  bool due(bool hurry) const;
  // Until it is due by time. REQUIRES: waiting().
  Clock::Duration wait() const { return waiting_since_ + kCheckpointDelay - clock_.now(); }
  // Errors: those of files; EngineErrc::verify_mismatch; the session's, when it was revoked.
  Result<void> run();

 private:
  bool is_recorded(const TargetExtent& extent) const;
  Result<void> record(const TargetExtent& extent);
  Result<void> read_back();
  Result<void> read_back_of(TargetExtent& extent);
  void begin_waiting();

  TargetSession& session_;
  TargetIo& io_;
  TargetWriter& writer_;
  TargetExtents& extents_;
  Clock& clock_;
  const bool verify_;
  std::vector<TargetExtent*> ended_;    // may have writes in flight
  std::vector<TargetExtent*> written_;  // wait for run()
  Clock::Duration waiting_since_{};
};

}  // namespace backhaul
