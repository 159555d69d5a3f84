#include "dataplane/store/staging.h"

#include <utility>

#include "dataplane/disk/whole_file.h"
#include "dataplane/protocol/engine_error.h"
#include "dataplane/store/undo.h"

namespace backhaul {
namespace {

bool good_part(std::string_view part) {
  if (part.empty() || part.front() == '.' || part.size() > 200) return false;
  for (const char c : part)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F || c == '\\') return false;
  return true;
}

bool ends_with_vhdx(std::string_view name) {
  if (name.size() < 5) return false;
  std::string tail(name.substr(name.size() - 5));
  for (auto& c : tail) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return tail == ".vhdx";
}

// What stands at the disk's name before the transfer.
struct OldDisk {
  bool exists = false;
  bool block_device = false;
  DiskFormat format = DiskFormat::raw;
  std::uint64_t size = 0;
  FileIdentity identity;
};

Result<OldDisk> inspect_old_disk(Storage& storage, Random& random, const DiskPaths& paths) {
  OldDisk old;
  BH_TRY(const auto kind, storage.kind(paths.disk));
  if (kind == Storage::Kind::none) return old;
  if (kind != Storage::Kind::file && kind != Storage::Kind::block_device)
    return make_error(IoErrc::not_a_disk, paths.disk + " is no file and no block device (links are not followed)");
  old.exists = true;
  old.block_device = kind == Storage::Kind::block_device;
  BH_TRY(auto file, storage.open(paths.disk, OpenMode::read));
  BH_TRY(old.identity, file->identity());
  auto disk = open_disk(std::move(file), OpenMode::read, random);
  if (!disk) return std::move(disk).error().with_context("target disk " + paths.disk);
  old.format = (*disk)->format();
  old.size = (*disk)->size();
  return old;
}

Result<void> check_sizes(const OldDisk& old, const OpenRequest& request) {
  const std::uint64_t want = old.format == DiskFormat::raw ? request.size : align_up(request.size, 512);
  if (old.size == want ||
      (old.format != DiskFormat::raw && old.size == align_up(request.size, 4096) && request.size % 512 != 0))
    return {};
  const auto facts = "target " + std::to_string(old.size) + " bytes, source " + std::to_string(request.size) + " bytes";
  if (old.size < request.size) return make_error(EngineErrc::target_too_small, facts);
  return make_error(EngineErrc::target_size_differs, facts);
}

struct Plan {
  StagingKind staging = StagingKind::fresh;
  DiskFormat format = DiskFormat::raw;
  bool blank = false;  // a new disk, not the old one's content
};

Result<Plan> plan_staging(const OldDisk& old, const OpenRequest& request) {
  Plan plan;
  const auto by_name = ends_with_vhdx(request.disk) ? DiskFormat::vhdx : DiskFormat::raw;
  if (!old.exists) {
    if (request.changed_only) return make_error(EngineErrc::no_base, request.disk + " does not exist");
    plan.format = request.format.value_or(by_name);
    plan.blank = true;
    return plan;
  }
  BH_RETURN_IF_ERROR(check_sizes(old, request));
  const bool same_format = !request.format || *request.format == old.format;
  if (old.block_device) {
    if (!same_format) return make_error(EngineErrc::format_mismatch, "a block device is always raw");
    plan.staging = StagingKind::undo_in_place;
    plan.format = DiskFormat::raw;
    return plan;
  }
  // Changed extents alone do not make a disk: they need the old one below them.
  if (request.sync == SyncMode::full && request.staging == StagingChoice::automatic && !request.changed_only) {
    plan.format = request.format.value_or(old.format);
    plan.blank = true;
    return plan;
  }
  if (!same_format)
    return make_error(EngineErrc::format_mismatch, "the disk is " + std::string(to_string(old.format)) +
                                                       ", asked for is " + std::string(to_string(*request.format)));
  plan.format = old.format;
  plan.staging = request.staging == StagingChoice::undo ? StagingKind::undo : StagingKind::clone;
  return plan;
}

}  // namespace

