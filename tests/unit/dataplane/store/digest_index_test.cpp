#include "dataplane/store/digest_index.h"

#include <gtest/gtest.h>

#include <thread>

#include "sim/sim_random.h"
#include "sim/sim_storage.h"
#include "unit/dataplane/hooked_storage.h"

namespace backhaul {
namespace {

using sim::SimOptions;
using sim::SimRandom;
using sim::SimStorage;

constexpr std::uint64_t kIndexedDisk = 20 * kExtentSize - 12345;

ExtentDigests digests_of(std::uint64_t version) {
  ExtentDigests digests{};
  for (std::size_t i = 0; i < digests.size(); ++i)
    for (std::size_t j = 0; j < 16; ++j) digests[i].bytes[j] = static_cast<std::byte>(version * 31 + i + j * 7);
  return digests;
}

void flip(SimStorage& storage, std::string_view path, std::uint64_t at) {
  auto file = storage.open(path, OpenMode::write).value();
  std::byte byte;
  ASSERT_TRUE(file->read_at(at, {&byte, 1}));
  byte ^= std::byte{4};
  ASSERT_TRUE(file->write_at(at, {&byte, 1}));
}

TEST(DigestIndex, ANewOneKnowsNothing) {
  SimStorage storage;
  auto index = create_digest_index(storage, "i", kIndexedDisk).value();
  EXPECT_EQ(index->disk_size(), kIndexedDisk);
  ExtentDigests digests;
  for (std::uint64_t extent = 0; extent < 20; ++extent) {
    EXPECT_EQ(index->state(extent), ExtentState::unknown);
    EXPECT_EQ(index->shipped(extent), 0);
    EXPECT_FALSE(index->load(extent, digests).value());
  }
  EXPECT_EQ(index->identity().value(), FileIdentity{});
  auto again = create_digest_index(storage, "i", kIndexedDisk);
  EXPECT_EQ(again.error().symbol(), "io.exists");
}

TEST(DigestIndex, KeepsEveryStateAcrossAPowerLoss) {
  SimStorage storage;
  const FileIdentity identity{1, 2, 3, 4, 5};
  {
    auto index = create_digest_index(storage, "i", kIndexedDisk).value();
    ASSERT_TRUE(index->store(19, digests_of(1), 128));
    ASSERT_TRUE(index->store(0, digests_of(2), 0));
    ASSERT_TRUE(index->store_durable(5, 17));
    ASSERT_TRUE(index->store_zero_run(6, 10));
    ASSERT_TRUE(index->set_identity(identity));
  }
  storage.crash();
  auto index = open_digest_index(storage, "i", kIndexedDisk).value();
  ExtentDigests digests;
  ASSERT_TRUE(index->load(19, digests).value());
  EXPECT_EQ(digests, digests_of(1));
  EXPECT_EQ(index->shipped(19), 128);
  ASSERT_TRUE(index->load(0, digests).value());
  EXPECT_EQ(digests, digests_of(2));
  EXPECT_EQ(index->state(5), ExtentState::durable);
  EXPECT_EQ(index->shipped(5), 17);
  for (std::uint64_t extent = 6; extent < 16; ++extent) EXPECT_EQ(index->state(extent), ExtentState::zero);
  EXPECT_EQ(index->state(16), ExtentState::unknown);
  EXPECT_EQ(index->identity().value(), identity);
}

TEST(DigestIndex, ResetMakesAllShippedCountsZeroAndKeepsTheStates) {
  SimStorage storage;
  auto index = create_digest_index(storage, "i", kIndexedDisk).value();
  ASSERT_TRUE(index->store(3, digests_of(1), 7));
  ASSERT_TRUE(index->sync());
  ASSERT_TRUE(index->store(4, digests_of(2), 8));  // pending: must not become known in the file by the reset
  ASSERT_TRUE(index->store_durable(5, 9));
  ASSERT_TRUE(index->reset_shipped());
  EXPECT_EQ(storage.content("i")[4096 + 2 * 4], std::byte{0});
  ASSERT_TRUE(index->sync());
  index = open_digest_index(storage, "i", kIndexedDisk).value();
  for (std::uint64_t extent = 0; extent < 20; ++extent) EXPECT_EQ(index->shipped(extent), 0);
  EXPECT_EQ(index->state(3), ExtentState::known);
  EXPECT_EQ(index->state(4), ExtentState::known);
  EXPECT_EQ(index->state(5), ExtentState::durable);
}

TEST(DigestIndex, ADamagedRecordMakesItsExtentUnknown) {
  SimStorage storage;
  auto index = create_digest_index(storage, "i", kIndexedDisk).value();
  for (std::uint64_t extent = 0; extent < 20; ++extent) ASSERT_TRUE(index->store(extent, digests_of(extent), 1));
  ASSERT_TRUE(index->sync());
  flip(storage, "i", 8192 + 2064 * 3 + 500);
  flip(storage, "i", 8192 + 2064 * 4 + 2048);
  flip(storage, "i", 8192 + 2064 * 5 + 2056);
  ExtentDigests digests;
  for (const std::uint64_t extent : {3U, 4U, 5U}) {
    EXPECT_EQ(index->state(extent), ExtentState::known);
    EXPECT_FALSE(index->load(extent, digests).value());
    EXPECT_EQ(index->state(extent), ExtentState::unknown);
  }
  EXPECT_TRUE(index->load(2, digests).value());
  EXPECT_TRUE(index->load(6, digests).value());
  EXPECT_EQ(open_digest_index(storage, "i", kIndexedDisk).value()->state(4), ExtentState::unknown);
}

TEST(DigestIndex, ARecordOfAnotherExtentIsNoRecord) {
  SimStorage storage;
  auto index = create_digest_index(storage, "i", kIndexedDisk).value();
  ASSERT_TRUE(index->store(3, digests_of(3), 1));
  ASSERT_TRUE(index->store(4, digests_of(4), 1));
  auto file = storage.open("i", OpenMode::write).value();
  const auto content = storage.content("i");
  ASSERT_TRUE(file->write_at(8192 + 2064 * 3, Bytes(content).subspan(8192 + 2064 * 4, 2064)));
  ExtentDigests digests;
  EXPECT_FALSE(index->load(3, digests).value());
}

TEST(DigestIndex, ADamagedHeaderIsNoIndex) {
  SimStorage storage;
  { (void)create_digest_index(storage, "i", kIndexedDisk).value(); }
  EXPECT_EQ(open_digest_index(storage, "i", kIndexedDisk + 1).error(), IndexErrc::wrong_size);
  for (std::uint64_t at = 0; at < 512; at += 3) {
    flip(storage, "i", at);
    EXPECT_EQ(open_digest_index(storage, "i", kIndexedDisk).error(), IndexErrc::damaged) << at;
    flip(storage, "i", at);
  }
  ASSERT_TRUE(open_digest_index(storage, "i", kIndexedDisk));
  ASSERT_TRUE(storage.open("i", OpenMode::write).value()->resize(8192 + 2064 * 20 - 1));
  EXPECT_EQ(open_digest_index(storage, "i", kIndexedDisk).error(), IndexErrc::damaged);
  ASSERT_TRUE(storage.open("i", OpenMode::write).value()->resize(100));
  EXPECT_EQ(open_digest_index(storage, "i", kIndexedDisk).error(), IndexErrc::damaged);
}

TEST(DigestIndex, ImpossibleTableEntriesAreReadAsUnknownAndBounded) {
  SimStorage storage;
  { (void)create_digest_index(storage, "i", kIndexedDisk).value(); }
  const std::byte entries[] = {std::byte{0x41}, std::byte{200}, std::byte{2}, std::byte{255}};
  ASSERT_TRUE(storage.open("i", OpenMode::write).value()->write_at(4096, entries));
  auto index = open_digest_index(storage, "i", kIndexedDisk).value();
  EXPECT_EQ(index->state(0), ExtentState::unknown);
  EXPECT_EQ(index->shipped(0), 128);
  EXPECT_EQ(index->state(1), ExtentState::zero);
  EXPECT_EQ(index->shipped(1), 128);
}

TEST(DigestIndex, AZeroRunOfATebibyteIsOneWrite) {
  SimStorage storage;
  auto index = create_digest_index(storage, "i", kTiB).value();
  storage.reset_counters();
  ASSERT_TRUE(index->store_zero_run(0, 262144));
  EXPECT_EQ(storage.counters().writes, 1U);
  EXPECT_EQ(storage.counters().bytes_written, 2U * 262144);
  EXPECT_EQ(index->state(262143), ExtentState::zero);
}

TEST(DigestIndex, AKnownExtentIsPublishedOnlyAfterItsRecordIsDurable) {
  SimStorage storage;
  auto index = create_digest_index(storage, "i", kIndexedDisk).value();
  ASSERT_TRUE(index->store(2, digests_of(1), 3));
  EXPECT_EQ(index->state(2), ExtentState::known);
  EXPECT_EQ(storage.content("i")[4096 + 4], std::byte{0});
  ASSERT_TRUE(index->sync());
  EXPECT_EQ(storage.durable_content("i")[4096 + 4], std::byte{1});
  EXPECT_EQ(storage.durable_content("i")[4096 + 5], std::byte{3});
}

TEST(DigestIndex, WhatIsStoredAgainDuringASyncWaitsForTheNextOne) {
  SimStorage storage;
  HookedStorage hooked(storage);
  auto index = create_digest_index(hooked, "i", kIndexedDisk).value();
  ASSERT_TRUE(index->store(2, digests_of(1), 3));
  ASSERT_TRUE(index->store(3, digests_of(1), 3));
  bool first = true;
  hooked.before_sync = [&]() -> Result<void> {
    if (!std::exchange(first, false)) return {};
    EXPECT_TRUE(index->forget(2));
    return index->store(2, digests_of(2), 4);
  };
  ASSERT_TRUE(index->sync());
  EXPECT_EQ(storage.content("i")[4096 + 4], std::byte{0});
  EXPECT_EQ(storage.content("i")[4096 + 6], std::byte{1});
  ASSERT_TRUE(index->sync());
  EXPECT_EQ(storage.content("i")[4096 + 4], std::byte{1});
}

TEST(DigestIndex, AfterAFailedSyncNoLaterOneSucceeds) {
  SimStorage storage;
  HookedStorage hooked(storage);
  auto index = create_digest_index(hooked, "i", kIndexedDisk).value();
  ASSERT_TRUE(index->store(2, digests_of(1), 3));
  hooked.before_sync = []() -> Result<void> { return Error::from_errno(EIO, "sync"); };
  EXPECT_EQ(index->sync().error().symbol(), "io.device_error");
  hooked.before_sync = nullptr;
  EXPECT_EQ(index->sync().error().symbol(), "io.device_error");
  EXPECT_EQ(storage.content("i")[4096 + 4], std::byte{0});
}

// One extent of the model: what its content is now (a version; 0 is zeros), and what the last sync made certain.
struct ModelExtent {
  std::uint64_t content = 0;
  ExtentState stored = ExtentState::unknown, certain = ExtentState::unknown;
};

void run_index_until_crash(SimStorage& storage, SimRandom& random, std::vector<ModelExtent>& model) {
  const auto kind = storage.kind("i");
  if (!kind) return;
  auto opened = *kind == Storage::Kind::none ? create_digest_index(storage, "i", kIndexedDisk)
                                             : open_digest_index(storage, "i", kIndexedDisk);
  if (!opened) return;
  auto& index = **opened;
  std::uint64_t version = 1 + random.below(1000) * 1000;
  for (;;) {
    const std::uint64_t extent = random.below(model.size());
    auto& now = model[extent];
    switch (random.below(5)) {
      case 0: {  // overwrite: forget durably (unless nothing is known), then change the content
        if (index.state(extent) != ExtentState::unknown) {
          // Until the sync is over a crash may bring back either: both speak for the content as it still is.
          if (now.certain != ExtentState::unknown) now.certain = ExtentState::unknown;
          now.stored = ExtentState::unknown;
          if (!index.forget(extent) || !index.sync()) return;
          for (auto& each : model) each.certain = each.stored;
        }
        now.content = random.one_in(4) ? 0 : ++version;
        break;
      }
      case 1:
        if (now.content == 0) break;
        if (!index.store(extent, digests_of(now.content), 1)) return;
        now.stored = ExtentState::known;
        break;
      case 2:
        if (now.content != 0) break;
        now.certain = ExtentState::unknown;  // whatever was there before may be gone
        if (!index.store_zero_run(extent, 1)) return;
        now.stored = ExtentState::zero;
        break;
      case 3:
        now.certain = ExtentState::unknown;
        if (!index.store_durable(extent, 1)) return;
        now.stored = ExtentState::durable;
        break;
      default:
        if (!index.sync()) return;
        for (auto& each : model) each.certain = each.stored;
    }
  }
}

// Content changes only after a durable forget(), so whatever the index claims after a crash must be true of the content
// now; and what a sync made certain must still be claimed.
TEST(DigestIndex, ACrashNeverLeavesAClaimThatIsNotTrue) {
  const auto first_seed = sim::seed_from_environment(1);
  std::uint64_t claims = 0;
  for (std::uint64_t seed = first_seed; seed < first_seed + sim::share(200); ++seed) {
    SCOPED_TRACE(seed);
    SimRandom random(seed);
    SimStorage storage(SimOptions{.seed = seed});
    std::vector<ModelExtent> model(6);
    for (int round = 0; round < 3; ++round) {
      storage.crash_at_operation(1 + random.below(120));
      run_index_until_crash(storage, random, model);
      ASSERT_TRUE(storage.crashed());
      storage.restart();
      if (storage.kind("i").value() == Storage::Kind::none) continue;
      auto index = open_digest_index(storage, "i", kIndexedDisk);
      ASSERT_TRUE(index) << index.error().to_string();
      for (std::uint64_t extent = 0; extent < model.size(); ++extent) {
        auto& now = model[extent];
        const auto state = (*index)->state(extent);
        ExtentDigests digests;
        if (state == ExtentState::known) {
          ASSERT_TRUE((*index)->load(extent, digests).value()) << "known, but no record: extent " << extent;
          EXPECT_EQ(digests, digests_of(now.content)) << "stale digests of extent " << extent;
          ++claims;
        }
        if (state == ExtentState::zero) {
          EXPECT_EQ(now.content, 0U) << extent;
        }
        if (now.certain != ExtentState::unknown && now.certain == now.stored) {
          EXPECT_EQ(state, now.certain) << extent;
        }
        now.stored = now.certain = state;
      }
    }
  }
  EXPECT_GT(claims, sim::share(100));  // else the test looks at nothing
}

TEST(DigestIndex, LanesStoreAndForgetWhileOthersSync) {
  SimStorage storage;
  {
    auto index = create_digest_index(storage, "i", 64 * kExtentSize).value();
    std::vector<std::thread> lanes;
    for (std::uint64_t lane = 0; lane < 4; ++lane)
      lanes.emplace_back([&, lane] {
        SimRandom random(lane);
        for (int i = 0; i < 200; ++i) {
          const std::uint64_t extent = lane * 16 + random.below(16);
          EXPECT_TRUE(index->forget(extent));
          if (random.one_in(4)) {
            EXPECT_TRUE(index->sync());
          }
          EXPECT_TRUE(index->store(extent, digests_of(extent + static_cast<std::uint64_t>(i)), 1));
          if (random.one_in(4)) {
            EXPECT_TRUE(index->sync());
          }
        }
        for (std::uint64_t extent = lane * 16; extent < lane * 16 + 16; ++extent) {
          EXPECT_TRUE(index->forget(extent));
          if (extent % 2 == 0) {
            EXPECT_TRUE(index->store(extent, digests_of(extent), 2));
          }
        }
        EXPECT_TRUE(index->sync());
      });
    for (auto& lane : lanes) lane.join();
  }
  storage.crash();
  auto index = open_digest_index(storage, "i", 64 * kExtentSize).value();
  ExtentDigests digests;
  for (std::uint64_t extent = 0; extent < 64; ++extent) {
    ASSERT_EQ(index->load(extent, digests).value(), extent % 2 == 0) << extent;
    if (extent % 2 == 0) {
      EXPECT_EQ(digests, digests_of(extent));
    }
  }
}

TEST(DigestIndex, HasTheDocumentedBytes) {
  SimStorage storage;
  auto index = create_digest_index(storage, "i", 3 * kExtentSize).value();
  ExtentDigests digests{};
  digests[0].bytes[0] = std::byte{0xAB};
  ASSERT_TRUE(index->store(1, digests, 0x11));
  ASSERT_TRUE(index->store_zero_run(2, 1));
  ASSERT_TRUE(index->set_identity({1, 2, 3, 4, 5}));
  const auto content = storage.content("i");
  ASSERT_EQ(content.size(), 8192U + 3 * 2064);
  EXPECT_EQ(to_hex(Bytes(content).first(72)),
            "424844494749583101000000718233a90000c000000000000300000000000000010000000000000002000000000000000300000000"
            "00000004000000000000000500000000000000");
  EXPECT_EQ(to_hex(Bytes(content).subspan(4096, 8)), "0000011102000000");
  EXPECT_EQ(to_hex(Bytes(content).subspan(8192 + 2064, 4)), "ab000000");
  EXPECT_EQ(to_hex(Bytes(content).subspan(8192 + 2064 + 2048, 16)), "0b105ea4000000000100000000000000");
}

}  // namespace
}  // namespace backhaul
