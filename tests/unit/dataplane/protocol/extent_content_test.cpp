// The content of an extent: how it is made of what was read, in groups, and how it travels.
#include "dataplane/protocol/extent_content.h"

#include <gtest/gtest.h>

#include "unit/dataplane/transfer_fixture.h"

namespace backhaul {
namespace {

using namespace testing;

// Counts what it is asked for; a digest is the block's first byte and its length.
class CountingHasher final : public BlockHasher {
 public:
  std::string_view description() const noexcept override { return "counts"; }
  void digest(std::span<const Bytes> blocks, std::span<BlockDigest> digests) override {
    batches.push_back(blocks.size());
    for (std::size_t i = 0; i < blocks.size(); ++i) digests[i] = made_of(blocks[i][0], blocks[i].size());
  }
  static BlockDigest made_of(std::byte first, std::size_t length) {
    BlockDigest digest;
    digest.bytes[0] = first;
    digest.bytes[1] = static_cast<std::byte>(length % 251);
    digest.bytes[2] = std::byte{0xDD};
    return digest;
  }
  std::vector<std::size_t> batches;
};

TEST(ExtentContent, TravelsAsItIs) {
  SimRandom random(1);
  for (const std::uint64_t length : {kExtentSize, 5 * kBlockSize + 700, std::uint64_t{700}}) {
    ExtentContent content(length);
    for (std::uint32_t b = 0; b < div_up(length, kBlockSize); ++b) {
      if (random.one_in(3)) continue;
      content.nonzero.set(b);
      fill_noise(random, content.digests[b].bytes);
    }
    const auto payload = encode_digests(content);
    FrameHeader header;
    header.type = FrameType::digests;
    header.length = length;
    EXPECT_OK(check_digests_payload(header, payload));
    ExtentContent arrived(length);
    decode_digests(payload, arrived);
    EXPECT_EQ(arrived.nonzero, content.nonzero);
    EXPECT_EQ(arrived.digests, content.digests);
  }
}

TEST(ExtentContent, ZeroBlocksAreFoundAndNotDigested) {
  Content bytes(2 * kBlockSize + 700, std::byte{0});
  bytes[kBlockSize] = std::byte{9};
  ExtentContent content(4 * kBlockSize + 700);
  content.nonzero.set();  // what was there before does not matter
  CountingHasher hasher;
  DigestBatch batch;
  batch.add(content, 2, bytes);
  batch.digest(&hasher);
  EXPECT_EQ(hasher.batches, std::vector<std::size_t>{1});
  EXPECT_FALSE(content.nonzero.test(2));
  EXPECT_TRUE(content.nonzero.test(3));
  EXPECT_FALSE(content.nonzero.test(4));
  EXPECT_EQ(content.digests[2], zero_block_digest());
  EXPECT_EQ(content.digests[3], CountingHasher::made_of(std::byte{9}, kBlockSize));
  EXPECT_EQ(content.digests[4], zero_block_digest(700));
  // Without a hasher nothing but that is found out.
  ExtentContent unhashed(4 * kBlockSize + 700);
  batch.add(unhashed, 2, bytes);
  batch.digest(nullptr);
  EXPECT_TRUE(unhashed.nonzero.test(3));
  EXPECT_EQ(unhashed.digests[3], zero_block_digest());
}

TEST(ExtentContent, ReadsAreDigestedInGroupsOfOneChunkAtMost) {
  struct Read {
    std::uint64_t length;
    std::uint32_t first;
  };
  const Content bytes(kChunkSize, std::byte{3});
  const std::vector<Read> reads = {
      {kBlockSize, 0},     {kChunkSize, 1}, {kBlockSize, 40}, {700, 127}, {kChunkSize - 2 * kBlockSize, 50},
      {2 * kBlockSize, 90}};
  ExtentContent content(kExtentSize);
  CountingHasher hasher;
  std::string order;
  digest_in_groups(
      std::span<const Read>(reads), &hasher,
      [&](DigestBatch& batch, const Read& read) {
        order += 'a';
        batch.add(content, read.first, Bytes(bytes).first(read.length));
      },
      [&](const Read& read) {
        order += 'd';
        EXPECT_TRUE(content.nonzero.test(read.first));
        EXPECT_NE(content.digests[read.first], zero_block_digest()) << "its digest is made before it is done";
      });
  EXPECT_EQ(order, "adadaaadddad");
  EXPECT_EQ(hasher.batches, (std::vector<std::size_t>{1, 32, 32, 2}));
}

}  // namespace
}  // namespace backhaul
