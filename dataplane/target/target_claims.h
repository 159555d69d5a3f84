// Claims of a target lane, answered in order and ahead of the data: from the digest index where it knows the extent, as
// a run where the disk holds nothing, else from reading the staged disk. Owned by the lane; its thread. Bound:
// kMaxTargetExtents claims.
#pragma once

#include <deque>

#include "dataplane/target/target_io.h"

namespace backhaul {

class TargetClaims {
 public:
  // All outlive it.
  TargetClaims(TargetSession& session, TargetIo& io, TargetExtents& extents)
      : session_(session), io_(io), extents_(extents) {}

  // Error: too many.
  Result<void> add(const ExtentRun& claim);
  // Answers as many as the stream, buffers and queue take. Errors: one was claimed twice; those of files.
  Result<void> advance(bool& progressed);

 private:
  Result<std::uint64_t> start(const ExtentRun& claim);
  bool stays_unread(std::uint64_t extent) const;
  Result<bool> issue_reads();

  TargetSession& session_;
  TargetIo& io_;
  TargetExtents& extents_;
  std::deque<ExtentRun> claims_;
  TargetExtent* reading_ = nullptr;  // whose reads are not all issued
  std::uint64_t reading_at_ = 0;     // where they go on
};

}  // namespace backhaul
