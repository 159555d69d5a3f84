// Transfers in the simulation that meet a fault: of the source's disk, the target's disk and memory, and the link.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <numeric>

#include "unit/dataplane/hooked_storage.h"
#include "unit/dataplane/transfer_fixture.h"

namespace backhaul {
namespace {

using namespace testing;

// Two extents and a tail with data in all of them.
Pattern busy_pattern(SimRandom& random, std::uint64_t size = 2 * kExtentSize + 700) {
  auto pattern = random_pattern(random, size, 700 * kKiB);
  for (std::uint64_t at = 0; at < size; at += kExtentSize) {
    const auto length = std::min<std::uint64_t>(3 * kBlockSize, size - at);
    fill_noise(random, std::span(pattern.content).subspan(at, length));
    pattern.written.push_back({at, length});
  }
  return pattern;
}

TEST(TransferFault, AnUnreadableSourceIsNamedWithFileAndPlaceAndTheNextRunGoesOn) {
  for (const bool old_disk : {false, true}) {
    TwoSites sites(1);
    const auto pattern = busy_pattern(sites.random);
    make_disk(sites.source, "source", DiskFormat::raw, pattern);
    if (old_disk) make_disk(sites.target, "disk", DiskFormat::raw, busy_pattern(sites.random));
    SimTransferOptions options;
    options.request.disk = "disk";
    auto transfer = sites.transfer(options);
    sites.source.fail_reads("source", {kExtentSize + 2 * kBlockSize + 5, 1}, EIO);
    const auto failed = transfer.run();
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error(), make_error_code(EngineErrc::source_read));
    EXPECT_EQ(failed.error().symbol(), "source.read_failed");
    EXPECT_NE(failed.error().cause().find("source"), std::string::npos);
    EXPECT_NE(failed.error().cause().find(std::to_string(kExtentSize)), std::string::npos) << failed.error().cause();
    EXPECT_EQ(transfer.attempts(), 1U);
    sites.source.clear_faults();
    ASSERT_OK(transfer.run(1));
    EXPECT_TRUE(transfer.opened().resumed);
    EXPECT_TRUE(same_disk(disk_content(sites.target, "disk"), pattern.content));
  }
}

TEST(TransferFault, AFullTargetIsNamedAndTheNextRunGoesOnWhereItStopped) {
  for (const auto format : {DiskFormat::raw, DiskFormat::vhdx}) {
    TwoSites sites(2);
    const auto pattern = busy_pattern(sites.random, 4 * kExtentSize);
    make_disk(sites.source, "source", DiskFormat::raw, pattern);
    SimTransferOptions options;
    options.request.disk = "disk";
    options.request.format = format;
    auto transfer = sites.transfer(options);
    sites.target.set_space(2 * kMiB);
    const auto failed = transfer.run();
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().symbol(), "io.no_space") << failed.error().to_string();
    EXPECT_EQ(sites.target.kind("disk").value(), Storage::Kind::none);
    sites.target.set_space(kTiB);
    ASSERT_OK(transfer.run(1));
    EXPECT_TRUE(transfer.opened().resumed);
    EXPECT_TRUE(same_disk(disk_content(sites.target, "disk"), pattern.content));
  }
}

TEST(TransferFault, AFullTargetGivesTheOldDiskBack) {
  for (const bool reflink : {false, true}) {
    TwoSites sites(3, reflink);
    make_disk(sites.source, "source", DiskFormat::raw, busy_pattern(sites.random, 4 * kExtentSize));
    Pattern sparse{Content(4 * kExtentSize), {{kExtentSize, kExtentSize}}};
    fill_noise(sites.random, std::span(sparse.content).subspan(kExtentSize, kExtentSize));
    make_disk(sites.target, "disk", DiskFormat::raw, sparse);
    const auto old = sites.target.content("disk");
    SimTransferOptions options;
    options.request.disk = "disk";
    auto transfer = sites.transfer(options);
    // The simulation's clones take their space at once.
    sites.target.set_space((reflink ? 2 : 1) * kExtentSize + 2 * kMiB);
    const auto failed = transfer.run();
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().symbol(), "io.no_space") << failed.error().to_string();
    const auto cancelled = transfer.store().cancel("disk");
    ASSERT_OK(cancelled);
    EXPECT_TRUE(*cancelled);
    EXPECT_TRUE(sites.target.content("disk") == old);
    expect_no_leftovers(sites.target, "disk");
  }
}

