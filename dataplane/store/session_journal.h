// The session journal: the state of one transfer on the target, an append-only file of self-checking records
// (docs/journal_format.md). A record is durable before the step that it announces is taken; what a crash tore at the
// tail never happened. The last record of an ended transfer stays beside the disk: whoever asks again hears how it
// ended, and older runs stay fenced.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "checksum/block_digest.h"
#include "dataplane/disk/disk.h"
#include "dataplane/disk/io.h"
#include "dataplane/protocol/transfer.h"

namespace backhaul {

enum class SessionState : std::uint8_t {
  preparing = 1,  // the staged disk is being made; the old disk is untouched under its name
  transferring,   // blocks are being written to the staged disk
  finishing,      // verified; the staged disk is being swapped in: only forward
  cancelling,     // the old disk is being given back: only forward
  keeping,        // the staged disk is being swapped in, the old one moved aside: only forward, to `kept`
  kept,           // the new disk has the name; the old one can still be had back
  withdrawing,    // what `keeping` did is being undone, to be cancelled then: only forward
  releasing,      // the old disk is being removed: only forward
  finished,       // the transfer has ended, the disk is the new one
  cancelled,      // the transfer has ended, the disk is the old one
};
std::string_view to_string(SessionState state) noexcept;
// The state table: whether a record with state `to` may come after one with state `from`.
bool may_follow(SessionState from, SessionState to) noexcept;

struct SessionRecord {
  SessionState state = SessionState::preparing;
  StagingKind staging = StagingKind::fresh;
  DiskFormat format = DiskFormat::raw;
  std::uint64_t epoch = 0;      // of the run that holds the session; the target refuses lower ones
  std::uint64_t disk_size = 0;  // virtual
  std::uint64_t transfer = 0;   // names the transfer over all its runs, not 0; a later one of the same disk has another
  bool had_old_disk = false;
  // The staged disk is one point in time of the source, except for changes that the next run gets as a list. Only such
  // a disk may be completed by a list of changed extents.
  bool whole = false;
  bool round_ended = false;    // the staged disk is one point in time of the source as it is: it may be swapped in
  std::optional<Sha256> root;  // the disk's root digest, when a round or the transfer ended with one
  FileIdentity kept_identity;  // of the new disk when it was swapped in and the old one kept; else zero
  friend bool operator==(const SessionRecord&, const SessionRecord&) = default;
};

class SessionJournal {
 public:
  virtual ~SessionJournal() = default;
  virtual const SessionRecord& last() const noexcept = 0;
  // Durable on return. REQUIRES: the state table allows last().state -> record.state (asserted).
  virtual Result<void> append(const SessionRecord& record) = 0;
};

Result<std::unique_ptr<SessionJournal>> create_session_journal(Storage& storage, std::string_view path,
                                                               const SessionRecord& first);
// A journal of this one record in the place of whatever had the name. Durable and whole, or not there.
Result<void> replace_session_journal(Storage& storage, std::string_view path, const SessionRecord& record);
// Error: JournalErrc::damaged when no record is whole.
Result<std::unique_ptr<SessionJournal>> open_session_journal(Storage& storage, std::string_view path);

enum class JournalErrc {
  damaged = 1,  // no whole record
};
const ErrorCategory& journal_category() noexcept;
inline std::error_code make_error_code(JournalErrc value) { return {static_cast<int>(value), journal_category()}; }

}  // namespace backhaul

template <>
struct std::is_error_code_enum<backhaul::JournalErrc> : std::true_type {};
