// One disk being written: the session that all lanes of a transfer share on the target, and the store of such sessions.
// Any thread; one mutex a disk guards opening, finishing and cancelling; lanes only read atomics in the steady state.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>

#include "checksum/block_digest.h"
#include "dataplane/protocol/dataplane_parts.h"
#include "dataplane/protocol/engine_error.h"
#include "dataplane/store/disk_digests.h"
#include "dataplane/store/staging.h"

namespace backhaul {

// File times of older kernels move in ticks of up to 10 ms. Whoever writes to the disk after it was swapped in must get
// a later time than the one on record, or the digests would be believed.
inline constexpr std::chrono::milliseconds kTimestampTick{20};
// A run that was told to go away still completes its writes in flight; a device may take long over them.
inline constexpr std::chrono::seconds kDrainTimeout{120};
inline constexpr std::chrono::milliseconds kLockInterval{10};

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
  bool fresh_content() const noexcept { return staged_.fresh_content; }
  // OpenedSession::compare: the source claims every extent that it reads.
  bool compare() const noexcept {
    return !fresh_content() && (request_.sync == SyncMode::delta || resumed() || request_.changed_only);
  }
  // Only listed changes come, and no root digest hangs on what lies around them: that is neither read nor recorded
  // then.
  bool takes_changes_unread() const noexcept { return takes_changes_unread_; }
  // OpenedSession::keyed. Tags say nothing in a later run: they are compared and not recorded.
  bool keyed() const noexcept { return request_.compare_key && compare() && gmac_available(); }
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

class TargetStore {
 public:
  TargetStore(Storage& storage, DataplaneParts parts) : storage_(storage), parts_(std::move(parts)) {}

  // Opens or resumes the disk's transfer. Waits up to `patience` for a run that is going away; session_busy after that.
  // A request whose epoch equals the live run's, or is higher than it, takes over (fences it) at once. When the
  // transfer that is asked for has finished meanwhile, opened.finished says so and the use is empty.
  Result<SessionUse> open(const OpenRequest& request, std::chrono::milliseconds patience, OpenedSession& opened);
  // A lane joins. Errors: session_unknown, session_fenced.
  Result<SessionUse> join(const std::string& session, std::uint64_t epoch);
  // Verifies and, if asked, swaps in. `step` hears what is being done and may be null. On an error the disk stays
  // staged.
  Result<FinishResult> finish(TargetSession& session, const FinishRequest& request,
                              const std::function<Result<void>(std::string_view what, double fraction)>& step);
  // The verbs of dataplane/store/staging.h, which has their epochs and errors. A live run of a lower epoch is fenced;
  // without an epoch the verb waits for it up to `patience`, then session_busy.
  Result<void> swap(const std::string& disk, std::uint64_t epoch, std::chrono::milliseconds patience = {});
  Result<void> release(const std::string& disk, std::uint64_t epoch, std::chrono::milliseconds patience = {});
  // Stops the live run, if any, waits for its last write, and gives the old disk back. False when there was nothing.
  Result<bool> cancel(const std::string& disk, std::uint64_t epoch = 0);
  // Changes nothing. Errors: those of files and formats; session_damaged.
  Result<TargetStatus> query(const std::string& disk);
  // The digests of what the last transfer delivered, whatever was written to the disk since: exactly those of content
  // with this root digest (hexadecimal). Nothing when they are not known (any more). Reads no content.
  Result<std::optional<DiskDigests>> delivered_digests(const std::string& disk, std::string_view root_digest);

  Storage& storage() noexcept { return storage_; }
  const DataplaneParts& parts() const noexcept { return parts_; }

 private:
  struct Slot {
    std::mutex mutex;                        // held while a session of the disk is opened, finished or cancelled
    std::shared_ptr<TargetSession> session;  // guarded by the store's mutex_
  };
  std::shared_ptr<Slot> slot_of(const std::string& disk);
  std::shared_ptr<TargetSession> session_of(Slot& slot);
  void set_session(Slot& slot, std::shared_ptr<TargetSession> session);
  // Reads the whole staged disk and records what it read.
  Result<Sha256> verify_all(TargetSession& session,
                            const std::function<Result<void>(std::string_view, double)>& report);
  Result<std::shared_ptr<TargetSession>> open_locked(Slot& slot, const DiskPaths& paths, const OpenRequest& request,
                                                     std::chrono::milliseconds patience, OpenedSession& opened);
  // Sends the live run away, so that the caller has the disk's files for itself. REQUIRES: the slot's mutex held.
  Result<void> take_disk(Slot& slot, const std::string& disk, bool takes_over, std::chrono::milliseconds patience);
  Result<void> take_disk_for_verb(Slot& slot, const DiskPaths& paths, std::uint64_t epoch,
                                  std::chrono::milliseconds patience);
  Result<TargetStatus> query_locked(const DiskPaths& paths);

  Storage& storage_;
  DataplaneParts parts_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Slot>> slots_;
};

}  // namespace backhaul
