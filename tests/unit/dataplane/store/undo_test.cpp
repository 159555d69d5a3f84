#include "dataplane/store/undo.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>

#include "checksum/block_digest.h"
#include "dataplane/store/undo_log.h"
#include "sim/sim_random.h"
#include "sim/sim_storage.h"
#include "unit/dataplane/hooked_storage.h"
#include "unit/dataplane/store/undo_fixture.h"

namespace backhaul {
namespace {

using namespace undo_fixture;

TEST(Undo, RestoreGivesTheOldBytesAndSizeBack) {
  const auto first_seed = sim::seed_from_environment(1);
  for (std::uint64_t seed = first_seed; seed < first_seed + sim::share(15); ++seed) {
    SCOPED_TRACE(seed);
    SimRandom random(seed);
    SimStorage storage(SimOptions{.seed = seed});
    const auto old = make_disk(storage, random, 1 + random.below(20 * kChunk));
    make_log(storage);
    for (int run = 0; run < 2; ++run) {
      auto file = open_undo(storage);
      for (int i = 0; i < 15; ++i) ASSERT_TRUE(change(*file, random));
    }
    expect_restored(storage, old);
    expect_restored(storage, old);  // again, from the same log
  }
}

TEST(Undo, APowerLossAtAnyMomentOfTransferAndRestoreStillGivesTheOldDisk) {
  const auto first_seed = sim::seed_from_environment(1);
  int crashes_in_restore = 0;
  for (std::uint64_t seed = first_seed; seed < first_seed + sim::share(200); ++seed) {
    SCOPED_TRACE(seed);
    SimRandom random(seed);
    SimStorage storage(SimOptions{.seed = seed});
    const auto old = make_disk(storage, random, 1 + random.below(10 * kChunk));
    make_log(storage);
    for (int run = 0; run < 2; ++run) {
      storage.crash_at_operation(1 + random.below(60));
      if (auto raw = storage.open("disk", OpenMode::write)) {
        auto file = open_undo_file(storage, "undo", std::move(*raw));
        EXPECT_TRUE(file || storage.crashed()) << file.error().to_string();
        if (file)
          while (change(**file, random)) {
          }
      }
      ASSERT_TRUE(storage.crashed());
      storage.restart();
    }
    for (int attempt = 0; attempt < 3; ++attempt) {
      storage.crash_at_operation(1 + random.below(80));
      const auto restored = restore(storage);
      EXPECT_TRUE(restored || storage.crashed()) << restored.error().to_string();
      if (!storage.crashed()) break;
      ++crashes_in_restore;
      storage.restart();
    }
    storage.clear_faults();
    expect_restored(storage, old);
  }
  EXPECT_GT(crashes_in_restore, static_cast<int>(sim::share(20)));
}

// Whether the record of the chunk would survive a power loss now.
bool durably_saved(SimStorage& storage, std::uint64_t chunk) {
  SimStorage copy;
  auto log = copy.create("log").value();
  EXPECT_TRUE(log->write_at(0, storage.durable_content("undo")));
  auto reader = UndoLogReader::open(*log);
  EXPECT_TRUE(reader) << reader.error().to_string();
  ChunkSet chunks(reader->header().chunks());
  EXPECT_TRUE(reader->collect(chunks));
  return chunks.contains(chunk);
}

TEST(Undo, OldContentIsDurableForEveryCallerBeforePrepareWriteReturns) {
  SimRandom random(7);
  SimStorage storage;
  const auto old = make_disk(storage, random, 32 * kChunk + 99);
  make_log(storage);
  auto file = open_undo(storage);
  std::vector<std::thread> lanes;
  for (std::uint64_t lane = 0; lane < 6; ++lane)
    lanes.emplace_back([&, lane] {
      SimRandom own(lane / 2);  // two lanes each want the same chunks in the same order
      for (int i = 0; i < 12; ++i) {
        const std::uint64_t chunk = own.below(33);
        const ByteRange ranges[] = {{chunk * kChunk + 5, 1}, {own.below(33) * kChunk, 1}};
        EXPECT_TRUE(file->prepare_write(ranges));
        EXPECT_TRUE(durably_saved(storage, chunk));
        if (lane % 2 == 0) {
          EXPECT_TRUE(file->native().write_at(chunk * kChunk + 5 + lane, Content(1, std::byte{0xEE})));
        }
      }
    });
  for (auto& lane : lanes) lane.join();
  file.reset();
  expect_restored(storage, old);
}

// Both want the same chunk; the first one's sync is held back until the second had every chance to return too early.
TEST(Undo, ASecondCallerWaitsForTheFirstOnesSync) {
  SimRandom random(7);
  SimStorage storage;
  ASSERT_TRUE(storage.create("disk").value()->write_at(0, noise(random, 4 * kChunk)));
  make_log(storage);
  HookedStorage hooked(storage);
  auto file = open_undo_file(hooked, "undo", storage.open("disk", OpenMode::write).value()).value();
  std::atomic<bool> in_sync = false, let_go = false, second_returned = false;
  hooked.before_sync = [&]() -> Result<void> {
    in_sync = true;
    in_sync.notify_all();
    let_go.wait(false);
    return {};
  };
  const ByteRange range{kChunk, 1};
  std::thread first([&] { EXPECT_TRUE(file->prepare_write({&range, 1})); });
  in_sync.wait(false);
  std::thread second([&] {
    EXPECT_TRUE(file->prepare_write({&range, 1}));
    EXPECT_TRUE(let_go);
    EXPECT_TRUE(durably_saved(storage, 1));
    second_returned = true;
  });
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(30);
  while (!second_returned && std::chrono::steady_clock::now() < until) std::this_thread::yield();
  EXPECT_FALSE(second_returned);
  let_go = true;
  let_go.notify_all();
  first.join();
  second.join();
  EXPECT_EQ(storage.content("undo").size(), 4096 + kChunk + 4096);  // saved once, not twice
}

TEST(Undo, LanesWriteTheirOwnExtentsAtOnce) {
  SimRandom random(8);
  SimStorage storage;
  const auto old = make_disk(storage, random, 64 * kChunk);
  make_log(storage);
  auto file = open_undo(storage);
  std::vector<std::thread> lanes;
  for (std::uint64_t lane = 0; lane < 8; ++lane)
    lanes.emplace_back([&, lane] {
      SimRandom own(lane);
      for (int i = 0; i < 20; ++i) {
        const std::uint64_t offset = lane * 8 * kChunk + own.below(7 * kChunk);
        EXPECT_TRUE(file->write_at(offset, noise(own, 1 + own.below(kChunk))));
      }
    });
  for (auto& lane : lanes) lane.join();
  file.reset();
  expect_restored(storage, old);
}

TEST(Undo, OneCallForManyChunksIsOneAppendAndOneSync) {
  SimRandom random(3);
  SimStorage storage;
  {
    auto file = storage.create("disk").value();
    ASSERT_TRUE(file->write_at(0, noise(random, 64 * kChunk)));
  }
  make_log(storage);
  auto file = open_undo(storage);
  storage.reset_counters();
  std::vector<ByteRange> scattered;
  for (std::uint64_t chunk = 0; chunk < 64; chunk += 2) scattered.push_back({chunk * kChunk, 10});
  ASSERT_TRUE(file->prepare_write(scattered));
  EXPECT_EQ(storage.counters().writes, 1U);
  EXPECT_EQ(storage.counters().syncs, 1U);
  const ByteRange whole{0, 64 * kChunk};
  storage.reset_counters();
  ASSERT_TRUE(file->prepare_write({&whole, 1}));
  EXPECT_EQ(storage.counters().writes, 1U);
  EXPECT_EQ(storage.counters().syncs, 1U);
  EXPECT_EQ(storage.content("undo").size(), 4096 + 64 * (kChunk + 4096));
  storage.reset_counters();
  ASSERT_TRUE(file->prepare_write({&whole, 1}));
  EXPECT_EQ(storage.counters().operations, 0U);
}

TEST(Undo, AHoleIsSavedOnceForAllWritesIntoIt) {
  SimStorage storage;
  ASSERT_TRUE(storage.create("disk").value()->resize(kGiB));
  make_log(storage);
  auto file = open_undo(storage);
  ASSERT_TRUE(file->write_at(5 * kChunk, Content(100, std::byte{1})));
  EXPECT_EQ(storage.content("undo").size(), 4096U + 4096);
  storage.reset_counters();
  for (std::uint64_t at = 5 * kChunk; at < kGiB; at += 100 * kMiB)
    ASSERT_TRUE(file->write_at(at, Content(100, std::byte{1})));
  EXPECT_EQ(storage.counters().syncs, 0U);
  EXPECT_EQ(storage.content("undo").size(), 4096U + 4096);
  file.reset();
  ASSERT_TRUE(restore(storage));
  auto disk = storage.open("disk", OpenMode::read).value();
  EXPECT_EQ(disk->size(), kGiB);
  Content piece(kMiB);
  for (std::uint64_t at = 0; at < kGiB; at += kMiB) {
    ASSERT_TRUE(disk->read_at(at, piece));
    ASSERT_TRUE(is_zero(piece)) << at;
  }
}

TEST(Undo, ZerosAreSavedWithoutTheirBytes) {
  SimStorage storage;
  ASSERT_TRUE(storage.create("disk").value()->write_at(0, Content(10 * kChunk)));
  make_log(storage);
  auto file = open_undo(storage);
  ASSERT_TRUE(file->write_at(0, Content(10 * kChunk, std::byte{1})));
  EXPECT_EQ(storage.content("undo").size(), 4096U + 4096);
  file.reset();
  expect_restored(storage, Content(10 * kChunk));
}

// Three chunks of noise, saved one by one; chunk i's record is at 4096 + i * (4096 + 65536).
struct ThreeChunks {
  SimStorage storage;
  Content old;
  ThreeChunks() {
    SimRandom random(5);
    old = noise(random, 3 * kChunk);
    EXPECT_TRUE(storage.create("disk").value()->write_at(0, old));
    make_log(storage);
    auto file = open_undo(storage);
    for (std::uint64_t chunk = 0; chunk < 3; ++chunk) {
      const ByteRange range{chunk * kChunk, 1};
      EXPECT_TRUE(file->prepare_write({&range, 1}));
    }
  }
  static std::uint64_t record(std::uint64_t i) { return 4096 + i * (4096 + kChunk); }
  void flip(std::uint64_t at) {
    auto log = storage.open("undo", OpenMode::write).value();
    std::byte byte;
    ASSERT_TRUE(log->read_at(at, {&byte, 1}));
    byte ^= std::byte{1};
    ASSERT_TRUE(log->write_at(at, {&byte, 1}));
  }
};

TEST(Undo, DamageToWhatWasReliedUponIsNamedWithItsOffset) {
  for (const std::uint64_t at :
       {ThreeChunks::record(0) + 20, ThreeChunks::record(1) + 4, ThreeChunks::record(1) + 4096 + 7}) {
    ThreeChunks disk;
    disk.flip(at);
    const auto restored = restore(disk.storage);
    ASSERT_TRUE(restored.has_error()) << at;
    EXPECT_EQ(restored.error(), UndoErrc::damaged);
    const auto offset = ThreeChunks::record(at >= ThreeChunks::record(1) ? 1 : 0);
    EXPECT_NE(restored.error().cause().find("offset " + std::to_string(offset)), std::string::npos)
        << restored.error().cause();
  }
}

TEST(Undo, DamagedHeaderIsDamaged) {
  for (std::uint64_t at = 0; at < 512; at += 5) {
    ThreeChunks disk;
    disk.flip(at);
    EXPECT_EQ(restore(disk.storage).error(), UndoErrc::damaged);
    auto file = open_undo_file(disk.storage, "undo", disk.storage.open("disk", OpenMode::write).value());
    EXPECT_EQ(file.error(), UndoErrc::damaged);
    if (at > 60) at += 40;
  }
}

TEST(Undo, ATornTailIsCutOffAndItsChunkSavedAgain) {
  for (const std::uint64_t kept : {0U, 100U, 4096U, 30000U, 69631U}) {
    ThreeChunks disk;
    ASSERT_TRUE(disk.storage.open("undo", OpenMode::write).value()->resize(ThreeChunks::record(2) + kept));
    {
      auto file = open_undo(disk.storage);
      EXPECT_EQ(disk.storage.content("undo").size(), ThreeChunks::record(2));
      ASSERT_TRUE(file->write_at(0, Content(3 * kChunk, std::byte{9})));
      EXPECT_EQ(disk.storage.content("undo").size(), ThreeChunks::record(3));
    }
    expect_restored(disk.storage, disk.old);
  }
}

// A process that was killed between append and sync leaves a whole record in the page cache that a power loss would
// still take.
TEST(Undo, OpeningMakesWhatItBelievesDurable) {
  ThreeChunks disk;
  const auto whole = disk.storage.content("undo");
  auto log = disk.storage.open("undo", OpenMode::write).value();
  ASSERT_TRUE(log->resize(ThreeChunks::record(2)));
  ASSERT_TRUE(log->sync());
  ASSERT_TRUE(log->write_at(ThreeChunks::record(2), Bytes(whole).subspan(ThreeChunks::record(2))));
  EXPECT_FALSE(durably_saved(disk.storage, 2));
  auto file = open_undo(disk.storage);
  EXPECT_TRUE(durably_saved(disk.storage, 2));
}

TEST(Undo, OfTwoRecordsOfAChunkTheFirstIsUsed) {
  ThreeChunks disk;
  auto log = disk.storage.open("undo", OpenMode::write).value();
  auto header = UndoLogReader::open(*log).value().header();
  UndoRecord again{UndoKind::zero, 1, 2, 0, ThreeChunks::record(3), ThreeChunks::record(3), 0};
  Content bytes(4096);
  encode_undo_record(header, again, bytes);
  ASSERT_TRUE(log->write_at(again.offset, bytes));
  expect_restored(disk.storage, disk.old);
}

TEST(Undo, RefusesAFileThatIsNotItsOwn) {
  ThreeChunks disk;
  ASSERT_TRUE(disk.storage.create("short").value()->resize(kChunk));
  auto log = disk.storage.open("undo", OpenMode::write).value();
  ASSERT_TRUE(log->resize(ThreeChunks::record(2)));
  auto shorter = disk.storage.open("short", OpenMode::write).value();
  EXPECT_EQ(restore_undo_log(disk.storage, "undo", *shorter).error(), UndoErrc::wrong_file);
  disk.storage.add_block_device("device", 3 * kChunk);
  auto device = disk.storage.open("device", OpenMode::write).value();
  EXPECT_EQ(restore_undo_log(disk.storage, "undo", *device).error(), UndoErrc::wrong_file);
}

TEST(Undo, WorksOnABlockDevice) {
  SimStorage storage;
  SimRandom random(2);
  const auto old = noise(random, 5 * kChunk);
  storage.add_block_device("disk", 5 * kChunk);
  ASSERT_TRUE(storage.open("disk", OpenMode::write).value()->write_at(0, old));
  make_log(storage);
  {
    auto file = open_undo(storage);
    EXPECT_TRUE(file->is_block_device());
    ASSERT_TRUE(file->write_at(100, Content(3 * kChunk, std::byte{4})));
    ASSERT_TRUE(file->zero_at(4 * kChunk, 10));
  }
  expect_restored(storage, old);
}

TEST(Undo, AFullDiskFailsThatWriteAndNoOther) {
  SimRandom random(6);
  SimStorage storage;
  const auto old = noise(random, 8 * kChunk);
  ASSERT_TRUE(storage.create("disk").value()->write_at(0, old));
  make_log(storage);
  auto file = open_undo(storage);
  storage.set_space(8 * kChunk + 2 * kChunk);
  ASSERT_TRUE(file->write_at(0, Content(10, std::byte{1})));
  const auto refused = file->write_at(kChunk, Content(4 * kChunk, std::byte{1}));
  ASSERT_TRUE(refused.has_error());
  EXPECT_EQ(refused.error().symbol(), "io.no_space");
  const auto content = storage.content("disk");
  EXPECT_TRUE(std::equal(content.begin() + kChunk, content.end(), old.begin() + kChunk));
  storage.set_space(kTiB);
  ASSERT_TRUE(file->write_at(kChunk, Content(4 * kChunk, std::byte{1})));
  file.reset();
  expect_restored(storage, old);
}

TEST(Undo, AFailedOperationNeverLetsAWriteThrough) {
  for (std::uint64_t number = 1; number < 30; ++number) {
    SimRandom random(number);
    SimStorage storage;
    const auto old = make_disk(storage, random, 8 * kChunk);
    make_log(storage);
    auto file = open_undo(storage);
    storage.fail_operation(number, EIO);
    for (int i = 0; i < 10; ++i) (void)file->write_at(random.below(7 * kChunk), noise(random, kChunk));
    storage.clear_faults();
    file.reset();
    storage.crash();
    expect_restored(storage, old);
  }
}

TEST(Undo, AfterAFailedSyncOfTheLogNothingMoreIsSaved) {
  SimRandom random(7);
  SimStorage storage;
  const auto old = noise(random, 4 * kChunk);
  ASSERT_TRUE(storage.create("disk").value()->write_at(0, old));
  make_log(storage);
  HookedStorage hooked(storage);
  auto file = open_undo_file(hooked, "undo", storage.open("disk", OpenMode::write).value()).value();
  const ByteRange first{0, 1}, second{kChunk, 1};
  hooked.before_sync = []() -> Result<void> { return Error::from_errno(EIO, "sync"); };
  EXPECT_EQ(file->prepare_write({&first, 1}).error().symbol(), "io.device_error");
  hooked.before_sync = nullptr;
  EXPECT_EQ(file->prepare_write({&second, 1}).error().symbol(), "io.device_error");
  EXPECT_EQ(file->prepare_write({&first, 1}).error().symbol(), "io.device_error");
  file = open_undo(storage);
  EXPECT_TRUE(file->prepare_write({&second, 1}));
}

TEST(Undo, TheLogHasTheDocumentedBytes) {
  UndoHeader header;
  header.old_size = 3 * kChunk + 100;
  header.identity = {1, 2, 3, 4, 5};
  Content bytes(4096);
  encode_undo_header(header, bytes);
  EXPECT_EQ(to_hex(Bytes(bytes).first(72)),
            "4248554e444f4c31010000005d5b4cd700000100000000006400030000000000010000000000000002000000000000000300000000"
            "00000004000000000000000500000000000000");
  EXPECT_TRUE(is_zero(Bytes(bytes).subspan(72)));
  encode_undo_record(header, {UndoKind::data, 2, 2, kChunk + 100, 4096, 8192, 0x01020304}, bytes);
  EXPECT_EQ(to_hex(Bytes(bytes).first(64)),
            "42485552397829ab5d5b4cd70100000002000000000000000200000000000000640001000000000000100000000000000020000000"
            "0000000403020100000000");
  EXPECT_TRUE(is_zero(Bytes(bytes).subspan(64)));
  EXPECT_TRUE(decode_undo_record(header, bytes, 8192));
  EXPECT_FALSE(decode_undo_record(header, bytes, 12288));
}

// The device gets scattered reads of old content many at a time; among them zeros, of which the log keeps no bytes.
TEST(Undo, ScatteredOldContentIsReadABatchAtATime) {
  SimRandom random(11);
  SimStorage storage{SimOptions{}};
  {
    auto file = storage.create("disk").value();
    auto content = noise(random, 400 * kChunk);
    for (const std::uint64_t chunk : {1U, 63U, 65U, 67U, 301U})
      std::fill_n(content.begin() + static_cast<std::ptrdiff_t>(chunk * kChunk), kChunk, std::byte{0});
    ASSERT_TRUE(file->write_at(0, content));
    ASSERT_TRUE(file->sync());
  }
  const auto old = storage.content("disk");
  make_log(storage);
  const std::function<Result<void>()> no_hook;
  auto told = std::make_unique<HookedFile>(storage.open("disk", OpenMode::write).value(), no_hook);
  auto& read_at_once = told->read_at_once;
  auto undo = open_undo_file(storage, "undo", std::move(told)).value();
  std::vector<ByteRange> ranges;
  for (std::uint64_t chunk = 1; chunk < 400; chunk += 2) ranges.push_back({chunk * kChunk, kChunk});
  storage.reset_counters();
  ASSERT_TRUE(undo->prepare_write(ranges));
  // 64 chunks to a batch; zeros that were found make room for some more before it is written.
  EXPECT_EQ(std::accumulate(read_at_once.begin(), read_at_once.end(), std::size_t{0}), ranges.size());
  EXPECT_LE(read_at_once.size(), 8U);
  EXPECT_EQ(storage.counters().writes, 4U);
  EXPECT_EQ(storage.counters().syncs, 1U);
  EXPECT_EQ(storage.content("undo").size(), 4096 + 200 * 4096 + 195 * kChunk);
  for (const auto& range : ranges) ASSERT_TRUE(undo->write_at(range.offset, Content(kChunk, std::byte{0x22})));
  undo.reset();
  expect_restored(storage, old);
}

}  // namespace
}  // namespace backhaul
