// The verbs of a target disk beside its transfers: swap, release, cancel, query.
#include "dataplane/protocol/engine_error.h"
#include "dataplane/target/target_session.h"

namespace backhaul {
// An epoch that is not above the live run's does not touch it; the verb itself says how it is refused.
Result<void> TargetStore::take_disk_for_verb(Slot& slot, const DiskPaths& paths, std::uint64_t epoch,
                                             std::chrono::milliseconds patience) {
  const auto live = session_of(slot);
  if (!live) return {};
  if (epoch != 0 && epoch <= live->epoch())
    return make_error(EngineErrc::session_fenced, "disk " + paths.disk + ": epoch " + std::to_string(epoch) +
                                                      " is not above " + std::to_string(live->epoch()));
  return take_disk(slot, paths.disk, epoch != 0, patience);
}

Result<void> TargetStore::swap(const std::string& disk, std::uint64_t epoch, std::chrono::milliseconds patience) {
  BH_TRY(const auto paths, DiskPaths::of(disk));
  auto slot = slot_of(disk);
  const std::lock_guard lock(slot->mutex);
  BH_RETURN_IF_ERROR(take_disk_for_verb(*slot, paths, epoch, patience));
  BH_RETURN_IF_ERROR(swap_staged_disk(storage_, *parts_.random, paths, epoch));
  // Who writes to the disk from here on gives it a later time than the one on record.
  parts_.clock->sleep_for(kTimestampTick);
  return {};
}

Result<void> TargetStore::release(const std::string& disk, std::uint64_t epoch, std::chrono::milliseconds patience) {
  BH_TRY(const auto paths, DiskPaths::of(disk));
  auto slot = slot_of(disk);
  const std::lock_guard lock(slot->mutex);
  // A disk that is being sent has nothing to release: the run is left alone.
  if (session_of(*slot)) {
    BH_TRY(const auto record, recorded_session(storage_, paths));
    if (record && record->state == SessionState::transferring)
      return make_error(EngineErrc::session_incomplete, "disk " + disk + " is staged and not swapped in");
  }
  BH_RETURN_IF_ERROR(take_disk_for_verb(*slot, paths, epoch, patience));
  return release_old_disk(storage_, paths, epoch);
}

Result<bool> TargetStore::cancel(const std::string& disk, std::uint64_t epoch) {
  BH_TRY(const auto paths, DiskPaths::of(disk));
  auto slot = slot_of(disk);
  // Before the lock, which a run that is finishing holds: it hears of this and gives way.
  const auto revoke = [&](TargetSession& live) {
    if (epoch == 0 || epoch > live.epoch()) live.revoke(EngineErrc::session_cancelled);
  };
  if (const auto live = session_of(*slot)) revoke(*live);
  const std::lock_guard lock(slot->mutex);
  if (auto live = session_of(*slot)) {
    revoke(*live);
    if (epoch != 0 && epoch <= live->epoch())
      return make_error(EngineErrc::session_fenced, "disk " + disk + ": epoch " + std::to_string(epoch) +
                                                        " is not above " + std::to_string(live->epoch()));
    if (!live->wait_unused(kDrainTimeout))
      return make_error(EngineErrc::session_busy, "the run does not end; try again: disk " + disk);
    live.reset();
    set_session(*slot, nullptr);
  }
  return give_back_old_disk(storage_, paths, epoch);
}

Result<TargetStatus> TargetStore::query(const std::string& disk) {
  BH_TRY(const auto paths, DiskPaths::of(disk));
  auto slot = slot_of(disk);
  std::unique_lock lock(slot->mutex, std::defer_lock);
  while (!lock.try_lock()) {
    // A finish may take as long as reading the whole disk: its own session says what there is to say.
    if (const auto live = session_of(*slot)) {
      TargetStatus status;
      status.state = TargetState::staged;
      status.size = live->disk_size();
      status.format = live->format();
      status.epoch = live->epoch();
      return status;
    }
    parts_.clock->sleep_for(kLockInterval);
  }
  return query_locked(paths);
}

Result<TargetStatus> TargetStore::query_locked(const DiskPaths& paths) {
  BH_TRY(const auto standing, recover_disk(storage_, paths));
  TargetStatus status;
  status.epoch = standing.epoch();
  if (standing.journal) {
    const auto& record = standing.journal->last();
    status.state = record.state == SessionState::kept ? TargetState::swapped : TargetState::staged;
    status.size = record.disk_size;
    status.format = record.format;
    status.whole = record.round_ended;
    if (status.state == TargetState::swapped && record.root) {
      BH_TRY(auto file, storage_.open(paths.disk, OpenMode::read));
      BH_TRY(const auto identity, file->identity());
      if (identity == record.kept_identity && identity.changed_ns != 0) status.root_digest = to_hex(*record.root);
    }
    return status;
  }
  BH_TRY(const auto kind, storage_.kind(paths.disk));
  if (kind == Storage::Kind::none) return status;
  if (kind != Storage::Kind::file && kind != Storage::Kind::block_device)
    return make_error(IoErrc::not_a_disk, paths.disk + " is no file and no block device (links are not followed)");
  BH_TRY(auto file, storage_.open(paths.disk, OpenMode::read));
  auto disk = open_disk(std::move(file), OpenMode::read, *parts_.random);
  if (!disk) return std::move(disk).error().with_context("target disk " + paths.disk);
  status.state = TargetState::plain;
  status.size = (*disk)->size();
  status.format = (*disk)->format();
  return status;
}

Result<std::optional<DiskDigests>> TargetStore::delivered_digests(const std::string& disk,
                                                                  std::string_view root_digest) {
  const std::optional<DiskDigests> none;
  BH_TRY(const auto paths, DiskPaths::of(disk));
  auto slot = slot_of(disk);
  const std::lock_guard lock(slot->mutex);
  BH_TRY(const auto standing, recover_disk(storage_, paths));
  if (standing.journal || !standing.ended || !standing.ended->root || to_hex(*standing.ended->root) != root_digest)
    return none;
  BH_TRY(const auto kind, storage_.kind(paths.digests));
  if (kind != Storage::Kind::file) return none;
  auto index = open_digest_index(storage_, paths.digests, standing.ended->disk_size);
  if (!index) return none;
  BH_TRY(auto digests, digests_of(**index));
  // Not by the record but by the digests themselves: a damaged index, or one of another transfer, has another root.
  if (!digests || to_hex(root_of(*digests)) != root_digest) return none;
  return digests;
}

}  // namespace backhaul
