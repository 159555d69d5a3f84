// The sessions of all disks below one root: opens and finishes transfers, and carries out the verbs beside them. Any
// thread; one mutex a disk guards opening, finishing and cancelling.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>

#include "dataplane/protocol/dataplane_parts.h"
#include "dataplane/store/disk_digests.h"
#include "dataplane/target/target_session.h"

namespace backhaul {

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
