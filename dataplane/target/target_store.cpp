#include "dataplane/target/target_store.h"

#include <algorithm>

#include "dataplane/protocol/engine_error.h"
#include "dataplane/scan/scan.h"

namespace backhaul {
namespace {

// File times of older kernels move in ticks of up to 10 ms. Whoever writes to the disk after it was swapped in must get
// a later time than the one on record, or the digests would be believed.
constexpr std::chrono::milliseconds kTimestampTick{20};
// A run that was told to go away still completes its writes in flight; a device may take long over them.
constexpr std::chrono::seconds kDrainTimeout{120};
constexpr std::chrono::milliseconds kLockInterval{10};

// Disks that the store remembers although nobody works on them: 256 names of at most 4 KiB.
constexpr std::size_t kMaxIdleSlots = 256;

std::string make_session_id(Random& random) {
  std::array<std::uint64_t, 2> raw{random.next(), random.next()};
  return to_hex(as_bytes(raw.data(), sizeof raw));
}

// Without changed extents only, every extent must have been acknowledged before the disk may take the old one's place.
Result<void> check_complete(TargetSession& session) {
  if (session.request().changed_only) return {};
  auto& index = session.index();
  for (std::uint64_t extent = 0; extent < extent_count(index.disk_size()); ++extent)
    if (index.state(extent) == ExtentState::unknown)
      return make_error(EngineErrc::session_incomplete, "extent at " + std::to_string(extent * kExtentSize));
  return {};
}

// The run asks for a transfer that it finished itself: the answer to its finish was lost.
bool has_finished(const OpenRequest& request, const Standing& standing) {
  return request.transfer != 0 && standing.ended && standing.ended->transfer == request.transfer &&
         standing.ended->epoch == request.epoch && standing.ended->state == SessionState::finished;
}

// Whether the run may open the disk at all: not when a newer one did, not to go on with what is gone, and not while the
// disk's old content is kept.
Result<void> check_fence(const OpenRequest& request, const Standing& standing) {
  const auto* record = standing.journal ? &standing.journal->last() : nullptr;
  if (request.transfer != 0 && record == nullptr) {
    const auto& ended = standing.ended;
    if (ended && ended->transfer == request.transfer && ended->state == SessionState::finished)
      return make_error(EngineErrc::session_fenced, "epoch " + std::to_string(ended->epoch) + " finished the transfer");
    return make_error(EngineErrc::session_cancelled, "the transfer of disk " + request.disk + " ended in the meantime");
  }
  const auto recorded = standing.epoch();
  // Only a run that is under way may be taken over by itself.
  const auto lowest = record != nullptr ? recorded : recorded + 1;
  if (request.epoch != 0 && request.epoch < lowest)
    return make_error(EngineErrc::session_fenced,
                      "epoch " + std::to_string(request.epoch) + ", on record is " + std::to_string(recorded));
  if (record == nullptr) return {};
  if (request.transfer != 0 && request.transfer != record->transfer)
    return make_error(EngineErrc::session_fenced, "another transfer of disk " + request.disk + " has begun");
  if (record->state == SessionState::kept) return make_error(EngineErrc::session_kept, "disk " + request.disk);
  return {};
}

OpenedSession finished_answer(const SessionRecord& record) {
  OpenedSession opened;
  opened.finished = true;
  opened.epoch = record.epoch;
  opened.transfer = record.transfer;
  opened.size = record.disk_size;
  opened.format = record.format;
  opened.staging = record.staging;
  opened.had_old_disk = record.had_old_disk;
  if (record.root) opened.root_digest = to_hex(*record.root);
  return opened;
}

}  // namespace

std::shared_ptr<TargetStore::Slot> TargetStore::slot_of(const std::string& disk) {
  const std::lock_guard lock(mutex_);
  // Names that a peer asked about and that hold nothing do not pile up.
  if (slots_.size() >= kMaxIdleSlots)
    std::erase_if(slots_, [](const auto& entry) { return entry.second.use_count() == 1 && !entry.second->session; });
  auto& slot = slots_[disk];
  if (!slot) slot = std::make_shared<Slot>();
  return slot;
}

std::shared_ptr<TargetSession> TargetStore::session_of(Slot& slot) {
  const std::lock_guard lock(mutex_);
  return slot.session;
}

void TargetStore::set_session(Slot& slot, std::shared_ptr<TargetSession> session) {
  std::shared_ptr<TargetSession> old;  // destroyed after the lock is released
  const std::lock_guard lock(mutex_);
  old = std::exchange(slot.session, std::move(session));
}

Result<void> TargetStore::take_disk(Slot& slot, const std::string& disk, bool takes_over,
                                    std::chrono::milliseconds patience) {
  auto live = session_of(slot);
  if (!live) return {};
  if (!takes_over && !live->wait_unused(patience))
    return make_error(EngineErrc::session_busy, "disk " + disk + ", epoch " + std::to_string(live->epoch()));
  live->revoke(EngineErrc::session_fenced);
  if (!live->wait_unused(kDrainTimeout))
    return make_error(EngineErrc::session_busy, "the run before does not end: disk " + disk);
  live.reset();
  set_session(slot, nullptr);
  return {};
}

// Without a session: the transfer that is asked for has finished.
Result<std::shared_ptr<TargetSession>> TargetStore::open_locked(Slot& slot, const DiskPaths& paths,
                                                                const OpenRequest& request,
                                                                std::chrono::milliseconds patience,
                                                                OpenedSession& opened) {
  std::shared_ptr<TargetSession> session;
  std::uint64_t epoch = 0;
  {
    BH_TRY(const auto standing, recover_disk(storage_, paths));
    if (has_finished(request, standing)) {
      opened = finished_answer(*standing.ended);
      return session;
    }
    BH_RETURN_IF_ERROR(check_fence(request, standing));
    epoch = std::max(standing.epoch() + 1, request.epoch);
  }
  if (const auto live = session_of(slot))
    BH_RETURN_IF_ERROR(take_disk(slot, request.disk, request.epoch != 0 && request.epoch >= live->epoch(), patience));
  BH_TRY(auto staged, open_staged_disk(storage_, *parts_.random, paths, request, epoch));
  session = std::make_shared<TargetSession>(make_session_id(*parts_.random), epoch, request, std::move(staged));
  set_session(slot, session);
  return session;
}

Result<SessionUse> TargetStore::open(const OpenRequest& request, std::chrono::milliseconds patience,
                                     OpenedSession& opened) {
  BH_TRY(const auto paths, DiskPaths::of(request.disk));
  auto slot = slot_of(request.disk);
  const std::lock_guard lock(slot->mutex);
  BH_TRY(auto session, open_locked(*slot, paths, request, patience, opened));
  if (!session) return SessionUse();
  if (!session->enter()) return session->revoked_error();
  opened = {};
  opened.session = session->id();
  opened.epoch = session->epoch();
  opened.transfer = session->record().transfer;
  opened.size = session->disk().size();
  opened.format = session->disk().format();
  opened.staging = session->record().staging;
  opened.had_old_disk = session->record().had_old_disk;
  opened.resumed = session->resumed();
  opened.compare = session->compare();
  opened.blank = session->blank();
  opened.compare_by = session->compare_by();
  return SessionUse(std::move(session));
}

Result<SessionUse> TargetStore::join(const std::string& session_id, std::uint64_t epoch) {
  std::shared_ptr<TargetSession> found;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [disk, slot] : slots_)
      if (slot->session && slot->session->id() == session_id) found = slot->session;
  }
  if (!found) return make_error(EngineErrc::session_unknown);
  if (found->epoch() != epoch) return make_error(EngineErrc::session_fenced, "epoch " + std::to_string(epoch));
  BH_RETURN_IF_ERROR(found->enter_lane());
  return SessionUse(std::move(found));
}

