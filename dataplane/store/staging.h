// Staging: how a target disk is changed so that a cancel gives the old disk back byte for byte. Four kinds behind one
// interface; the session journal's first record says which (StagingKind). Paths of one disk `dir/name`:
//   dir/.name.backhaul/            the session; exists only while a transfer is unfinished or its old disk is kept
//     journal index undo           its state, digests, undo log
//     staged old                   the disk being written, the old disk that is kept (no names a hypervisor would take)
//   dir/.name.digests              the digest index of a finished disk
//   dir/.name.last                 the journal of the last transfer that ended
// Called by one thread at a time for one disk (dataplane/target/target_store.h holds the lock).
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "dataplane/disk/disk.h"
#include "dataplane/protocol/transfer.h"
#include "dataplane/store/digest_index.h"
#include "dataplane/store/session_journal.h"

namespace backhaul {

struct DiskPaths {
  std::string disk, directory, journal, index, undo, staged, old, digests, last;
  // Error: EngineErrc::bad_disk_name (empty, absolute, "..", a part that starts with a dot, a trailing slash).
  static Result<DiskPaths> of(std::string_view disk);
};

inline constexpr std::string_view kSessionSuffix = ".backhaul";

// Refuses a link on the way to the disk: two names of one disk would be two sessions that know nothing of each other.
// Error: IoErrc::not_a_disk.
Result<void> check_disk_parents(Storage& storage, const DiskPaths& paths);

class Staging {
 public:
  virtual ~Staging() = default;
  // Makes the staged file; the journal already says `preparing`. May be interrupted anywhere; give_back() then cleans
  // up.
  virtual Result<std::unique_ptr<File>> stage() = 0;
  // Opens the staged file of an unfinished transfer.
  virtual Result<std::unique_ptr<File>> reopen() = 0;
  // Makes the staged file, closed, the disk. Repeatable after a crash.
  virtual Result<void> swap() = 0;
  // Does the same but keeps the old disk: moved aside, or in the undo log. Repeatable after a crash.
  virtual Result<void> keep() = 0;
  // Undoes keep(): the new disk is the staged file again. Repeatable after a crash.
  virtual Result<void> withdraw() = 0;
  // Removes what keep() kept. Repeatable after a crash.
  virtual Result<void> drop_old() = 0;
  // Puts the old disk back at its name, byte for byte. Repeatable after a crash.
  virtual Result<void> give_back() = 0;
};

std::unique_ptr<Staging> make_staging(StagingKind kind, Storage& storage, const DiskPaths& paths);

struct StagedDisk {
  std::unique_ptr<SessionJournal> journal;
  std::unique_ptr<DigestIndex> index;
  std::unique_ptr<Disk> disk;
  bool resumed = false;
  bool blank = false;  // every extent the index does not know is a hole: nothing was there before this run
};

// What became of a session that was left behind.
enum class Recovery : std::uint8_t {
  none,       // there was no session, or an empty directory of one, which was removed
  resumable,  // the transfer goes on with the same send, or ends with a cancel
  kept,       // swapped in; the old disk is kept
  finished,   // what was left of finishing or releasing was done
  gave_back,  // the old disk is back
};
std::string_view to_string(Recovery recovery) noexcept;

// Where a disk stands, after what a crash left half done was completed.
struct Standing {
  std::unique_ptr<SessionJournal> journal;  // of a transfer that is `transferring` or `kept`; null: there is none
  std::optional<SessionRecord> ended;       // what is known of the last transfer that ended
  Recovery recovery = Recovery::none;
  std::uint64_t epoch() const noexcept;  // the highest on record; 0: none
};
// Errors: EngineErrc::session_damaged; those of files.
Result<Standing> recover_disk(Storage& storage, const DiskPaths& paths);

// Opens what an unfinished transfer left, or starts a new one, under a new epoch. Errors: EngineErrc::session_mismatch,
// session_kept, target_*, no_base, format_mismatch, bad_disk_name; IoErrc::clone_unsupported when clone was asked for;
// those of files and formats.
Result<StagedDisk> open_staged_disk(Storage& storage, Random& random, const DiskPaths& paths,
                                    const OpenRequest& request, std::uint64_t epoch);

// The last record of the disk's unfinished transfer; nothing when there is none, or when a crash left only files to
// clear up. Its epoch is the highest of all its runs.
Result<std::optional<SessionRecord>> recorded_session(Storage& storage, const DiskPaths& paths);

// Swaps a verified staged disk in and keeps its digest index. Only forward from here.
Result<void> finish_staged_disk(Storage& storage, const DiskPaths& paths, StagedDisk staged, bool keep_digests,
                                const std::optional<Sha256>& root = std::nullopt);

// The verbs on a disk that no run has open. Epoch 0 stands for the recorded one + 1. Any other must be above the
// recorded one, or the same when the verb has taken effect already; else EngineErrc::session_fenced.
//
// Swaps in the staged disk, whose last round ended, and keeps the old one. Does nothing when it is kept already.
// Errors: EngineErrc::session_not_staged, session_incomplete.
Result<void> swap_staged_disk(Storage& storage, Random& random, const DiskPaths& paths, std::uint64_t epoch);
// Removes what swap_staged_disk() kept; the transfer ends as finished. Does nothing when nothing is kept. Error:
// EngineErrc::session_incomplete when the disk is staged.
Result<void> release_old_disk(Storage& storage, const DiskPaths& paths, std::uint64_t epoch);
// Gives the old disk back, staged or kept. False when there was nothing to undo. Error:
// EngineErrc::session_kept_changed.
Result<bool> give_back_old_disk(Storage& storage, const DiskPaths& paths, std::uint64_t epoch = 0);

// At the host agent's start: completes what was recorded as under way, removes what never got anywhere, and says what
// remains to be resumed, released or cancelled.
struct Leftover {
  std::string disk;
  SessionRecord record;
  Recovery recovery = Recovery::none;
  std::optional<Error> error;  // why its session could not be completed

  std::string to_string() const;  // one line for the log
};
Result<std::vector<Leftover>> recover_store(Storage& storage);

}  // namespace backhaul
