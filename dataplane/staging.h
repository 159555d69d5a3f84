// Staging: how a target disk is changed so that a cancel gives the old disk back byte for byte. Three ways behind one
// interface; which one is in the session journal's first record. Paths of one disk `dir/name`:
//   dir/.name.backhaul/            the session; exists only while a transfer is unfinished
//     journal index undo staged    its state, digests, undo log, and the disk being written (no name a hypervisor would
//     take)
//   dir/.name.digests              the digest index of a finished disk
// Called by one thread at a time for one disk (dataplane/target_session.h holds the lock).
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "dataplane/digest_index.h"
#include "dataplane/disk.h"
#include "dataplane/session_journal.h"
#include "dataplane/transfer.h"

namespace backhaul {

struct DiskPaths {
  std::string disk, directory, journal, index, undo, staged, digests;
  // Error: EngineErrc::bad_disk_name (empty, absolute, "..", a part that starts with a dot, a trailing slash).
  static Result<DiskPaths> of(std::string_view disk);
};

class Staging {
 public:
  virtual ~Staging() = default;
  // Makes the staged file; the journal already says `preparing`. May be interrupted anywhere; give_back() then cleans
  // up.
  virtual Result<std::unique_ptr<File>> stage() = 0;
  // Opens the staged file of an unfinished transfer.
  virtual Result<std::unique_ptr<File>> reopen() = 0;
  // The staged file, closed, becomes the disk. Repeatable after a crash.
  virtual Result<void> swap() = 0;
  // The old disk is at its name again, byte for byte. Repeatable after a crash.
  virtual Result<void> give_back() = 0;
};

std::unique_ptr<Staging> make_staging(StagingKind kind, Storage& storage, const DiskPaths& paths);

struct StagedDisk {
  std::unique_ptr<SessionJournal> journal;
  std::unique_ptr<DigestIndex> index;
  std::unique_ptr<Disk> disk;
  bool resumed = false;
  bool fresh_content = false;  // every extent the index does not know is a hole: nothing was there before this run
};

// Opens what an unfinished transfer left, or starts a new one, under a new epoch. Errors: EngineErrc::session_mismatch,
// target_*, no_base, format_mismatch, bad_disk_name; IoErrc::clone_unsupported when clone was asked for; those of files
// and formats.
Result<StagedDisk> open_staged_disk(Storage& storage, Random& random, const DiskPaths& paths,
                                    const OpenRequest& request, std::uint64_t epoch);

// What is on record of the disk's unfinished transfer; nothing when there is none, or when a crash left only files to
// clear up. Its epoch is the highest that any run of it had.
Result<std::optional<SessionRecord>> recorded_session(Storage& storage, const DiskPaths& paths);

// Verified: the staged disk takes the disk's name, its digest index is kept. Only forward from here.
Result<void> finish_staged_disk(Storage& storage, const DiskPaths& paths, StagedDisk staged, bool keep_index);

// Gives the old disk back. False when there was nothing to undo.
Result<bool> give_back_old_disk(Storage& storage, const DiskPaths& paths);

// At the host agent's start: finishes what was recorded as finishing or cancelling, removes what never got anywhere,
// and says what remains to be resumed or cancelled.
struct Leftover {
  std::string disk;
  SessionRecord record;
  std::string action;  // "resumable", "finished", "gave back the old disk", or the error
};
Result<std::vector<Leftover>> recover_store(Storage& storage);

}  // namespace backhaul
