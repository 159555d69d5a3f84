#include "checksum/block_digest.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <thread>
#include <vector>

#include "checksum/multi_buffer_hasher.h"
#include "tests/unit/checksum/reference.h"

namespace backhaul {
namespace {

using reference::random_bytes;
using reference::text_bytes;

// Every kernel that a lane may run on: each is a type with make(), and runs the same suite.
struct OneBuffer {
  static constexpr HashKernel kKernel = HashKernel::one_buffer;
  static Result<std::unique_ptr<BlockHasher>> make() { return make_block_hasher(kKernel); }
};
struct MultiBuffer {
  static constexpr HashKernel kKernel = HashKernel::multi_buffer;
  static Result<std::unique_ptr<BlockHasher>> make() { return make_block_hasher(kKernel); }
};
template <MultiBufferWidth width>
struct MultiBufferOf {
  static constexpr HashKernel kKernel = HashKernel::multi_buffer;
  static Result<std::unique_ptr<BlockHasher>> make() { return make_multi_buffer_hasher(width); }
};

template <class Kernel>
class BlockHasherTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = Kernel::make();
    if (!made) {
      ASSERT_EQ(made.error(), make_error_code(BaseErrc::unsupported)) << made.error().to_string();
      GTEST_SKIP() << made.error().to_string();
    }
    hasher_ = std::move(*made);
  }

  // Digests the batch and compares each digest with OpenSSL's one-shot function.
  void expect_right(const std::vector<Bytes>& blocks) {
    std::vector<BlockDigest> digests(blocks.size());
    hasher_->digest(blocks, digests);
    for (std::size_t i = 0; i < blocks.size(); ++i)
      ASSERT_EQ(to_hex(digests[i]), to_hex(reference::block_digest(blocks[i])))
          << "block " << i << " of " << blocks.size() << ", " << blocks[i].size() << " bytes";
  }

  std::unique_ptr<BlockHasher> hasher_;
};

using Kernels = ::testing::Types<OneBuffer, MultiBuffer, MultiBufferOf<MultiBufferWidth::avx512>,
                                 MultiBufferOf<MultiBufferWidth::avx2>, MultiBufferOf<MultiBufferWidth::sha_ni>,
                                 MultiBufferOf<MultiBufferWidth::sse>>;
TYPED_TEST_SUITE(BlockHasherTest, Kernels);

// A batch of sixteen equal blocks fills every lane of every width.
constexpr std::size_t kFullBatch = 16;

TYPED_TEST(BlockHasherTest, SaysWhatItIs) {
  const std::string description(this->hasher_->description());
  EXPECT_NE(description.find("SHA-256"), std::string::npos) << description;
  const bool multi_buffer = TypeParam::kKernel == HashKernel::multi_buffer;
  EXPECT_EQ(description.find("libipsec-mb") != std::string::npos, multi_buffer) << description;
}

// FIPS 180-4 examples and RFC 6234 section 8.5 (tests 1, 2, 4), cut to 128 bits.
TYPED_TEST(BlockHasherTest, GivesThePublishedVectors) {
  std::string test4;
  for (int i = 0; i < 10; ++i) test4 += "0123456701234567012345670123456701234567012345670123456701234567";
  const std::pair<std::string, std::string> vectors[] = {
      {"", "e3b0c44298fc1c149afbf4c8996fb924"},
      {"abc", "ba7816bf8f01cfea414140de5dae2223"},
      {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "248d6a61d20638b8e5c026930c3e6039"},
      {test4, "594847328451bdfa85056225462cc1d8"},
      {"\x19", "68aa2e2ee5dff96e3355e6c7ee373e3d"},
  };
  for (const auto& [message, expected] : vectors) {
    for (const std::size_t count : {std::size_t{1}, kFullBatch}) {
      const std::vector<Bytes> blocks(count, text_bytes(message));
      std::vector<BlockDigest> digests(count);
      this->hasher_->digest(blocks, digests);
      for (const auto& digest : digests) ASSERT_EQ(to_hex(digest), expected) << message << " x" << count;
    }
  }
}

TYPED_TEST(BlockHasherTest, TakesAnEmptyBatch) { this->expect_right({}); }

TYPED_TEST(BlockHasherTest, TakesBlocksWithoutAddressOrBytes) {
  this->expect_right(std::vector<Bytes>(1));
  this->expect_right(std::vector<Bytes>(kFullBatch));
}