Result<void> check_disk_parents(Storage& storage, const DiskPaths& paths) {
  for (auto end = paths.disk.find('/'); end != std::string::npos; end = paths.disk.find('/', end + 1)) {
    const auto parent = paths.disk.substr(0, end);
    BH_TRY(const auto kind, storage.kind(parent));
    if (kind != Storage::Kind::none && kind != Storage::Kind::directory)
      return make_error(IoErrc::not_a_disk, paths.disk + ": " + parent + " is no directory (links are not followed)");
  }
  return {};
}

namespace {

// The kept index of the old disk if it still describes it, else a new one.
Result<std::unique_ptr<DigestIndex>> make_index(Storage& storage, const DiskPaths& paths, const OldDisk& old,
                                                std::uint64_t size, bool use_kept) {
  BH_TRY(const auto kept, storage.kind(paths.digests));
  if (kept == Storage::Kind::file && use_kept) {
    auto index = open_digest_index(storage, paths.digests, size);
    if (index) {
      auto identity = (*index)->identity();
      if (identity && *identity == old.identity && old.identity.changed_ns != 0) {
        index->reset();
        BH_RETURN_IF_ERROR(storage.rename(paths.digests, paths.index, true));
        BH_TRY(auto moved, open_digest_index(storage, paths.index, size));
        BH_RETURN_IF_ERROR(moved->set_identity({}));
        BH_RETURN_IF_ERROR(moved->reset_shipped());
        BH_RETURN_IF_ERROR(moved->sync());
        return moved;
      }
    }
  }
  if (kept != Storage::Kind::none) BH_RETURN_IF_ERROR(storage.remove(paths.digests));
  return create_digest_index(storage, paths.index, size);
}

Result<StagedDisk> start(Storage& storage, Random& random, const DiskPaths& paths, const OpenRequest& request,
                         std::uint64_t epoch) {
  if (request.size > kMaxDiskSize)
    return make_error(BaseErrc::invalid_argument, "a disk of " + std::to_string(request.size) + " bytes");
  BH_TRY(const auto old, inspect_old_disk(storage, random, paths));
  BH_TRY(auto plan, plan_staging(old, request));
  if (plan.blank && plan.format != DiskFormat::raw && request.size == 0)
    return make_error(BaseErrc::invalid_argument, "a VHDX disk cannot be empty");

  if (const auto slash = paths.disk.rfind('/'); slash != std::string::npos)
    BH_RETURN_IF_ERROR(storage.make_directory(paths.disk.substr(0, slash)));
  BH_RETURN_IF_ERROR(storage.remove_directory(paths.directory));
  BH_RETURN_IF_ERROR(storage.make_directory(paths.directory));
  SessionRecord record;
  record.staging = plan.staging;
  record.format = plan.format;
  record.epoch = epoch;
  record.disk_size = request.size;
  record.transfer = random.next() >> 2 | 1;  // fits the numbers of messages
  record.had_old_disk = old.exists;
  record.whole = request.changed_only;

  StagedDisk staged;
  BH_TRY(staged.journal, create_session_journal(storage, paths.journal, record));
  auto file = make_staging(plan.staging, storage, paths)->stage();
  if (!file && file.error().is(IoErrc::clone_unsupported) && request.staging == StagingChoice::automatic) {
    // Nothing was staged: prepare again, with an undo log.
    BH_RETURN_IF_ERROR(storage.remove_directory(paths.directory));
    BH_RETURN_IF_ERROR(storage.make_directory(paths.directory));
    record.staging = StagingKind::undo;
    BH_TRY(staged.journal, create_session_journal(storage, paths.journal, record));
    file = make_staging(record.staging, storage, paths)->stage();
  }
  if (!file) return std::move(file).error();
  if (plan.blank) {
    DiskCreate create;
    create.format = plan.format;
    create.size = request.size;
    BH_TRY(staged.disk, create_disk(std::move(*file), create, random));
  } else {
    BH_TRY(staged.disk, open_disk(std::move(*file), OpenMode::write, random));
  }
  staged.blank = plan.blank;
  BH_TRY(staged.index, make_index(storage, paths, old, staged.disk->size(), !plan.blank));
  BH_RETURN_IF_ERROR(staged.disk->checkpoint());
  record.state = SessionState::transferring;
  record.disk_size = staged.disk->size();
  BH_RETURN_IF_ERROR(staged.journal->append(record));
  return staged;
}

Result<StagedDisk> resume(Storage& storage, Random& random, const DiskPaths& paths, const OpenRequest& request,
                          std::unique_ptr<SessionJournal> journal, std::uint64_t epoch) {
  auto record = journal->last();
  const bool padded = record.format != DiskFormat::raw && (record.disk_size == align_up(request.size, 512) ||
                                                           record.disk_size == align_up(request.size, 4096));
  if (record.disk_size != request.size && !padded)
    return make_error(EngineErrc::session_mismatch, "the unfinished transfer is of " +
                                                        std::to_string(record.disk_size) +
                                                        " bytes, the source now has " + std::to_string(request.size));
  if (request.format && *request.format != record.format)
    return make_error(EngineErrc::session_mismatch,
                      "the unfinished transfer writes " + std::string(to_string(record.format)));
  if (request.changed_only && !record.whole)
    return make_error(EngineErrc::session_mismatch,
                      "the unfinished transfer is of the whole disk: changed extents alone do not complete it");
  StagedDisk staged;
  staged.resumed = true;
  BH_TRY(auto file, make_staging(record.staging, storage, paths)->reopen());
  // What the run before wrote and did not sync reads as written, and would be recorded as durable.
  BH_RETURN_IF_ERROR(sync_and_drop_cache(*file));
  BH_TRY(staged.disk, open_disk(std::move(file), OpenMode::write, random));
  if (staged.disk->size() != record.disk_size)
    return make_error(EngineErrc::session_damaged, "the staged disk has " + std::to_string(staged.disk->size()) +
                                                       " bytes, not " + std::to_string(record.disk_size));
  auto index = open_digest_index(storage, paths.index, record.disk_size);
  if (!index) {
    BH_RETURN_IF_ERROR(storage.remove(paths.index));
    index = create_digest_index(storage, paths.index, record.disk_size);
    if (!index) return std::move(index).error();
  }
  staged.index = std::move(*index);
  record.epoch = epoch;
  record.round_ended = false;
  record.root.reset();
  BH_RETURN_IF_ERROR(journal->append(record));
  staged.journal = std::move(journal);
  return staged;
}

}  // namespace

