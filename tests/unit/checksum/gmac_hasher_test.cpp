#include "checksum/gmac_hasher.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <algorithm>
#include <random>
#include <vector>

namespace backhaul {
namespace {

GmacKey key_of(unsigned seed) {
  std::mt19937 random(seed);
  GmacKey key{};
  for (auto& byte : key) byte = static_cast<std::byte>(random());
  return key;
}

std::vector<std::byte> noise(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

// OpenSSL's GCM with nothing to encrypt: its tag is the GMAC of what is only authenticated.
BlockDigest by_openssl(const GmacKey& key, Bytes block) {
  constexpr unsigned char kNonce[12] = {};
  const auto raw = [](const std::byte* bytes) { return reinterpret_cast<const unsigned char*>(bytes); };
  EVP_CIPHER_CTX* const context = EVP_CIPHER_CTX_new();
  BlockDigest tag;
  int size = 0;
  unsigned char rest[16];
  EXPECT_EQ(EVP_EncryptInit_ex(context, EVP_aes_128_gcm(), nullptr, raw(key.data()), kNonce), 1);
  EXPECT_EQ(EVP_EncryptUpdate(context, nullptr, &size, raw(block.data()), static_cast<int>(block.size())), 1);
  EXPECT_EQ(EVP_EncryptFinal_ex(context, rest, &size), 1);
  EXPECT_EQ(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, sizeof tag, tag.bytes.data()), 1);
  EVP_CIPHER_CTX_free(context);
  return tag;
}

class GmacHasherTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!gmac_available()) GTEST_SKIP() << "this CPU lacks AES and carry-less multiplication";
  }
  static BlockDigest tag_of(const GmacKey& key, Bytes block) {
    auto hasher = make_gmac_hasher(key).value();
    BlockDigest tag;
    hasher->digest(std::span(&block, 1), std::span(&tag, 1));
    return tag;
  }
};

// McGrew and Viega, "The Galois/Counter Mode of Operation (GCM)", appendix B, test case 1.
TEST_F(GmacHasherTest, GivesThePublishedTag) {
  EXPECT_EQ(to_hex(tag_of(GmacKey{}, {})), "58e2fccefa7e3061367f1d57a4e7455a");
}

TEST_F(GmacHasherTest, AgreesWithOpensslAtEveryLength) {
  const auto bytes = noise(kBlockSize + 64, 1);
  for (unsigned round = 0; round < 40; ++round) {
    const auto key = key_of(round);
    for (const std::size_t size : {std::size_t{1}, std::size_t{15}, std::size_t{16}, std::size_t{17}, std::size_t{512},
                                   std::size_t{4095}, std::size_t{kBlockSize - 1}, std::size_t{kBlockSize}}) {
      const auto block = Bytes(bytes).subspan(round, size);
      EXPECT_EQ(tag_of(key, block), by_openssl(key, block)) << "round " << round << ", " << size << " bytes";
    }
  }
}

TEST_F(GmacHasherTest, ABatchGivesWhatEachBlockGivesAlone) {
  const auto bytes = noise(40 * kBlockSize, 2);
  std::vector<Bytes> blocks;
  for (std::size_t i = 0; i < 40; ++i) blocks.push_back(Bytes(bytes).subspan(i * kBlockSize, kBlockSize - i * 700));
  std::vector<BlockDigest> tags(blocks.size());
  const auto key = key_of(3);
  auto hasher = make_gmac_hasher(key).value();
  for (int again = 0; again < 2; ++again) {
    hasher->digest(blocks, tags);
    for (std::size_t i = 0; i < blocks.size(); ++i) EXPECT_EQ(tags[i], by_openssl(key, blocks[i])) << i;
  }
}

TEST_F(GmacHasherTest, AnotherKeyOrOneOtherBitGivesAnotherTag) {
  auto bytes = noise(kBlockSize, 4);
  const auto tag = tag_of(key_of(1), bytes);
  EXPECT_NE(tag, tag_of(key_of(2), bytes));
  for (std::size_t at = 0; at < kBlockSize; at += 997) {
    bytes[at] ^= std::byte{1};
    EXPECT_NE(tag, tag_of(key_of(1), bytes)) << at;
    bytes[at] ^= std::byte{1};
  }
}

}  // namespace
}  // namespace backhaul