// A link that breaks again and again, each time a little later: every attempt goes on where the one before stopped.
TEST(TransferFault, ALinkThatBreaksAnywhereIsTakenUpAgain) {
  const auto seed = sim::seed_from_environment(1);
  unsigned broken = 0;
  for (std::uint64_t round = 0; round < 40; ++round) {
    TwoSites sites(seed * 100 + round, round % 4 < 2);
    SCOPED_TRACE(fmt::format("round {}", round));
    const auto size = kExtentSize + 300 * kKiB;
    const auto pattern = busy_pattern(sites.random, size);
    make_disk(sites.source, "source", DiskFormat::raw, pattern);
    const bool old_disk = round % 2 == 0;
    if (old_disk) make_disk(sites.target, "disk", DiskFormat::raw, random_pattern(sites.random, size));
    const auto old = old_disk ? disk_content(sites.target, "disk") : Content();
    SimTransferOptions options;
    options.request.disk = "disk";
    options.lanes = static_cast<std::uint32_t>(1 + round % 3);
    options.seed = sites.random.next();
    auto transfer = sites.transfer(options);
    transfer.link_faults = [&](unsigned attempt, std::uint32_t lane) {
      SimTransfer::LinkFaults faults;
      if (attempt > 3 || lane > 0) return faults;
      // Near the beginning, near a frame's end, anywhere.
      const auto place = sites.random.one_in(3)   ? sites.random.below(400)
                         : sites.random.one_in(2) ? sites.random.below(size / 2)
                                                  : kFrameHeaderSize + kChunkSize + sites.random.below(3) - 1;
      switch (round % 3) {
        case 0: faults.to_target.cut_after = place; break;
        case 1: faults.to_source.cut_after = sites.random.below(3000); break;
        default: faults.fail_at_operation = sites.random.below(60); break;
      }
      return faults;
    };
    ASSERT_OK(transfer.run());
    broken += transfer.attempts() - 1;
    EXPECT_TRUE(same_disk(disk_content(sites.target, "disk"), pattern.content));
    expect_no_leftovers(sites.target, "disk");
    EXPECT_GE(transfer.counters().blocks_changed, blocks_that_differ(old, pattern.content) > 0 ? 1U : 0U);
  }
  EXPECT_GT(broken, 40U);
}

