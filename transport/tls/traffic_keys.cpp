#include "transport/tls/traffic_keys.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include <cassert>
#include <cstring>
#include <string_view>
#include <utility>

#include "transport/tls/tls_internal.h"

namespace backhaul {
namespace {

using KdfPtr = std::unique_ptr<EVP_KDF, OpensslFree<EVP_KDF_free>>;
using KdfCtxPtr = std::unique_ptr<EVP_KDF_CTX, OpensslFree<EVP_KDF_CTX_free>>;

std::size_t key_size(RecordSuite suite) noexcept { return suite == RecordSuite::aes_128_gcm_sha256 ? 16 : 32; }

// HKDF-Expand-Label(secret, label, "", into.size()) of RFC 8446, section 7.1.
bool expand_label(RecordSuite suite, const TrafficSecret& secret, std::string_view label, MutableBytes into) {
  const KdfPtr kdf(EVP_KDF_fetch(nullptr, "TLS13-KDF", nullptr));
  if (kdf == nullptr) return false;
  const KdfCtxPtr context(EVP_KDF_CTX_new(kdf.get()));
  if (context == nullptr) return false;
  int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
  std::string_view prefix = "tls13 ";
  const char* digest = suite == RecordSuite::aes_128_gcm_sha256 ? "SHA256" : "SHA384";
  // The parameters are read only; OpenSSL's builders take no pointers to const.
  const auto octets = [](const char* name, const void* data, std::size_t size) {
    return OSSL_PARAM_construct_octet_string(name, const_cast<void*>(data), size);
  };
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, const_cast<char*>(digest), 0),
      octets(OSSL_KDF_PARAM_KEY, secret.bytes().data(), secret.bytes().size()),
      octets(OSSL_KDF_PARAM_PREFIX, prefix.data(), prefix.size()),
      octets(OSSL_KDF_PARAM_LABEL, label.data(), label.size()),
      OSSL_PARAM_construct_end()};
  return EVP_KDF_derive(context.get(), reinterpret_cast<unsigned char*>(into.data()), into.size(), parameters) == 1;
}

std::optional<AesGcm> derive(RecordSuite suite, const TrafficSecret& secret, AeadNonce& iv) {
  std::array<std::byte, 32> key;
  const auto used = MutableBytes(key).first(key_size(suite));
  std::optional<AesGcm> made;
  if (expand_label(suite, secret, "key", used) && expand_label(suite, secret, "iv", iv)) made.emplace(used);
  OPENSSL_cleanse(key.data(), key.size());
  return made;
}

}  // namespace

std::size_t secret_size(RecordSuite suite) noexcept { return suite == RecordSuite::aes_128_gcm_sha256 ? 32 : 48; }

TrafficSecret::TrafficSecret(Bytes bytes) : size_(bytes.size()) {
  assert(size_ <= bytes_.size());
  std::memcpy(bytes_.data(), bytes.data(), size_);
}
TrafficSecret::TrafficSecret(TrafficSecret&& other) noexcept : bytes_(other.bytes_), size_(other.size_) {
  other.wipe();
}
TrafficSecret& TrafficSecret::operator=(TrafficSecret&& other) noexcept {
  if (this == &other) return *this;
  bytes_ = other.bytes_;
  size_ = other.size_;
  other.wipe();
  return *this;
}
TrafficSecret::~TrafficSecret() { wipe(); }
void TrafficSecret::wipe() noexcept {
  OPENSSL_cleanse(bytes_.data(), bytes_.size());
  size_ = 0;
}

TrafficKeys::TrafficKeys(RecordSuite suite, TrafficSecret secret, AesGcm aead, const AeadNonce& iv)
    : suite_(suite), secret_(std::move(secret)), aead_(std::move(aead)), iv_(iv) {}

TrafficKeys::~TrafficKeys() { OPENSSL_cleanse(iv_.data(), iv_.size()); }

std::optional<TrafficKeys> TrafficKeys::make(RecordSuite suite, TrafficSecret secret) {
  assert(secret.bytes().size() == secret_size(suite));
  AeadNonce iv;
  auto aead = derive(suite, secret, iv);
  if (!aead) return std::nullopt;
  return TrafficKeys(suite, std::move(secret), std::move(*aead), iv);
}

bool TrafficKeys::update() {
  std::array<std::byte, 48> next;
  const auto used = MutableBytes(next).first(secret_size(suite_));
  bool done = expand_label(suite_, secret_, "traffic upd", used);
  if (done) {
    TrafficSecret secret{used};
    AeadNonce iv;
    auto aead = derive(suite_, secret, iv);
    done = aead.has_value();
    if (done) {
      secret_ = std::move(secret);
      aead_ = std::move(*aead);
      iv_ = iv;
      records_ = 0;
    }
  }
  OPENSSL_cleanse(next.data(), next.size());
  return done;
}

AeadNonce TrafficKeys::take_nonce() noexcept {
  auto nonce = iv_;
  for (std::size_t i = 0; i < 8; ++i) nonce[kAeadNonceSize - 1 - i] ^= static_cast<std::byte>(records_ >> (8 * i));
  ++records_;
  return nonce;
}

}  // namespace backhaul
