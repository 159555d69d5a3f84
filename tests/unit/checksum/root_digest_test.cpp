#include "checksum/root_digest.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <random>

#include "base/endian.h"
#include "tests/unit/checksum/reference.h"

namespace backhaul {
namespace {

// The golden values were computed by a few lines of Python's hashlib, straight from the definition in root_digest.h.
constexpr std::uint64_t kGoldenSize = 2 * kExtentSize + 3 * kBlockSize + 1234;
constexpr const char* kGoldenRoot = "e8e5770a58c4bfdb424163d41ca340e1856ff05e20208574309cf7b13416894e";
constexpr const char* kEmptyDiskRoot = "31eda0834d210120be27aaa036f46a59375f8ca45d56e52e9b8c79c8dd448a30";
constexpr const char* kOneZeroByteRoot = "50ab50f7c3dfd65451d251d2093c40e58e36d5f19d14b656a28d12423739afe7";
constexpr const char* kExtentAndAByteOfZerosRoot = "7493ffa130ca6b64a6f2d6675db1315f2c16204f3423e933b38c5937699d9dd3";
constexpr const char* kSixteenTiBOfZerosRoot = "963d3e2b71ae05053f7ab1c9c3765e44a53ccf195b5babaf478bba123713a3f6";
constexpr const char* kZeroExtent = "1c54c71722b98fe1af13a686ff04fb41be9e56030139191fcb0732c12c778306";

// 64-bit words i * 0x9E3779B97F4A7C15 with the second extent all zero.
std::vector<std::byte> golden_disk() {
  std::vector<std::byte> disk(align_up(kGoldenSize, 8));
  for (std::uint64_t i = 0; i < disk.size() / 8; ++i) store_le(disk.data() + 8 * i, i * 0x9E3779B97F4A7C15U);
  disk.resize(kGoldenSize);
  std::fill_n(disk.begin() + kExtentSize, kExtentSize, std::byte{0});
  return disk;
}

Sha256 digest_of_extent(Bytes extent) {
  std::vector<BlockDigest> digests;
  for (std::uint64_t at = 0; at < extent.size(); at += kBlockSize)
    digests.push_back(reference::block_digest(extent.subspan(at, std::min(kBlockSize, extent.size() - at))));
  return extent_digest(digests);
}

std::vector<Sha256> extents_of(Bytes disk) {
  std::vector<Sha256> digests;
  for (std::uint64_t at = 0; at < disk.size(); at += kExtentSize)
    digests.push_back(digest_of_extent(disk.subspan(at, std::min(kExtentSize, disk.size() - at))));
  return digests;
}

Sha256 root_in_order(std::uint64_t size, const std::vector<Sha256>& extents) {
  RootDigest root(size);
  for (std::uint64_t i = 0; i < extents.size(); ++i) root.add(i, extents[i]);
  return root.finish();
}

Sha256 root_of_zeros(std::uint64_t size) {
  RootDigest root(size);
  root.add_zero_run(0, extent_count(size));
  return root.finish();
}

// Digests that stand for extents where only the folding is tested.
std::vector<Sha256> stand_in_extents(std::uint64_t count) {
  std::vector<Sha256> extents;
  for (std::uint64_t i = 0; i < count; ++i) extents.push_back(sha256(as_bytes(&i, sizeof i)));
  return extents;
}

TEST(RootDigest, HasTheGoldenValues) {
  EXPECT_EQ(to_hex(root_in_order(kGoldenSize, extents_of(golden_disk()))), kGoldenRoot);
  EXPECT_EQ(to_hex(root_in_order(0, {})), kEmptyDiskRoot);
  EXPECT_EQ(to_hex(root_of_zeros(1)), kOneZeroByteRoot);
  EXPECT_EQ(to_hex(root_of_zeros(kExtentSize + 1)), kExtentAndAByteOfZerosRoot);
  EXPECT_EQ(to_hex(zero_extent_digest()), kZeroExtent);
}

TEST(RootDigest, OfZeroRunsEqualsThatOfExplicitZeros) {
  const auto disk = golden_disk();
  const auto extents = extents_of(disk);
  RootDigest root(kGoldenSize);
  root.add(0, extents[0]);
  root.add_zero_run(1, 1);
  root.add(2, extents[2]);
  EXPECT_EQ(to_hex(root.finish()), kGoldenRoot);

  for (const std::uint64_t size : {std::uint64_t{1}, kBlockSize - 1, kBlockSize, kBlockSize + 1, kExtentSize - 1,
                                   kExtentSize, kExtentSize + 1, 3 * kExtentSize, 3 * kExtentSize - 4095}) {
    const std::vector<std::byte> zeros(size);
    EXPECT_EQ(root_of_zeros(size), root_in_order(size, extents_of(zeros))) << size;
  }
}

TEST(RootDigest, CountsTheShortLastExtentOfARunAtItsTrueLength) {
  // The same run of zeros in one piece, in pieces, and out of order.
  const std::uint64_t size = 600 * kExtentSize + kBlockSize + 5;
  const Sha256 whole = root_of_zeros(size);
  RootDigest pieces(size);
  pieces.add_zero_run(300, 301);
  pieces.add_zero_run(299, 1);
  EXPECT_EQ(pieces.next_extent(), 0U);
  pieces.add_zero_run(0, 299);
  EXPECT_EQ(pieces.finish(), whole);
  RootDigest singly(size);
  for (std::uint64_t i = 0; i < 600; ++i) singly.add(i, zero_extent_digest());
  singly.add(600, zero_extent_digest(kBlockSize + 5));
  EXPECT_EQ(singly.finish(), whole);
}

TEST(RootDigest, DoesNotDependOnTheOrder) {
  const char* const given = std::getenv("BACKHAUL_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  SCOPED_TRACE("BACKHAUL_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  constexpr std::uint64_t kCount = 300;
  const std::uint64_t size = kCount * kExtentSize - 17;
  auto extents = stand_in_extents(kCount);
  // Extents 100 to 149 are zero: some orders give them as a run, some one by one.
  for (std::uint64_t i = 100; i < 150; ++i) extents[i] = zero_extent_digest();
  const Sha256 expected = root_in_order(size, extents);
  for (int round = 0; round < 50; ++round) {
    const bool by_run = round % 2 == 0;
    std::vector<std::uint64_t> order;
    for (std::uint64_t i = 0; i < kCount; ++i)
      if (!by_run || i <= 100 || i >= 150) order.push_back(i);
    std::shuffle(order.begin(), order.end(), random);
    RootDigest root(size);
    for (const std::uint64_t i : order) {
      ASSERT_FALSE(root.complete());
      if (by_run && i == 100)
        root.add_zero_run(100, 50);
      else
        root.add(i, extents[i]);
    }
    ASSERT_TRUE(root.complete());
    ASSERT_EQ(root.finish(), expected) << "round " << round;
  }
}

TEST(RootDigest, DependsOnTheSize) {
  // One more zero byte in the same extents, and the same extents for a different size.
  EXPECT_NE(root_of_zeros(kExtentSize - 1), root_of_zeros(kExtentSize));
  const auto extents = stand_in_extents(2);
  EXPECT_NE(root_in_order(2 * kExtentSize, extents), root_in_order(2 * kExtentSize - 1, extents));
}

TEST(RootDigest, DependsOnWhichExtentHoldsWhat) {
  auto extents = stand_in_extents(2);
  const Sha256 one_way = root_in_order(2 * kExtentSize, extents);
  std::swap(extents[0], extents[1]);
  EXPECT_NE(root_in_order(2 * kExtentSize, extents), one_way);
}

TEST(RootDigest, ChangesWithOneBitOfTheDisk) {
  auto disk = golden_disk();
  for (const std::uint64_t at : {std::uint64_t{0}, kExtentSize + 5, kGoldenSize - 1}) {
    disk[at] ^= std::byte{1};
    EXPECT_NE(to_hex(root_in_order(kGoldenSize, extents_of(disk))), kGoldenRoot) << at;
    disk[at] ^= std::byte{1};
  }
}

TEST(RootDigest, SaysWhatItWaitsFor) {
  const auto extents = stand_in_extents(5);
  RootDigest root(5 * kExtentSize);
  EXPECT_EQ(root.next_extent(), 0U);
  root.add(1, extents[1]);
  root.add_zero_run(3, 2);
  EXPECT_EQ(root.next_extent(), 0U);
  root.add(0, extents[0]);
  EXPECT_EQ(root.next_extent(), 2U);
  EXPECT_FALSE(root.complete());
  root.add_zero_run(2, 0);  // nothing
  EXPECT_EQ(root.next_extent(), 2U);
  RootDigest moved = std::move(root);
  moved.add(2, extents[2]);
  EXPECT_EQ(moved.next_extent(), 5U);
  EXPECT_TRUE(moved.complete());
}

TEST(RootDigest, IsCompleteAtOnceForAnEmptyDisk) { EXPECT_TRUE(RootDigest(0).complete()); }

TEST(RootDigest, FoldsSixteenTiBOfZerosQuickly) {
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(to_hex(root_of_zeros(16 * kTiB)), kSixteenTiBOfZerosRoot);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  EXPECT_LT(seconds.count(), 5.0);  // 0.1 s; the room is for a busy machine
}

TEST(RootDigestDeathTest, DiesOfAnExtentGivenTwiceOrOutOfRange) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Sha256 digest = zero_extent_digest();
  EXPECT_DEATH(
      {
        RootDigest root(3 * kExtentSize);
        root.add(0, digest);
        root.add(0, digest);
      },
      "first >= next");
  EXPECT_DEATH(
      {
        RootDigest root(4 * kExtentSize);
        root.add_zero_run(1, 3);
        root.add(2, digest);
      },
      "after == waiting");
  EXPECT_DEATH(
      {
        RootDigest root(4 * kExtentSize);
        root.add(2, digest);
        root.add_zero_run(1, 2);
      },
      "after == waiting");
  EXPECT_DEATH({ RootDigest(3 * kExtentSize).add(3, digest); }, "extents - first");
  EXPECT_DEATH({ RootDigest(kExtentSize).finish(); }, "complete");
}

TEST(ExtentDigest, IsTheSha256OfItsBlockDigests) {
  std::vector<BlockDigest> digests;
  std::vector<std::byte> joined;
  for (std::uint64_t i = 0; i < kBlocksPerExtent; ++i) {
    digests.push_back(reference::block_digest(as_bytes(&i, sizeof i)));
    joined.insert(joined.end(), digests.back().bytes.begin(), digests.back().bytes.end());
    ASSERT_EQ(extent_digest(digests), reference::sha256(joined)) << i;
  }
  EXPECT_EQ(extent_digest({}), reference::sha256({}));
}

TEST(ZeroExtentDigest, IsTheDigestOfThatManyZeros) {
  for (const std::uint64_t size : {std::uint64_t{1}, kBlockSize - 1, kBlockSize, kBlockSize + 1, 5 * kBlockSize + 512,
                                   kExtentSize - kBlockSize, kExtentSize - 1, kExtentSize}) {
    const std::vector<std::byte> zeros(size);
    EXPECT_EQ(zero_extent_digest(size), digest_of_extent(zeros)) << size;
  }
}

}  // namespace
}  // namespace backhaul