// By which of them the run was ended: the link alone, the source's program too, or the target's power.
TEST(TransferFault, WhatWasAcknowledgedIsNotSentAgain) {
  enum class End { link, source, power };
  for (const auto ended : {End::link, End::source, End::power}) {
    TwoSites sites(4);
    const auto pattern = busy_pattern(sites.random, 6 * kExtentSize);
    make_disk(sites.source, "source", DiskFormat::raw, pattern);
    SimTransferOptions options;
    options.request.disk = "disk";
    auto transfer = sites.transfer(options);
    // Time flies: a checkpoint comes after every few steps.
    transfer.before_step = [&] { sites.clock.sleep_for(std::chrono::milliseconds(40)); };
    transfer.link_faults = [](unsigned attempt, std::uint32_t) {
      SimTransfer::LinkFaults faults;
      if (attempt == 1) faults.to_target.cut_after = 7 * kMiB;
      faults.to_target.window = 64 * kKiB;
      return faults;
    };
    ASSERT_FALSE(transfer.attempt());
    const auto acknowledged = transfer.counters().bytes_done.load();
    ASSERT_GE(acknowledged, kExtentSize);
    if (ended == End::power) {
      transfer.restart_target();
      sites.target.crash();
      ASSERT_OK(recover_store(sites.target));
    }
    const auto sent = ended == End::link ? transfer.counters().payload_bytes.load() : 0;
    if (ended != End::link) transfer.restart_source();
    ASSERT_OK(transfer.attempt());
    EXPECT_TRUE(same_disk(disk_content(sites.target, "disk"), pattern.content));
    // Which extents they were is not known here: at least what the emptiest ones hold.
    std::vector<std::uint64_t> blocks;
    for (auto at = pattern.content.begin(); at != pattern.content.end(); at += kExtentSize)
      blocks.push_back(blocks_that_differ(Content(at, at + kExtentSize), {}));
    std::sort(blocks.begin(), blocks.end());
    const auto some = blocks.begin() + static_cast<std::ptrdiff_t>(acknowledged / kExtentSize);
    const auto kept = std::accumulate(blocks.begin(), some, std::uint64_t{0}) * kBlockSize;
    const auto rest = std::accumulate(some, blocks.end(), std::uint64_t{0}) * kBlockSize;
    EXPECT_GT(kept, 0U);
    EXPECT_LE(transfer.counters().payload_bytes - sent, rest);
    if (ended == End::link) continue;
    EXPECT_EQ(transfer.counters().payload_bytes, transfer.counters().blocks_changed * kBlockSize);
    EXPECT_GE(transfer.counters().resumed_bytes, kept);
    EXPECT_LE(transfer.counters().resumed_bytes + transfer.counters().payload_bytes, kept + rest);
  }
}