Result<DiskPaths> DiskPaths::of(std::string_view disk) {
  std::string_view rest = disk;
  std::string_view name;
  while (true) {
    const auto slash = rest.find('/');
    name = rest.substr(0, slash);
    if (!good_part(name)) return make_error(EngineErrc::bad_disk_name, "'" + std::string(disk.substr(0, 200)) + "'");
    if (slash == std::string_view::npos) break;
    rest.remove_prefix(slash + 1);
  }
  DiskPaths paths;
  paths.disk = std::string(disk);
  const auto parent = paths.disk.substr(0, disk.size() - name.size());
  paths.directory = parent + "." + std::string(name) + std::string(kSessionSuffix);
  paths.journal = paths.directory + "/journal";
  paths.index = paths.directory + "/index";
  paths.undo = paths.directory + "/undo";
  paths.staged = paths.directory + "/staged";
  paths.old = paths.directory + "/old";
  paths.digests = parent + "." + std::string(name) + ".digests";
  paths.last = parent + "." + std::string(name) + ".last";
  return paths;
}

Result<StagedDisk> open_staged_disk(Storage& storage, Random& random, const DiskPaths& paths,
                                    const OpenRequest& request, std::uint64_t epoch) {
  BH_TRY(auto standing, recover_disk(storage, paths));
  if (standing.journal) {
    if (standing.journal->last().state == SessionState::kept)
      return make_error(EngineErrc::session_kept, "disk " + paths.disk);
    return resume(storage, random, paths, request, std::move(standing.journal), epoch);
  }
  auto staged = start(storage, random, paths, request, epoch);
  if (!staged) {
    // Nothing that matters was done: leave no trace of it, and keep the first error.
    if (auto leftover = recover_disk(storage, paths); !leftover)
      return std::move(staged).error().with_context("and clearing up failed: " + leftover.error().to_string());
  }
  return staged;
}

}  // namespace backhaul
