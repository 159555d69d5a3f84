#include "transport/tls/aead.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

namespace backhaul::test {
namespace {

std::vector<std::byte> random_bytes(std::mt19937_64& random, std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

const unsigned char* raw(Bytes bytes) { return reinterpret_cast<const unsigned char*>(bytes.data()); }

// Ciphertext and tag by OpenSSL.
std::vector<std::byte> reference(Bytes key, const AeadNonce& nonce, Bytes associated, Bytes text) {
  struct Free {
    void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
  };
  const std::unique_ptr<EVP_CIPHER_CTX, Free> context(EVP_CIPHER_CTX_new());
  std::vector<std::byte> out(text.size() + kAeadTagSize);
  auto* to = reinterpret_cast<unsigned char*>(out.data());
  int size = 0;
  EXPECT_EQ(EVP_EncryptInit_ex(context.get(), key.size() == 16 ? EVP_aes_128_gcm() : EVP_aes_256_gcm(), nullptr,
                               raw(key), raw(nonce)),
            1);
  EXPECT_EQ(EVP_EncryptUpdate(context.get(), nullptr, &size, raw(associated), static_cast<int>(associated.size())), 1);
  EXPECT_EQ(EVP_EncryptUpdate(context.get(), to, &size, raw(text), static_cast<int>(text.size())), 1);
  EXPECT_EQ(EVP_EncryptFinal_ex(context.get(), to + size, &size), 1);
  EXPECT_EQ(EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, kAeadTagSize, to + text.size()), 1);
  return out;
}

class AeadTest : public ::testing::TestWithParam<std::size_t> {
 protected:
  void SetUp() override {
    if (!AesGcm::available()) GTEST_SKIP() << "this CPU lacks AES or carry-less multiply instructions";
  }
  std::mt19937_64 random_{::testing::UnitTest::GetInstance()->random_seed() + 1U};
};
INSTANTIATE_TEST_SUITE_P(KeyBytes, AeadTest, ::testing::Values(16, 32));

// Lengths around the block and the vector widths, split at any place.
TEST_P(AeadTest, agrees_with_openssl_in_both_directions) {
  std::vector<std::size_t> sizes = {1, 2, 15, 16, 17, 31, 63, 64, 65, 255, 256, 257, 4095, 4097, 16384, 16385};
  for (int i = 0; i < 200; ++i) sizes.push_back(1 + random_() % 3000);
  for (const auto size : sizes) {
    const auto key = random_bytes(random_, GetParam());
    const auto associated = random_bytes(random_, 5);
    const auto text = random_bytes(random_, size);
    AeadNonce nonce;
    std::ranges::copy(random_bytes(random_, nonce.size()), nonce.begin());
    const auto right = reference(key, nonce, associated, text);

    AesGcm aead(key);
    std::vector<std::byte> sealed(right.size());
    aead.seal(nonce, associated, Bytes(text).first(size - 1), text.back(), sealed);
    ASSERT_TRUE(sealed == right) << size;

    const auto cut = random_() % (size + 1);
    std::vector<std::byte> head(cut);
    ASSERT_TRUE(
        aead.open(nonce, associated, MutableBytes(sealed).first(size), head, MutableBytes(sealed).last(kAeadTagSize)))
        << size;
    EXPECT_TRUE(std::ranges::equal(head, Bytes(text).first(cut))) << size << " cut at " << cut;
    EXPECT_TRUE(std::ranges::equal(Bytes(sealed).first(size).subspan(cut), Bytes(text).subspan(cut))) << size;
  }
}

TEST_P(AeadTest, opens_nothing_that_was_changed_and_leaves_nothing_of_it) {
  const auto key = random_bytes(random_, GetParam());
  const auto text = random_bytes(random_, 300);
  const AeadNonce nonce{};
  const auto associated = random_bytes(random_, 5);
  AesGcm aead(key);
  std::vector<std::byte> sealed(text.size() + 1 + kAeadTagSize);
  aead.seal(nonce, associated, text, std::byte{23}, sealed);
  const auto size = text.size() + 1;
  for (std::size_t bit = 0; bit < 8 * (sealed.size() + associated.size()); bit += 7) {
    auto changed = sealed;
    auto changed_associated = associated;
    auto& byte = bit / 8 < sealed.size() ? changed[bit / 8] : changed_associated[bit / 8 - sealed.size()];
    byte ^= std::byte{1} << (bit % 8);
    std::vector<std::byte> head(100, std::byte{0xEE});
    EXPECT_FALSE(aead.open(nonce, changed_associated, MutableBytes(changed).first(size), head,
                           MutableBytes(changed).last(kAeadTagSize)))
        << bit;
    EXPECT_TRUE(std::ranges::all_of(head, [](std::byte b) { return b == std::byte{0}; }));
    EXPECT_TRUE(std::ranges::all_of(Bytes(changed).first(size), [](std::byte b) { return b == std::byte{0}; }));
  }
}

}  // namespace
}  // namespace backhaul::test
