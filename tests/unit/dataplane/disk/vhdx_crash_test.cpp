// The power goes at every operation of a session in turn, and again while the next one opens the disk: what was there
// at the last checkpoint is there, every other sector is the old or the new one, and the file is a valid disk.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "dataplane/disk/vhdx.h"
#include "sim/sim_random.h"
#include "sim/sim_storage.h"
#include "tests/unit/dataplane/memory_file.h"

namespace backhaul {
namespace {

constexpr std::uint64_t kDiskSize = 4 * kGiB + 512;  // nine pages of block table
constexpr std::uint64_t kSector = 512;
using Sectors = std::map<std::uint64_t, std::uint8_t>;  // sector number to the byte that fills it

class Session {
 public:
  explicit Session(std::uint64_t seed) : storage_({.seed = seed}) {}
  sim::SimStorage& storage() { return storage_; }

  void create() {
    auto disk = create_vhdx(storage_.create("disk").value(), {DiskFormat::vhdx, kDiskSize, kMiB}, random_);
    ASSERT_TRUE(disk);
    ASSERT_TRUE(write(**disk, 3, 10));
    ASSERT_TRUE((*disk)->close());
    durable_ = written_;
  }
  // Three rounds of writes with a checkpoint each, and a close. False: the power went.
  bool run(std::uint8_t salt) {
    written_ = durable_;
    auto disk = open(OpenMode::write);
    if (!disk) return false;
    for (std::uint8_t round = 0; round < 3; ++round) {
      for (std::uint64_t i = 0; i < 6; ++i)
        if (!write(**disk, (i * 700 + round * 3 + salt) % 4096, static_cast<std::uint8_t>(salt + round))) return false;
      if (!(*disk)->checkpoint()) return false;
      durable_ = written_;
    }
    return static_cast<bool>((*disk)->close());
  }
  Result<std::unique_ptr<Disk>> open(OpenMode mode) {
    auto file = storage_.open("disk", mode);
    if (!file) return std::move(file).error();
    return open_vhdx(std::move(*file), mode, random_);
  }
  void verify(OpenMode mode) {
    auto disk = open(mode);
    ASSERT_TRUE(disk) << disk.error().to_string();
    for (const auto& [sector, newest] : written_) {
      std::array<std::byte, kSector> content{};
      const auto segment = (*disk)->map(sector * kSector, kSector);
      if (segment.kind == Segment::Kind::data) {
        ASSERT_TRUE((*disk)->file().read_at(segment.file_offset, content));
      }
      for (const auto byte : content) ASSERT_EQ(byte, content[0]) << "a torn sector " << sector;
      const auto found = std::to_integer<std::uint8_t>(content[0]);
      const auto last = durable_.find(sector);
      const std::uint8_t before = last == durable_.end() ? 0 : last->second;
      ASSERT_TRUE(found == before || found == newest)
          << "sector " << sector << " is " << int{found} << ", not " << int{before} << " or " << int{newest};
    }
    ASSERT_TRUE((*disk)->close());
  }

 private:
  // Some sectors of a block: its first 16, and the last.
  bool write(Disk& disk, std::uint64_t block, std::uint8_t value) {
    for (const auto& [first, count] :
         {std::pair{block * kMiB, 16 * kSector}, {(block + 1) * kMiB - kSector, kSector}}) {
      for (std::uint64_t at = first; at < first + count; at += kSector) written_[at / kSector] = value;
      const auto segment = disk.allocate(first, count);
      if (!segment) return false;
      const std::vector<std::byte> content(count, std::byte{value});
      if (!disk.file().write_at(segment->file_offset, content)) return false;
    }
    return true;
  }

  sim::SimStorage storage_;
  testing::FixedRandom random_;
  Sectors written_, durable_;
};

TEST(VhdxCrashTest, a_power_loss_at_any_operation_loses_nothing_of_the_last_checkpoint) {
  const char* given = std::getenv("BACKHAUL_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 0) : 20240917;
  RecordProperty("seed", std::to_string(seed));
  bool finished = false;
  std::uint64_t operation = 1;
  for (; !finished && operation < 2000; operation += sim::kFaultStride) {
    SCOPED_TRACE(::testing::Message() << "BACKHAUL_SEED=" << seed << ", operation " << operation);
    Session session(seed + operation);
    ASSERT_NO_FATAL_FAILURE(session.create());
    session.storage().crash_at_operation(operation);
    finished = session.run(20);
    if (finished) session.storage().clear_faults();
    if (session.storage().crashed()) session.storage().restart();
    ASSERT_NO_FATAL_FAILURE(session.verify(OpenMode::read));

    // The power goes again while a pending log is replayed.
    session.storage().crash_at_operation(1 + operation % 25);
    { const auto disk = session.open(OpenMode::write); }
    session.storage().clear_faults();
    if (session.storage().crashed()) session.storage().restart();
    ASSERT_NO_FATAL_FAILURE(session.verify(OpenMode::read));
    ASSERT_NO_FATAL_FAILURE(session.verify(OpenMode::write));
    ASSERT_TRUE(session.run(50));
    ASSERT_NO_FATAL_FAILURE(session.verify(OpenMode::read));
  }
  EXPECT_TRUE(finished);
  EXPECT_GT(operation, 100U) << "the session has become too short to say anything";
}

TEST(VhdxCrashTest, an_operation_that_fails_once_costs_nothing_when_the_checkpoint_is_repeated) {
  bool failed = true;
  for (std::uint64_t operation = 1; failed && operation < 2000; operation += sim::kFaultStride) {
    sim::SimStorage storage;
    testing::FixedRandom random;
    auto disk = create_vhdx(storage.create("disk").value(), {DiskFormat::vhdx, kDiskSize, kMiB}, random).value();
    for (std::uint64_t block = 0; block < 4000; block += 500) ASSERT_TRUE(disk->allocate(block * kMiB, 1));
    storage.fail_operation(operation, ENOSPC);
    const auto closed = disk->close();
    storage.clear_faults();
    failed = !closed;
    if (failed) {
      ASSERT_EQ(closed.error().code(), std::errc::no_space_on_device);
    }
    // A sync that failed fails for ever, for what it lost is not written again; anything else is made good.
    const auto repeated = disk->checkpoint();
    const bool lost_sync = !repeated && closed.error().cause().starts_with("sync");
    ASSERT_TRUE(repeated || lost_sync) << operation << ": " << repeated.error().to_string();
    // Killed, and found again.
    storage.crash();
    auto again = open_vhdx(storage.open("disk", OpenMode::read).value(), OpenMode::read, random);
    ASSERT_TRUE(again) << again.error().to_string();
    for (std::uint64_t block = 0; block < 4000 && !lost_sync; block += 500) {
      ASSERT_EQ((*again)->map(block * kMiB, 1).kind, Segment::Kind::data) << operation;
    }
  }
  EXPECT_FALSE(failed);
}

}  // namespace
}  // namespace backhaul
