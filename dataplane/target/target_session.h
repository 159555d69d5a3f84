// One disk being written: the session that all lanes of a transfer share on the target. TargetStore makes it and takes
// it away. Any thread; lanes only read atomics in the steady state.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "checksum/block_digest.h"
#include "dataplane/protocol/dataplane_parts.h"
#include "dataplane/protocol/engine_error.h"
#include "dataplane/store/staging.h"

namespace backhaul {

class TargetSession {
 public:
  TargetSession(std::string id, std::uint64_t epoch, OpenRequest request, StagedDisk staged);

  const std::string& id() const noexcept { return id_; }
  std::uint64_t epoch() const noexcept { return epoch_; }
  const OpenRequest& request() const noexcept { return request_; }
  Disk& disk() noexcept { return *staged_.disk; }
  // These two stay true when the disk is being swapped in.
  std::uint64_t disk_size() const noexcept { return disk_size_; }
  DiskFormat format() const noexcept { return format_; }
  DigestIndex& index() noexcept { return *staged_.index; }
  bool resumed() const noexcept { return staged_.resumed; }
  // OpenedSession::blank.
  bool blank() const noexcept { return staged_.blank; }
  // OpenedSession::compare: the source claims every extent that it reads.
  bool compare() const noexcept {
    return !blank() && (request_.sync == SyncMode::delta || resumed() || request_.changed_only);
  }
  // Only listed changes come, and no root digest hangs on what lies around them: that is neither read nor recorded
  // then.
  bool takes_changes_unread() const noexcept { return takes_changes_unread_; }
  // OpenedSession::compare_by. Tags say nothing in a later run: they are compared and not recorded.
  CompareBy compare_by() const noexcept {
    return request_.compare_key && compare() && gmac_available() ? CompareBy::gmac : CompareBy::sha256;
  }
  // For one lane of this run.
  Result<std::unique_ptr<BlockHasher>> make_hasher(const DataplaneParts& parts) const;
  const SessionRecord& record() const noexcept { return staged_.journal->last(); }

  // True once a cancel or a newer run took the disk away: lanes stop and write nothing more.
  bool revoked() const noexcept { return revoked_.load(std::memory_order_acquire); }
  Error revoked_error() const;
  // Set by `why`: session_cancelled or session_fenced.
  void revoke(EngineErrc why) noexcept;

  // A user is a lane or the control stream; whoever takes the disk away waits until there is none.
  bool enter();  // false when revoked
  void leave();
  // True when no user is left within `timeout`.
  bool wait_unused(std::chrono::milliseconds timeout);
  // A lane as user. Errors: session_busy while the transfer is being finished; that it was revoked.
  Result<void> enter_lane();
  // For the one user that finishes: true when it is the only one within `timeout`; no lane enters until end_finish().
  bool begin_finish(std::chrono::milliseconds timeout);
  void end_finish();
  // The staged disk is whole now: lists of changed extents are enough from here on, and it may be swapped in.
  Result<void> end_round(const std::optional<Sha256>& root);
  bool in_use() const;

  StagedDisk& staged() noexcept { return staged_; }

  std::atomic<std::uint64_t> blocks_zeroed{0};

 private:
  Result<void> record_lane();  // REQUIRES: mutex_ held

  const std::string id_;
  const std::uint64_t epoch_;
  const OpenRequest request_;
  StagedDisk staged_;
  const std::uint64_t disk_size_;
  const DiskFormat format_;
  const bool takes_changes_unread_;
  std::atomic<bool> revoked_{false};
  std::atomic<int> why_{static_cast<int>(EngineErrc::session_fenced)};
  mutable std::mutex mutex_;
  std::condition_variable unused_;
  unsigned users_ = 0;
  bool finishing_ = false;
};

// Counts a lane or control stream as a user of a session while it lives. Empty when the transfer had ended.
class SessionUse {
 public:
  SessionUse() = default;
  explicit SessionUse(std::shared_ptr<TargetSession> session) : session_(std::move(session)) {}
  SessionUse(SessionUse&&) noexcept = default;
  ~SessionUse() {
    if (session_) session_->leave();
  }
  explicit operator bool() const noexcept { return session_ != nullptr; }
  TargetSession& operator*() noexcept { return *session_; }
  TargetSession* operator->() noexcept { return session_.get(); }

 private:
  std::shared_ptr<TargetSession> session_;
};

}  // namespace backhaul