Result<FinishResult> TargetStore::finish(TargetSession& session, const FinishRequest& request,
                                         const std::function<Result<void>(std::string_view, double)>& step) {
  const auto report = [&](std::string_view what, double fraction) -> Result<void> {
    if (session.revoked()) return session.revoked_error();
    return step ? step(what, fraction) : Result<void>();
  };
  BH_TRY(const auto paths, DiskPaths::of(session.request().disk));
  auto slot = slot_of(session.request().disk);
  // Whoever takes the disk away holds the lock while it waits for this user to leave: never block on it.
  std::unique_lock lock(slot->mutex, std::defer_lock);
  while (!lock.try_lock()) {
    if (session.revoked()) return session.revoked_error();
    parts_.clock->sleep_for(kLockInterval);
  }
  if (session.revoked()) return session.revoked_error();
  if (!session.begin_finish(kDrainTimeout)) return make_error(EngineErrc::session_busy, "lanes are still open");
  // No lane may change what is verified here.
  const auto reopen = [](TargetSession* of) { of->end_finish(); };
  const std::unique_ptr<TargetSession, decltype(reopen)> closed(&session, reopen);

  BH_RETURN_IF_ERROR(check_complete(session));
  FinishResult result;
  std::optional<Sha256> root;
  result.blocks_zeroed = session.blocks_zeroed.load();
  BH_RETURN_IF_ERROR(report("flush", 0));
  BH_RETURN_IF_ERROR(session.disk().checkpoint());
  BH_RETURN_IF_ERROR(report("verify", 0));
  if (session.request().verify == VerifyMode::full) {
    BH_TRY(root, verify_all(session, report));
  } else if (session.request().verify == VerifyMode::written) {
    BH_TRY(root, root_of(session.index()));  // by what lanes recorded
  }
  if (root) result.root_digest = to_hex(*root);
  if (!request.root_digest.empty() && !result.root_digest.empty() && request.root_digest != result.root_digest)
    return make_error(EngineErrc::root_mismatch, "source " + request.root_digest + ", target " + result.root_digest);
  BH_RETURN_IF_ERROR(session.index().sync());
  if (!request.swap) {
    BH_RETURN_IF_ERROR(session.index().reset_shipped());
    BH_RETURN_IF_ERROR(session.index().sync());
    BH_RETURN_IF_ERROR(session.end_round(root));
    return result;
  }
  BH_RETURN_IF_ERROR(report("swap", 0));
  session.revoke(EngineErrc::session_fenced);  // no lane may join any more
  set_session(*slot, nullptr);
  BH_RETURN_IF_ERROR(finish_staged_disk(storage_, paths, std::move(session.staged()), root.has_value(), root));
  if (root) parts_.clock->sleep_for(kTimestampTick);
  return result;
}

Result<Sha256> TargetStore::verify_all(TargetSession& session,
                                       const std::function<Result<void>(std::string_view, double)>& report) {
  auto& index = session.index();
  const auto size = index.disk_size();
  session.disk().file().drop_cache(0, session.disk().file().size());
  ScanOptions options;
  options.visit = [&](std::uint64_t extent, std::uint64_t count, const ExtentDigests* digests) -> Result<void> {
    if (digests == nullptr) return index.store_zero_run(extent, count);
    return index.store(extent, *digests, index.shipped(extent));
  };
  options.progress = [&](std::uint64_t bytes) {
    return report("verify", static_cast<double>(bytes) / static_cast<double>(std::max<std::uint64_t>(size, 1)));
  };
  return scan_disk(session.disk(), parts_, options);
}

// ---- the verbs

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