TYPED_TEST(BlockHasherTest, IsRightAtEveryShortLength) {
  const auto data = random_bytes(kFullBatch * 131, 11);
  for (std::size_t length = 0; length <= 130; ++length) {
    std::vector<Bytes> blocks;
    for (std::size_t i = 0; i < kFullBatch; ++i) blocks.push_back(Bytes(data).subspan(i * 131, length));
    this->expect_right(blocks);
    this->expect_right({blocks.begin(), blocks.begin() + 11});  // the last pass half empty
    this->expect_right({blocks.front()});
  }
}

TYPED_TEST(BlockHasherTest, IsRightAroundTheWholeBlock) {
  const auto data = random_bytes(kFullBatch * kBlockSize, 12);
  for (const std::uint64_t shorter : {0, 1, 2, 8, 9, 55, 56, 63, 64, 65, 119, 512, 4095, 4096}) {
    std::vector<Bytes> blocks;
    for (std::size_t i = 0; i < kFullBatch; ++i)
      blocks.push_back(Bytes(data).subspan(i * kBlockSize, kBlockSize - shorter));
    this->expect_right(blocks);
    this->expect_right({blocks.front()});
  }
}

TYPED_TEST(BlockHasherTest, IsRightForBatchesOfAnySizeWithMixedLengths) {
  const char* const given = std::getenv("BACKHAUL_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  SCOPED_TRACE("BACKHAUL_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto data = random_bytes(4 * kBlockSize, seed);
  for (std::size_t count = 1; count <= 40; ++count) {
    std::vector<Bytes> blocks;
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t length = random() % 4 == 0 ? kBlockSize : random() % (kBlockSize + 1);
      blocks.push_back(Bytes(data).subspan(random() % (data.size() - length + 1), length));
    }
    this->expect_right(blocks);
  }
}

TYPED_TEST(BlockHasherTest, IsRightForBatchesLongerThanTheJobQueue) {
  const auto data = random_bytes(8192, 13);
  for (const std::size_t count : {255, 256, 257, 700, 1031}) {
    std::vector<Bytes> blocks;
    for (std::size_t i = 0; i < count; ++i) blocks.push_back(Bytes(data).subspan(i, 64 + i % 500));
    this->expect_right(blocks);
  }
}

// One long block keeps its lane while hundreds of short ones pass through the others.
TYPED_TEST(BlockHasherTest, KeepsTheOrderWhenALongBlockHoldsUpShortOnes) {
  const auto data = random_bytes(kBlockSize, 14);
  std::vector<Bytes> blocks = {Bytes(data)};
  for (std::size_t i = 0; i < 600; ++i) blocks.push_back(Bytes(data).subspan(i, 1 + i % 60));
  this->expect_right(blocks);
}

TYPED_TEST(BlockHasherTest, TakesUnalignedBlocks) {
  const auto data = random_bytes(kFullBatch * (kBlockSize + 64), 15);
  std::vector<Bytes> blocks;
  for (std::size_t i = 0; i < kFullBatch; ++i)
    blocks.push_back(Bytes(data).subspan(i * (kBlockSize + 64) + 1 + i * 3, kBlockSize));
  this->expect_right(blocks);
}

TYPED_TEST(BlockHasherTest, WritesNothingBesideItsDigests) {
  const auto data = random_bytes(kBlockSize, 16);
  const BlockDigest guard = reference::block_digest(text_bytes("guard"));
  for (std::size_t count = 0; count <= kFullBatch; ++count) {
    std::vector<BlockDigest> digests(count + 2, guard);
    const std::vector<Bytes> blocks(count, Bytes(data));
    this->hasher_->digest(blocks, std::span(digests).subspan(1, count));
    ASSERT_EQ(digests.front(), guard);
    ASSERT_EQ(digests.back(), guard);
  }
}

TYPED_TEST(BlockHasherTest, WorksOnTwoThreadsWithAHasherEach) {
  const auto data = random_bytes(40 * kBlockSize, 17);
  std::vector<Bytes> blocks;
  for (std::size_t i = 0; i < 40; ++i) blocks.push_back(Bytes(data).subspan(i * kBlockSize, kBlockSize));
  std::vector<BlockDigest> digests[2];
  {
    std::vector<std::jthread> threads;
    for (auto& own : digests)
      threads.emplace_back([&own, &blocks] {
        auto hasher = TypeParam::make();
        if (!hasher) return;
        for (int round = 0; round < 5; ++round) {
          own.assign(blocks.size(), {});
          (*hasher)->digest(blocks, own);
        }
      });
  }
  for (const auto& own : digests) {
    ASSERT_EQ(own.size(), blocks.size());
    for (std::size_t i = 0; i < blocks.size(); ++i) ASSERT_EQ(own[i], reference::block_digest(blocks[i])) << i;
  }
}

