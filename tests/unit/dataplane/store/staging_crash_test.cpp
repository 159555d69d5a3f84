// Staging under power losses: at every operation of a transfer, and again at every operation of the recovery.
#include "dataplane/store/staging.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "dataplane/protocol/engine_error.h"
#include "sim/sim_random.h"
#include "sim/sim_storage.h"

namespace backhaul {
namespace {

using sim::SimOptions;
using sim::SimRandom;
using sim::SimStorage;

constexpr std::uint64_t kSize = 5 * 64 * kKiB + 512;  // five chunks of the undo log and a piece
constexpr std::string_view kDisk = "vm/disk";

// Removes a directory's files one by one, in the order of their names, as a real file system does.
class PiecewiseStorage final : public Storage {
 public:
  explicit PiecewiseStorage(SimStorage& storage) : storage_(storage) {}
  Result<Kind> kind(std::string_view path) override { return storage_.kind(path); }
  Result<std::unique_ptr<File>> open(std::string_view path, OpenMode mode) override {
    return storage_.open(path, mode);
  }
  Result<std::unique_ptr<File>> create(std::string_view path) override { return storage_.create(path); }
  Result<void> clone(std::string_view from, std::string_view to) override { return storage_.clone(from, to); }
  Result<void> rename(std::string_view from, std::string_view to, bool replace) override {
    return storage_.rename(from, to, replace);
  }
  Result<void> remove(std::string_view path) override { return storage_.remove(path); }
  Result<void> make_directory(std::string_view path) override { return storage_.make_directory(path); }
  Result<void> remove_directory(std::string_view path) override {
    BH_TRY(const auto kind, storage_.kind(path));
    if (kind == Kind::none) return {};
    BH_TRY(const auto names, storage_.list(path));
    for (const auto& name : names) BH_RETURN_IF_ERROR(storage_.remove(std::string(path) + "/" + name));
    return storage_.remove_directory(path);
  }
  Result<std::vector<std::string>> list(std::string_view path) override { return storage_.list(path); }
  Result<std::uint64_t> free_space_bytes() override { return storage_.free_space_bytes(); }

 private:
  SimStorage& storage_;
};

std::uint64_t seed() {
  static const auto value = sim::seed_from_environment(1);
  return value;
}

std::vector<std::byte> content_of(std::uint64_t seed) {
  SimRandom random(seed);
  std::vector<std::byte> bytes(kSize);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random.next());
  return bytes;
}

struct Case {
  std::string_view name;
  SyncMode sync;
  StagingChoice staging;
  bool reflink;
  bool device = false;
};

class StagingCrashTest : public ::testing::TestWithParam<Case> {
 protected:
  // A store with nothing but the old disk, durably.
  struct Store {
    explicit Store(bool reflink)
        : simulated([&] {
            SimOptions options;
            options.reflink = reflink;
            options.seed = seed();
            return options;
          }()),
          storage(simulated) {}
    SimStorage simulated;
    PiecewiseStorage storage;
    SimRandom random{7};
  };

  void SetUp() override {
    request_.disk = kDisk;
    request_.size = kSize;
    request_.sync = GetParam().sync;
    request_.staging = GetParam().staging;
  }

  std::unique_ptr<Store> make_store() {
    auto store = std::make_unique<Store>(GetParam().reflink);
    EXPECT_TRUE(store->storage.make_directory("vm"));
    if (GetParam().device) store->simulated.add_block_device(kDisk, kSize);
    auto file =
        GetParam().device ? store->storage.open(kDisk, OpenMode::write).value() : store->storage.create(kDisk).value();
    EXPECT_TRUE(file->write_at(0, old_));
    EXPECT_TRUE(file->sync());
    return store;
  }

  Result<StagedDisk> open(Store& store, std::uint64_t epoch) {
    return open_staged_disk(store.storage, store.random, paths_, request_, epoch);
  }

