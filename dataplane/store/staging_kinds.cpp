// The three ways of staging: a new file, a clone, and the old disk itself with an undo log.
#include <utility>

#include "dataplane/store/staging.h"
#include "dataplane/store/undo.h"

namespace backhaul {
namespace {

Result<bool> exists(Storage& storage, const std::string& path) {
  BH_TRY(const auto kind, storage.kind(path));
  return kind != Storage::Kind::none;
}

class FreshStaging : public Staging {
 public:
  FreshStaging(Storage& storage, const DiskPaths& paths) : storage_(storage), paths_(paths) {}
  Result<std::unique_ptr<File>> stage() override {
    BH_RETURN_IF_ERROR(storage_.remove(paths_.staged));
    return storage_.create(paths_.staged);
  }
  Result<std::unique_ptr<File>> reopen() override { return storage_.open(paths_.staged, OpenMode::write); }
  Result<void> swap() override {
    BH_TRY(const bool staged, exists(storage_, paths_.staged));
    if (!staged) return {};  // done before a crash
    BH_RETURN_IF_ERROR(take_ownership());
    return storage_.rename(paths_.staged, paths_.disk, true);
  }
  Result<void> keep() override {
    BH_TRY(const bool staged, exists(storage_, paths_.staged));
    if (!staged) return {};  // done before a crash
    BH_TRY(const bool moved, exists(storage_, paths_.old));
    BH_TRY(const bool disk, exists(storage_, paths_.disk));
    if (!moved && disk) {
      BH_RETURN_IF_ERROR(take_ownership());
      BH_RETURN_IF_ERROR(storage_.rename(paths_.disk, paths_.old, false));
    }
    return storage_.rename(paths_.staged, paths_.disk, false);
  }
  Result<void> withdraw() override {
    BH_TRY(const bool staged, exists(storage_, paths_.staged));
    BH_TRY(const bool disk, exists(storage_, paths_.disk));
    if (!staged && disk) BH_RETURN_IF_ERROR(storage_.rename(paths_.disk, paths_.staged, false));
    BH_TRY(const bool old, exists(storage_, paths_.old));
    return old ? storage_.rename(paths_.old, paths_.disk, false) : Result<void>();
  }
  Result<void> drop_old() override { return storage_.remove(paths_.old); }
  Result<void> give_back() override { return storage_.remove(paths_.staged); }

 protected:
  Result<void> take_ownership() {
    BH_TRY(const auto old, storage_.kind(paths_.disk));
    return old == Storage::Kind::file ? storage_.take_ownership(paths_.staged, paths_.disk) : Result<void>();
  }

  Storage& storage_;
  DiskPaths paths_;
};

class CloneStaging final : public FreshStaging {
 public:
  using FreshStaging::FreshStaging;
  Result<std::unique_ptr<File>> stage() override {
    BH_RETURN_IF_ERROR(storage_.remove(paths_.staged));
    BH_RETURN_IF_ERROR(storage_.clone(paths_.disk, paths_.staged));
    return reopen();
  }
};

class UndoStaging final : public Staging {
 public:
  UndoStaging(Storage& storage, const DiskPaths& paths, bool in_place)
      : storage_(storage), paths_(paths), place_(in_place ? paths.disk : paths.staged), in_place_(in_place) {}

  Result<std::unique_ptr<File>> stage() override {
    {
      BH_TRY(auto file, storage_.open(paths_.disk, OpenMode::read));
      BH_RETURN_IF_ERROR(storage_.remove(paths_.undo));
      BH_RETURN_IF_ERROR(create_undo_log(storage_, paths_.undo, *file));
    }
    if (!in_place_) BH_RETURN_IF_ERROR(storage_.rename(paths_.disk, paths_.staged, false));
    return reopen();
  }
  Result<std::unique_ptr<File>> reopen() override {
    BH_TRY(auto file, storage_.open(place_, OpenMode::write));
    return open_undo_file(storage_, paths_.undo, std::move(file));
  }
  Result<void> swap() override {
    BH_RETURN_IF_ERROR(keep());
    return drop_old();
  }
  // The undo log is what is kept.
  Result<void> keep() override {
    if (in_place_) return {};
    BH_TRY(const bool staged, exists(storage_, paths_.staged));
    return staged ? storage_.rename(paths_.staged, paths_.disk, false) : Result<void>();
  }
  Result<void> withdraw() override {
    if (in_place_) return {};
    BH_TRY(const bool staged, exists(storage_, paths_.staged));
    return staged ? Result<void>() : storage_.rename(paths_.disk, paths_.staged, false);
  }
  Result<void> drop_old() override { return storage_.remove(paths_.undo); }
  Result<void> give_back() override {
    BH_TRY(const bool place, exists(storage_, place_));
    BH_TRY(const bool log, exists(storage_, paths_.undo));
    if (place && log) {
      BH_TRY(auto file, storage_.open(place_, OpenMode::write));
      BH_RETURN_IF_ERROR(restore_undo_log(storage_, paths_.undo, *file));
    }
    if (!in_place_ && place) BH_RETURN_IF_ERROR(storage_.rename(paths_.staged, paths_.disk, false));
    return {};
  }

 private:
  Storage& storage_;
  DiskPaths paths_;
  std::string place_;
  bool in_place_;
};

}  // namespace

std::unique_ptr<Staging> make_staging(StagingKind kind, Storage& storage, const DiskPaths& paths) {
  switch (kind) {
    case StagingKind::fresh: return std::make_unique<FreshStaging>(storage, paths);
    case StagingKind::clone: return std::make_unique<CloneStaging>(storage, paths);
    case StagingKind::undo: return std::make_unique<UndoStaging>(storage, paths, false);
    case StagingKind::undo_in_place: return std::make_unique<UndoStaging>(storage, paths, true);
  }
  return nullptr;
}

}  // namespace backhaul