TEST(Sha256Function, GivesThePublishedVectors) {
  EXPECT_EQ(to_hex(sha256({})), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(to_hex(sha256(text_bytes("abc"))), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const std::string million(1000000, 'a');
  EXPECT_EQ(to_hex(sha256(text_bytes(million))), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(ToHex, WritesLowerCaseDigitsInOrder) {
  EXPECT_EQ(to_hex(text_bytes(std::string_view("\x00\x01\x9f\xa0\xff", 5))), "00019fa0ff");
  EXPECT_EQ(to_hex(Bytes{}), "");
}

TEST(HashKernelChoice, FollowsTheCpu) {
  EXPECT_EQ(*choose_hash_kernel({.multi_buffer = true}, ""), HashKernel::multi_buffer);
  EXPECT_EQ(*choose_hash_kernel({.multi_buffer = false}, ""), HashKernel::one_buffer);
}

TEST(HashKernelChoice, ObeysTheOperator) {
  EXPECT_EQ(*choose_hash_kernel({.multi_buffer = true}, "one-buffer"), HashKernel::one_buffer);
  EXPECT_EQ(*choose_hash_kernel({.multi_buffer = false}, "multi-buffer"), HashKernel::multi_buffer);
}

TEST(HashKernelChoice, RefusesAnUnknownNameAndSaysWhichItKnows) {
  for (const char* name : {"fast", "Multi-Buffer", "one-buffer ", "multi_buffer"}) {
    const auto chosen = choose_hash_kernel({}, name);
    ASSERT_FALSE(chosen) << name;
    EXPECT_EQ(chosen.error(), make_error_code(BaseErrc::invalid_argument));
    for (const char* said : {name, "multi-buffer or one-buffer"})
      EXPECT_NE(chosen.error().cause().find(said), std::string::npos) << chosen.error().cause();
  }
}

// Whatever the environment of this test run says: the answer stays, and is one that can be made.
TEST(HashKernelChoice, StaysTheSameAndCanBeMade) {
  const auto first = select_hash_kernel();
  const auto second = select_hash_kernel();
  ASSERT_EQ(first.has_value(), second.has_value());
  if (!first) GTEST_SKIP() << first.error().to_string();
  EXPECT_EQ(*first, *second);
  const auto hasher = make_block_hasher(*first);
  ASSERT_TRUE(hasher) << hasher.error().to_string();
  EXPECT_EQ((*hasher)->description(), make_block_hasher(*second).value()->description());
}

TEST(IsZero, FindsASingleBitAnywhereAtAnyLengthAndAlignment) {
  for (const std::size_t offset : {0, 1, 5, 31}) {
    for (const std::size_t length : {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 63, 64, 65, 127, 128, 129, 255, 511, 512, 700}) {
      std::vector<std::byte> data(offset + length + 64);
      // Neighbours that are not zero must not count.
      std::fill(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(offset), std::byte{0xFF});
      std::fill(data.begin() + static_cast<std::ptrdiff_t>(offset + length), data.end(), std::byte{0xFF});
      const MutableBytes part = MutableBytes(data).subspan(offset, length);
      ASSERT_TRUE(is_zero(part)) << "offset " << offset << " length " << length;
      for (std::size_t at = 0; at < length; ++at) {
        part[at] = static_cast<std::byte>(1U << (at % 8));
        ASSERT_FALSE(is_zero(part)) << "offset " << offset << " length " << length << " at " << at;
        part[at] = std::byte{0};
      }
    }
  }
}

TEST(IsZero, HoldsForWholeBlocksAndNothing) {
  AlignedBuffer block(kBlockSize);
  EXPECT_TRUE(is_zero(block.span()));
  EXPECT_TRUE(is_zero({}));
  for (const std::uint64_t at : {std::uint64_t{0}, kBlockSize / 2, kBlockSize - 1}) {
    block.data()[at] = std::byte{0x80};
    EXPECT_FALSE(is_zero(block.span())) << at;
    block.data()[at] = std::byte{0};
  }
}

TEST(ZeroBlockDigest, IsTheDigestOfThatManyZeros) {
  const std::vector<std::byte> zeros(kBlockSize);
  EXPECT_EQ(to_hex(zero_block_digest()), "c35020473aed1b4642cd726cad727b63");
  for (const std::uint64_t size : {std::uint64_t{1}, std::uint64_t{64}, std::uint64_t{512}, kBlockSize - 1, kBlockSize})
    EXPECT_EQ(zero_block_digest(size), reference::block_digest(Bytes(zeros).first(size))) << size;
}

}  // namespace
}  // namespace backhaul