  // Writes all new content and makes it durable.
  Result<void> write_all(StagedDisk& staged) {
    for (std::uint64_t at = 0; at < kSize; at += kBlockSize) {
      const auto length = std::min(kBlockSize, kSize - at);
      BH_TRY(const auto segment, staged.disk->allocate(at, length));
      BH_RETURN_IF_ERROR(staged.disk->file().write_at(segment.file_offset, Bytes(new_).subspan(at, length)));
    }
    BH_RETURN_IF_ERROR(staged.disk->checkpoint());
    BH_RETURN_IF_ERROR(staged.index->store_durable(0, 1));
    return staged.index->sync();
  }

  Result<void> send(Store& store, std::uint64_t epoch) {
    BH_TRY(auto staged, open(store, epoch));
    BH_RETURN_IF_ERROR(write_all(staged));
    return finish_staged_disk(store.storage, paths_, std::move(staged), true);
  }

  Result<void> send_and_cancel(Store& store) {
    {
      BH_TRY(auto staged, open(store, 1));
      BH_RETURN_IF_ERROR(write_all(staged));
    }
    BH_TRY(const bool had, give_back_old_disk(store.storage, paths_));
    EXPECT_TRUE(had);
    return {};
  }

  // One round over everything, which leaves the disk staged.
  Result<void> round(Store& store) {
    BH_TRY(auto staged, open(store, 1));
    BH_RETURN_IF_ERROR(write_all(staged));
    auto record = staged.journal->last();
    record.whole = record.round_ended = true;
    return staged.journal->append(record);
  }
  Result<void> swap(Store& store, std::uint64_t epoch) {
    return swap_staged_disk(store.storage, store.random, paths_, epoch);
  }

  bool exists(Store& store, std::string_view path) { return store.storage.kind(path).value() != Storage::Kind::none; }

  // No torn disk is ever bootable: what has the disk's name is the old disk or the new one, whole.
  void expect_nothing_torn(Store& store) {
    if (GetParam().device) return;  // it cannot be moved out of the way
    if (!exists(store, kDisk)) {
      EXPECT_TRUE(exists(store, paths_.staged));
      return;
    }
    const auto content = store.simulated.content(kDisk);
    EXPECT_TRUE(content == old_ || content == new_);
  }

  void expect_disk(Store& store, const std::vector<std::byte>& content) {
    ASSERT_TRUE(exists(store, kDisk));
    EXPECT_TRUE(store.simulated.content(kDisk) == content);
    EXPECT_TRUE(store.simulated.durable_content(kDisk) == content);
    EXPECT_FALSE(exists(store, paths_.directory));
  }

  // Runs `work` with the power lost at operation 1, 2, ... until it gets through; after each loss, `after` with a
  // second loss at a few operations of the recovery.
  void at_every_power_loss(const std::function<Result<void>(Store&)>& work, const std::function<void(Store&)>& after) {
    for (std::uint64_t first = 1;; first += sim::kFaultStride) {
      bool struck = false;
      for (const std::uint64_t second : {0, 2, 7}) {
        SCOPED_TRACE("power lost at operation " + std::to_string(first) + ", then " + std::to_string(second));
        auto store = make_store();
        store->simulated.crash_at_operation(first);
        const auto done = work(*store);
        struck = store->simulated.crashed();
        if (!struck) {
          ASSERT_TRUE(done) << done.error().to_string();
          break;
        }
        store->simulated.restart();
        expect_nothing_torn(*store);
        if (second != 0) {
          store->simulated.crash_at_operation(second);
          (void)recover_store(store->storage);
          if (store->simulated.crashed())
            store->simulated.restart();
          else
            store->simulated.clear_faults();
          expect_nothing_torn(*store);
        }
        auto leftovers = recover_store(store->storage);
        ASSERT_TRUE(leftovers) << leftovers.error().to_string();
        for (const auto& leftover : *leftovers) {
          EXPECT_EQ(leftover.disk, kDisk);
          EXPECT_FALSE(leftover.error) << leftover.to_string();
        }
        expect_nothing_torn(*store);
        after(*store);
        if (HasFailure()) return;
      }
      if (!struck) {
        EXPECT_GT(first, 30U);  // else nothing was tried
        return;
      }
    }
  }