TEST(TransferFault, AFlippedBitIsADamagedFrameAndNothingWrongIsWritten) {
  const auto seed = sim::seed_from_environment(1);
  unsigned damaged = 0;
  for (std::uint64_t round = 0; round < sim::share(24); ++round) {
    TwoSites sites(seed * 200 + round);
    SCOPED_TRACE(round);
    const auto size = kExtentSize + 300 * kKiB;
    const auto pattern = busy_pattern(sites.random, size);
    make_disk(sites.source, "source", DiskFormat::raw, pattern);
    make_disk(sites.target, "disk", DiskFormat::raw, random_pattern(sites.random, size));
    const auto old = disk_content(sites.target, "disk");
    SimTransferOptions options;
    options.request.disk = "disk";
    options.compress = round % 2 == 0 ? CompressMode::off : CompressMode::zstd;
    auto transfer = sites.transfer(options);
    transfer.link_faults = [&](unsigned attempt, std::uint32_t) {
      SimTransfer::LinkFaults faults;
      auto& way = round % 3 == 0 ? faults.to_source : faults.to_target;
      if (attempt == 1)
        way.flips = {{sites.random.below(round % 3 == 0 ? 64 : 70'000), static_cast<unsigned>(sites.random.below(8))}};
      return faults;
    };
    const auto first = transfer.attempt();
    if (!first) {
      ++damaged;
      const auto symbol = first.error().symbol();
      EXPECT_TRUE(symbol == "transport.bad_header_crc" || symbol == "transport.bad_payload_crc" ||
                  symbol == "transport.bad_magic")
          << first.error().to_string();
      // Every block is the old one or the new one.
      const auto staged = sites.target.content(".disk.backhaul/staged");
      for (std::size_t at = 0; at < size; at += kBlockSize) {
        const auto length = std::min<std::size_t>(kBlockSize, size - at);
        ASSERT_TRUE(std::memcmp(&staged[at], &old[at], length) == 0 ||
                    std::memcmp(&staged[at], &pattern.content[at], length) == 0)
            << at;
      }
      ASSERT_OK(transfer.attempt());
    }
    EXPECT_TRUE(same_disk(disk_content(sites.target, "disk"), pattern.content));
  }
  EXPECT_GT(damaged, sim::share(12));
}

// A target whose storage changes a bit of what was written, before it is read back.
class LyingStorage : public ::testing::Test {
 protected:
  // `lies`: how often the bit is flipped, always on the same block.
  Result<SimTransfer::Outcome> send(unsigned lies, VerifyMode verify) {
    pattern_ = busy_pattern(sites_.random);
    make_disk(sites_.source, "source", DiskFormat::raw, pattern_);
    make_disk(sites_.target, "disk", DiskFormat::raw, random_pattern(sites_.random, pattern_.content.size()));
    SimTransferOptions options;
    options.request.disk = "disk";
    options.request.verify = verify;
    transfer_.emplace(sites_.source, "source", hooked_, sites_.target, sites_.clock, options);
    hooked_.before_sync = [this, lies]() -> Result<void> {
      if (lied_ == lies || sites_.target.kind(kStaged).value() != Storage::Kind::file) return {};
      // Only once the block is there in its new form.
      auto file = sites_.target.open(kStaged, OpenMode::write).value();
      Content block(kBlockSize);
      BH_RETURN_IF_ERROR(file->read_at(kExtentSize, block));
      if (std::memcmp(block.data(), &pattern_.content[kExtentSize], kBlockSize) != 0) return {};
      ++lied_;
      block[100] ^= std::byte{4};
      return file->write_at(kExtentSize, block);
    };
    return transfer_->attempt();
  }
  static constexpr const char* kStaged = ".disk.backhaul/staged";
  TwoSites sites_{5};
  HookedStorage hooked_{sites_.target};
  Pattern pattern_;
  std::optional<SimTransfer> transfer_;
  unsigned lied_ = 0;
};

TEST_F(LyingStorage, IsFoundOutAndTheExtentIsSentOnceMore) {
  for (const auto verify : {VerifyMode::written, VerifyMode::full}) {
    lied_ = 0;
    ASSERT_OK(send(1, verify));
    EXPECT_EQ(lied_, 1U);
    EXPECT_TRUE(same_disk(disk_content(sites_.target, "disk"), pattern_.content));
  }
}

TEST_F(LyingStorage, IsAnErrorTheSecondTimeAndTheOldDiskIsSafe) {
  const auto failed = send(2, VerifyMode::written);
  ASSERT_FALSE(failed);
  EXPECT_EQ(lied_, 2U);
  EXPECT_EQ(failed.error().symbol(), "verify.block_differs");
  EXPECT_NE(failed.error().cause().find(std::to_string(kExtentSize)), std::string::npos);
  hooked_.before_sync = nullptr;
  const auto old = sites_.target.content("disk");
  EXPECT_TRUE(transfer_->store().cancel("disk").value());
  EXPECT_TRUE(sites_.target.content("disk") == old);
}

TEST(TransferFault, AFailingTargetDiskEndsTheRunWithItsErrorAndTheNextOneGoesOn) {
  const auto seed = sim::seed_from_environment(1);
  unsigned failed = 0;
  for (std::uint64_t round = 0; round < sim::share(60); ++round) {
    TwoSites sites(seed * 300 + round, round % 2 == 0);
    SCOPED_TRACE(round);
    const auto format = round % 3 == 0 ? DiskFormat::vhdx : DiskFormat::raw;
    const auto pattern = busy_pattern(sites.random, kExtentSize + 300 * kKiB);
    make_disk(sites.source, "source", DiskFormat::raw, pattern);
    if (round % 4 != 0) make_disk(sites.target, "disk", format, random_pattern(sites.random, pattern.content.size()));
    SimTransferOptions options;
    options.request.disk = "disk";
    auto transfer = sites.transfer(options);
    sites.target.fail_operation(1 + sites.random.below(120), EIO);
    const auto first = transfer.attempt();
    sites.target.clear_faults();
    if (!first) {
      ++failed;
      EXPECT_FALSE(first.error().symbol().empty());
      // Another process, for a failed sync poisons a file for good.
      transfer.restart_target();
      transfer.restart_source();
      ASSERT_OK(recover_store(sites.target));
      ASSERT_OK(transfer.run());
    }
    EXPECT_TRUE(same_disk(disk_content(sites.target, "disk"), pattern.content));
    expect_no_leftovers(sites.target, "disk");
  }
  EXPECT_GT(failed, sim::share(20));
}

}  // namespace
}  // namespace backhaul
