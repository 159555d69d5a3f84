#include "transport/tls/aead.h"

#include <openssl/crypto.h>

#include <cassert>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "checksum/ipsec_mb.h"

namespace backhaul {
namespace {

const std::uint8_t* raw(const std::byte* bytes) { return reinterpret_cast<const std::uint8_t*>(bytes); }
std::uint8_t* raw(std::byte* bytes) { return reinterpret_cast<std::uint8_t*>(bytes); }

}  // namespace

struct AesGcm::State {
  ExpandedGcmKey key;
  gcm_context_data work;
  aes_gcm_init_t init;
  aes_gcm_enc_dec_update_t encrypt, decrypt;
  aes_gcm_enc_dec_finalize_t finish_encrypt, finish_decrypt;
};

bool AesGcm::available() noexcept { return ipsec_mb() != nullptr; }

AesGcm::AesGcm(Bytes key) : state_(std::make_unique<State>()) {
  const IMB_MGR* mb = ipsec_mb();
  if (mb == nullptr || (key.size() != 16 && key.size() != 32)) std::abort();  // the caller's defect
  auto& s = *state_;
  if (key.size() == 16) {
    IMB_AES128_GCM_PRE(mb, raw(key.data()), &s.key);
    s.init = mb->gcm128_init, s.encrypt = mb->gcm128_enc_update;
    s.decrypt = mb->gcm128_dec_update;
    s.finish_encrypt = mb->gcm128_enc_finalize, s.finish_decrypt = mb->gcm128_dec_finalize;
  } else {
    IMB_AES256_GCM_PRE(mb, raw(key.data()), &s.key);
    s.init = mb->gcm256_init, s.encrypt = mb->gcm256_enc_update;
    s.decrypt = mb->gcm256_dec_update;
    s.finish_encrypt = mb->gcm256_enc_finalize, s.finish_decrypt = mb->gcm256_dec_finalize;
  }
}

AesGcm::AesGcm(AesGcm&&) noexcept = default;
AesGcm& AesGcm::operator=(AesGcm&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}
AesGcm::~AesGcm() {
  if (state_ != nullptr) OPENSSL_cleanse(state_.get(), sizeof(State));
}

void AesGcm::seal(const AeadNonce& nonce, Bytes associated, Bytes text, std::byte last, MutableBytes out) noexcept {
  assert(out.size() == text.size() + 1 + kAeadTagSize);
  auto& s = *state_;
  s.init(&s.key, &s.work, raw(nonce.data()), raw(associated.data()), associated.size());
  if (!text.empty()) s.encrypt(&s.key, &s.work, raw(out.data()), raw(text.data()), text.size());
  std::byte* const behind = out.data() + text.size();
  *behind = last;
  s.encrypt(&s.key, &s.work, raw(behind), raw(behind), 1);
  s.finish_encrypt(&s.key, &s.work, raw(behind + 1), kAeadTagSize);
}

bool AesGcm::open(const AeadNonce& nonce, Bytes associated, MutableBytes text, MutableBytes head, Bytes tag) noexcept {
  assert(head.size() <= text.size() && tag.size() == kAeadTagSize);
  auto& s = *state_;
  s.init(&s.key, &s.work, raw(nonce.data()), raw(associated.data()), associated.size());
  if (!head.empty()) s.decrypt(&s.key, &s.work, raw(head.data()), raw(text.data()), head.size());
  const auto rest = text.subspan(head.size());
  if (!rest.empty()) s.decrypt(&s.key, &s.work, raw(rest.data()), raw(rest.data()), rest.size());
  std::array<std::byte, kAeadTagSize> right;
  s.finish_decrypt(&s.key, &s.work, raw(right.data()), right.size());
  const bool same = CRYPTO_memcmp(right.data(), tag.data(), right.size()) == 0;
  OPENSSL_cleanse(right.data(), right.size());
  if (same) return true;
  if (!head.empty()) OPENSSL_cleanse(head.data(), head.size());
  OPENSSL_cleanse(text.data(), text.size());
  return false;
}

}  // namespace backhaul
