// Ends a transfer: swap, swap that keeps the old disk, release, cancel; and completes what a crash left of each. A step
// is recorded in the session's journal before it is taken.
#include <utility>

#include "dataplane/disk/whole_file.h"
#include "dataplane/protocol/engine_error.h"
#include "dataplane/store/staging.h"

namespace backhaul {
namespace {

Result<void> append(SessionJournal& journal, SessionState state) {
  auto record = journal.last();
  record.state = state;
  return journal.append(record);
}

// The last record stays beside the disk as `.NAME.last`, then the session goes. REQUIRES: no undo log, staged or kept
// disk is left. What a crash in between leaves in the directory is of no use.
Result<void> end_session(Storage& storage, const DiskPaths& paths, std::unique_ptr<SessionJournal> journal,
                         SessionState how) {
  if (journal->last().state != how) BH_RETURN_IF_ERROR(append(*journal, how));
  journal.reset();
  BH_RETURN_IF_ERROR(storage.rename(paths.journal, paths.last, true));
  return storage.remove_directory(paths.directory);
}

Result<FileIdentity> identity_of(Storage& storage, const std::string& path) {
  BH_TRY(auto file, storage.open(path, OpenMode::read));
  return file->identity();
}

// Keeps the digests of what was delivered, with the disk's identity at its swap. They describe the disk while nobody
// writes to it, and later still say what was delivered (TargetStore::delivered_digests).
Result<void> keep_index(Storage& storage, const DiskPaths& paths, const SessionRecord& record) {
  BH_TRY(const auto kind, storage.kind(paths.index));
  if (!record.root || kind != Storage::Kind::file) return {};
  {
    auto index = open_digest_index(storage, paths.index, record.disk_size);
    if (!index) return {};
    BH_RETURN_IF_ERROR((*index)->set_identity(record.kept_identity));
  }
  return storage.rename(paths.index, paths.digests, true);
}

Result<void> complete_keep(Storage& storage, const DiskPaths& paths, SessionJournal& journal) {
  auto record = journal.last();
  BH_RETURN_IF_ERROR(make_staging(record.staging, storage, paths)->keep());
  BH_TRY(record.kept_identity, identity_of(storage, paths.disk));
  record.state = SessionState::kept;
  return journal.append(record);
}

// Completes what was recorded. The journal stays when a transfer remains, unfinished or kept.
Result<void> complete_recorded(Storage& storage, const DiskPaths& paths, std::unique_ptr<SessionJournal>& journal,
                               Recovery& recovery) {
  auto staging = make_staging(journal->last().staging, storage, paths);
  switch (journal->last().state) {
    case SessionState::transferring: recovery = Recovery::resumable; return {};
    case SessionState::keeping: BH_RETURN_IF_ERROR(complete_keep(storage, paths, *journal)); [[fallthrough]];
    case SessionState::kept: recovery = Recovery::kept; return {};
    case SessionState::preparing:
      // Nobody was told of this transfer; the record of the one before stays. The journal goes last: without it nobody
      // could know that an undo log is done with.
      BH_RETURN_IF_ERROR(staging->give_back());
      BH_RETURN_IF_ERROR(storage.remove(paths.undo));
      journal.reset();
      recovery = Recovery::gave_back;
      return storage.remove_directory(paths.directory);
    case SessionState::finishing:
      BH_RETURN_IF_ERROR(staging->swap());
      recovery = Recovery::finished;
      return end_session(storage, paths, std::move(journal), SessionState::finished);
    case SessionState::releasing:
      BH_RETURN_IF_ERROR(staging->drop_old());
      BH_RETURN_IF_ERROR(keep_index(storage, paths, journal->last()));
      [[fallthrough]];
    case SessionState::finished:
      recovery = Recovery::finished;
      return end_session(storage, paths, std::move(journal), SessionState::finished);
    case SessionState::withdrawing:
      BH_RETURN_IF_ERROR(staging->withdraw());
      BH_RETURN_IF_ERROR(append(*journal, SessionState::cancelling));
      [[fallthrough]];
    case SessionState::cancelling:
      BH_RETURN_IF_ERROR(staging->give_back());
      BH_RETURN_IF_ERROR(storage.remove(paths.undo));
      [[fallthrough]];
    case SessionState::cancelled:
      recovery = Recovery::gave_back;
      return end_session(storage, paths, std::move(journal), SessionState::cancelled);
  }
  return {};
}

// The session's journal, after what it records was completed; nothing when there is none left.
Result<std::unique_ptr<SessionJournal>> open_leftover(Storage& storage, const DiskPaths& paths, Recovery& recovery) {
  std::unique_ptr<SessionJournal> none;
  BH_TRY(const auto directory, storage.kind(paths.directory));
  if (directory == Storage::Kind::none) return none;
  BH_TRY(const auto journal_kind, storage.kind(paths.journal));
  auto journal = journal_kind == Storage::Kind::none
                     ? Result<std::unique_ptr<SessionJournal>>(make_error(JournalErrc::damaged, "missing"))
                     : open_session_journal(storage, paths.journal);
  if (!journal) {
    if (journal_kind != Storage::Kind::none && !journal.error().is(JournalErrc::damaged))
      return std::move(journal).error();
    // A kill came before the first record was durable, or after the session had ended: nothing that matters can be
    // there.
    for (const auto& path : {paths.staged, paths.undo, paths.old}) {
      BH_TRY(const auto kind, storage.kind(path));
      if (kind != Storage::Kind::none)
        return make_error(EngineErrc::session_damaged, paths.journal + ": " + journal.error().cause());
    }
    BH_RETURN_IF_ERROR(storage.remove_directory(paths.directory));
    return none;
  }
  BH_RETURN_IF_ERROR(complete_recorded(storage, paths, *journal, recovery));
  return std::move(*journal);
}

// The last transfer's end; nothing when it is not known.
Result<std::optional<SessionRecord>> read_last(Storage& storage, const DiskPaths& paths) {
  std::optional<SessionRecord> none;
  BH_TRY(const auto kind, storage.kind(paths.last));
  if (kind != Storage::Kind::file) return none;
  auto journal = open_session_journal(storage, paths.last);
  if (!journal && journal.error().is(JournalErrc::damaged)) return none;
  if (!journal) return std::move(journal).error();
  const auto& record = (*journal)->last();
  if (record.state != SessionState::finished && record.state != SessionState::cancelled) return none;
  return std::optional(record);
}

Error fenced(const DiskPaths& paths, std::uint64_t epoch, std::uint64_t recorded) {
  return make_error(EngineErrc::session_fenced, "disk " + paths.disk + ": epoch " + std::to_string(epoch) +
                                                    " is not above " + std::to_string(recorded));
}

// The epoch of a verb that changes something.
Result<std::uint64_t> claim_epoch(const DiskPaths& paths, const Standing& standing, std::uint64_t epoch) {
  const auto recorded = standing.epoch();
  if (epoch == 0) return recorded + 1;
  if (epoch <= recorded) return fenced(paths, epoch, recorded);
  return epoch;
}

// For a verb that finds nothing to do: its epoch still fences older runs.
Result<void> record_epoch(Storage& storage, const DiskPaths& paths, Standing& standing, std::uint64_t epoch) {
  const auto recorded = standing.epoch();
  if (epoch == 0 || epoch == recorded) return {};
  if (epoch < recorded) return fenced(paths, epoch, recorded);
  if (standing.journal) {
    auto record = standing.journal->last();
    record.epoch = epoch;
    return standing.journal->append(record);
  }
  SessionRecord record = standing.ended.value_or(SessionRecord{});
  if (!standing.ended) record.state = SessionState::cancelled;
  record.epoch = epoch;
  if (const auto slash = paths.disk.rfind('/'); slash != std::string::npos)
    BH_RETURN_IF_ERROR(storage.make_directory(paths.disk.substr(0, slash)));
  return replace_session_journal(storage, paths.last, record);
}

// An undo log gives the old disk back only when nobody else has written to the disk.
Result<void> check_untouched(Storage& storage, const DiskPaths& paths, const SessionRecord& record) {
  if (record.staging != StagingKind::undo) return {};
  BH_TRY(const auto kind, storage.kind(paths.disk));
  if (kind == Storage::Kind::none)
    return make_error(EngineErrc::session_damaged, paths.disk + " is gone, and only its undo log is left");
  BH_TRY(const auto now, identity_of(storage, paths.disk));
  const auto& then = record.kept_identity;
  if (now.inode != then.inode || now.size != then.size || now.modified_ns != then.modified_ns)
    return make_error(EngineErrc::session_kept_changed, "disk " + paths.disk);
  return {};
}

}  // namespace

std::string_view to_string(Recovery recovery) noexcept {
  constexpr std::string_view kNames[] = {"removed an empty session", "resumable", "kept", "finished",
                                         "gave back the old disk"};
  return kNames[static_cast<std::size_t>(recovery)];
}

std::string Leftover::to_string() const {
  return error ? error->to_string() : std::string(backhaul::to_string(recovery));
}

std::uint64_t Standing::epoch() const noexcept {
  const auto open = journal ? journal->last().epoch : 0;
  return std::max(open, ended ? ended->epoch : 0);
}

Result<Standing> recover_disk(Storage& storage, const DiskPaths& paths) {
  BH_RETURN_IF_ERROR(check_disk_parents(storage, paths));
  Standing standing;
  BH_TRY(standing.journal, open_leftover(storage, paths, standing.recovery));
  BH_TRY(standing.ended, read_last(storage, paths));
  return standing;
}

Result<std::optional<SessionRecord>> recorded_session(Storage& storage, const DiskPaths& paths) {
  std::optional<SessionRecord> none;
  BH_TRY(const auto kind, storage.kind(paths.journal));
  if (kind == Storage::Kind::none) return none;
  auto journal = open_session_journal(storage, paths.journal);
  if (!journal) return none;
  return std::optional((*journal)->last());
}

Result<void> finish_staged_disk(Storage& storage, const DiskPaths& paths, StagedDisk staged, bool keep_digests,
                                const std::optional<Sha256>& root) {
  BH_RETURN_IF_ERROR(staged.disk->close());
  staged.disk.reset();
  auto record = staged.journal->last();
  record.state = SessionState::finishing;
  record.root = root;
  BH_RETURN_IF_ERROR(staged.journal->append(record));
  BH_RETURN_IF_ERROR(make_staging(record.staging, storage, paths)->swap());
  if (keep_digests) {
    BH_TRY(const auto identity, identity_of(storage, paths.disk));
    BH_RETURN_IF_ERROR(staged.index->set_identity(identity));
    BH_RETURN_IF_ERROR(staged.index->sync());
    staged.index.reset();
    BH_RETURN_IF_ERROR(storage.rename(paths.index, paths.digests, true));
  }
  return end_session(storage, paths, std::move(staged.journal), SessionState::finished);
}

Result<void> swap_staged_disk(Storage& storage, Random& random, const DiskPaths& paths, std::uint64_t epoch) {
  BH_TRY(auto standing, recover_disk(storage, paths));
  if (standing.journal && standing.journal->last().state == SessionState::kept)
    return record_epoch(storage, paths, standing, epoch);
  BH_TRY(epoch, claim_epoch(paths, standing, epoch));
  if (!standing.journal) return make_error(EngineErrc::session_not_staged, "disk " + paths.disk);
  auto record = standing.journal->last();
  if (!record.round_ended)
    return make_error(EngineErrc::session_incomplete, "disk " + paths.disk + ": its last round has not ended");
  {
    BH_TRY(auto file, make_staging(record.staging, storage, paths)->reopen());
    BH_RETURN_IF_ERROR(sync_and_drop_cache(*file));
    BH_TRY(auto disk, open_disk(std::move(file), OpenMode::write, random));
    if (disk->size() != record.disk_size)
      return make_error(EngineErrc::session_damaged, "the staged disk has " + std::to_string(disk->size()) +
                                                         " bytes, not " + std::to_string(record.disk_size));
    BH_RETURN_IF_ERROR(disk->close());
  }
  record.state = SessionState::keeping;
  record.epoch = epoch;
  BH_RETURN_IF_ERROR(standing.journal->append(record));
  return complete_keep(storage, paths, *standing.journal);
}

Result<void> release_old_disk(Storage& storage, const DiskPaths& paths, std::uint64_t epoch) {
  BH_TRY(auto standing, recover_disk(storage, paths));
  if (!standing.journal) return record_epoch(storage, paths, standing, epoch);
  BH_TRY(epoch, claim_epoch(paths, standing, epoch));
  auto record = standing.journal->last();
  if (record.state != SessionState::kept)
    return make_error(EngineErrc::session_incomplete, "disk " + paths.disk + " is staged and not swapped in");
  record.state = SessionState::releasing;
  record.epoch = epoch;
  BH_RETURN_IF_ERROR(standing.journal->append(record));
  return complete_recorded(storage, paths, standing.journal, standing.recovery);
}

Result<bool> give_back_old_disk(Storage& storage, const DiskPaths& paths, std::uint64_t epoch) {
  BH_TRY(auto standing, recover_disk(storage, paths));
  if (!standing.journal) {
    BH_RETURN_IF_ERROR(record_epoch(storage, paths, standing, epoch));
    return standing.recovery == Recovery::gave_back;
  }
  BH_TRY(epoch, claim_epoch(paths, standing, epoch));
  auto record = standing.journal->last();
  const bool kept = record.state == SessionState::kept;
  if (kept) BH_RETURN_IF_ERROR(check_untouched(storage, paths, record));
  record.state = kept ? SessionState::withdrawing : SessionState::cancelling;
  record.epoch = epoch;
  record.root.reset();
  BH_RETURN_IF_ERROR(standing.journal->append(record));
  BH_RETURN_IF_ERROR(complete_recorded(storage, paths, standing.journal, standing.recovery));
  return true;
}

namespace {

Result<void> recover_directory(Storage& storage, const std::string& directory, int depth,
                               std::vector<Leftover>& found) {
  if (depth > 16) return {};
  BH_TRY(const auto names, storage.list(directory));
  const auto prefix = directory.empty() ? std::string() : directory + "/";
  for (const auto& name : names) {
    const auto path = prefix + name;
    // What we cannot look at (an operator's link that leads out, lost+found) is no session.
    const auto kind = storage.kind(path);
    if (!kind || *kind != Storage::Kind::directory) continue;
    if (name.front() != '.') {
      (void)recover_directory(storage, path, depth + 1, found);
      continue;
    }
    if (name.size() <= kSessionSuffix.size() + 1 || !name.ends_with(kSessionSuffix)) continue;
    Leftover leftover;
    leftover.disk = prefix + name.substr(1, name.size() - 1 - kSessionSuffix.size());
    auto paths = DiskPaths::of(leftover.disk);
    if (!paths) continue;
    auto journal = open_leftover(storage, *paths, leftover.recovery);
    if (!journal)
      leftover.error = journal.error();
    else if (*journal)
      leftover.record = (*journal)->last();
    found.push_back(std::move(leftover));
  }
  return {};
}

}  // namespace

Result<std::vector<Leftover>> recover_store(Storage& storage) {
  std::vector<Leftover> found;
  BH_RETURN_IF_ERROR(recover_directory(storage, "", 0, found));
  return found;
}

}  // namespace backhaul