  const DiskPaths paths_ = DiskPaths::of(kDisk).value();
  const std::vector<std::byte> old_ = content_of(11), new_ = content_of(12);
  OpenRequest request_;
};

TEST_P(StagingCrashTest, AnInterruptedTransferCanBeSentToItsEnd) {
  at_every_power_loss([&](Store& store) { return send(store, 1); },
                      [&](Store& store) {
                        const auto sent = send(store, 2);
                        ASSERT_TRUE(sent) << sent.error().to_string();
                        expect_disk(store, new_);
                      });
}

TEST_P(StagingCrashTest, AnInterruptedTransferCanBeCancelled) {
  at_every_power_loss([&](Store& store) { return send(store, 1); },
                      [&](Store& store) {
                        const bool finished = exists(store, kDisk) && store.simulated.content(kDisk) == new_ &&
                                              !exists(store, paths_.directory);
                        if (finished) {  // and who asks hears so
                          const auto standing = recover_disk(store.storage, paths_);
                          ASSERT_TRUE(standing && standing->ended);
                          EXPECT_EQ(standing->ended->state, SessionState::finished);
                          EXPECT_EQ(standing->ended->epoch, 1U);
                        }
                        const auto had = give_back_old_disk(store.storage, paths_);
                        ASSERT_TRUE(had) << had.error().to_string();
                        EXPECT_FALSE(finished && *had);
                        expect_disk(store, finished ? new_ : old_);
                      });
}

TEST_P(StagingCrashTest, AnInterruptedCancelGoesForward) {
  at_every_power_loss([&](Store& store) { return send_and_cancel(store); },
                      [&](Store& store) {
                        const auto had = give_back_old_disk(store.storage, paths_);
                        ASSERT_TRUE(had) << had.error().to_string();
                        expect_disk(store, old_);
                      });
}

// A swap that keeps the old disk, told again after the crash under the same epoch.
TEST_P(StagingCrashTest, AnInterruptedSwapThatKeepsTheOldDiskGetsThrough) {
  at_every_power_loss(
      [&](Store& store) -> Result<void> {
        BH_RETURN_IF_ERROR(round(store));
        return swap(store, 2);
      },
      [&](Store& store) {
        auto swapped = swap(store, 2);
        if (swapped.has_error() && (swapped.error() == make_error_code(EngineErrc::session_incomplete) ||
                                    swapped.error() == make_error_code(EngineErrc::session_not_staged))) {
          ASSERT_TRUE(send(store, 3));  // the round had not ended
          expect_disk(store, new_);
          return;
        }
        ASSERT_TRUE(swapped) << swapped.error().to_string();
        EXPECT_TRUE(store.simulated.content(kDisk) == new_);
        const auto leftovers = recover_store(store.storage).value();
        ASSERT_EQ(leftovers.size(), 1U);
        EXPECT_EQ(leftovers.front().recovery, Recovery::kept);
        EXPECT_EQ(leftovers.front().record.epoch, 2U);
        const auto refused = open(store, 3);
        ASSERT_TRUE(refused.has_error());
        EXPECT_EQ(refused.error(), make_error_code(EngineErrc::session_kept));
        // Both ways are still open.
        if (GetParam().sync == SyncMode::full) {
          EXPECT_TRUE(give_back_old_disk(store.storage, paths_, 3).value());
          expect_disk(store, old_);
        } else {
          ASSERT_TRUE(release_old_disk(store.storage, paths_, 3));
          expect_disk(store, new_);
        }
      });
}

TEST_P(StagingCrashTest, AnInterruptedReleaseGoesForward) {
  at_every_power_loss(
      [&](Store& store) -> Result<void> {
        BH_RETURN_IF_ERROR(round(store));
        BH_RETURN_IF_ERROR(swap(store, 2));
        return release_old_disk(store.storage, paths_, 3);
      },
      [&](Store& store) {
        if (auto swapped = swap(store, 2); !swapped) {  // struck before the swap, or after the release
          const auto standing = recover_disk(store.storage, paths_);
          ASSERT_TRUE(standing);
          if (standing->ended) {
            EXPECT_EQ(standing->ended->state, SessionState::finished);
            EXPECT_EQ(standing->ended->epoch, 3U);
            EXPECT_TRUE(release_old_disk(store.storage, paths_, 3));
            expect_disk(store, new_);
          } else {
            ASSERT_TRUE(send(store, 4));
            expect_disk(store, new_);
          }
          return;
        }
        const auto released = release_old_disk(store.storage, paths_, 3);
        ASSERT_TRUE(released) << released.error().to_string();
        expect_disk(store, new_);
        EXPECT_FALSE(give_back_old_disk(store.storage, paths_, 4).value());
        expect_disk(store, new_);
      });
}

TEST_P(StagingCrashTest, AnInterruptedCancelAfterTheSwapGivesTheOldDiskBack) {
  at_every_power_loss(
      [&](Store& store) -> Result<void> {
        BH_RETURN_IF_ERROR(round(store));
        BH_RETURN_IF_ERROR(swap(store, 2));
        BH_TRY(const bool had, give_back_old_disk(store.storage, paths_, 3));
        EXPECT_TRUE(had);
        return {};
      },
      [&](Store& store) {
        const auto had = give_back_old_disk(store.storage, paths_, 3);
        ASSERT_TRUE(had) << had.error().to_string();
        expect_disk(store, old_);
        const auto standing = recover_disk(store.storage, paths_);
        ASSERT_TRUE(standing);
        EXPECT_EQ(standing->epoch(), 3U);
        EXPECT_EQ(standing->ended->state, SessionState::cancelled);
      });
}

TEST_P(StagingCrashTest, EachTransferHasItsOwnNumberAndEachRunItsEpoch) {
  auto store = make_store();
  EXPECT_FALSE(recorded_session(store->storage, paths_).value());
  ASSERT_TRUE(open(*store, 1));
  const auto first = recorded_session(store->storage, paths_).value().value();
  ASSERT_TRUE(open(*store, 2));
  const auto resumed = recorded_session(store->storage, paths_).value().value();
  EXPECT_NE(first.transfer, 0U);
  EXPECT_EQ(resumed.transfer, first.transfer);
  EXPECT_EQ(resumed.epoch, 2U);
  EXPECT_TRUE(give_back_old_disk(store->storage, paths_).value());
  EXPECT_FALSE(give_back_old_disk(store->storage, paths_).value());
  EXPECT_FALSE(recorded_session(store->storage, paths_).value());
  ASSERT_TRUE(open(*store, 1));
  EXPECT_NE(recorded_session(store->storage, paths_).value().value().transfer, first.transfer);
}

TEST_P(StagingCrashTest, AResumedDiskIsDurableBeforeAnythingIsRecordedOfIt) {
  auto store = make_store();
  {
    auto staged = open(*store, 1);
    ASSERT_TRUE(staged);
    const auto segment = staged->disk->allocate(0, kBlockSize).value();
    ASSERT_TRUE(staged->disk->file().write_at(segment.file_offset, Bytes(new_).first(kBlockSize)));
  }  // killed before a checkpoint: the system still holds the write
  const auto place = GetParam().device ? std::string(kDisk) : paths_.staged;
  EXPECT_GT(store->simulated.unsynced_changes(place), 0U);
  ASSERT_TRUE(open(*store, 2));
  EXPECT_EQ(store->simulated.unsynced_changes(place), 0U);
}

INSTANTIATE_TEST_SUITE_P(Kinds, StagingCrashTest,
                         ::testing::Values(Case{"Fresh", SyncMode::full, StagingChoice::automatic, false},
                                           Case{"Clone", SyncMode::delta, StagingChoice::clone, true},
                                           Case{"Undo", SyncMode::delta, StagingChoice::undo, true},
                                           Case{"UndoInPlace", SyncMode::delta, StagingChoice::automatic, true, true},
                                           Case{"UndoWhereNothingCanBeCloned", SyncMode::delta,
                                                StagingChoice::automatic, false}),
                         [](const auto& instance) { return std::string(instance.param.name); });

}  // namespace
}  // namespace backhaul
