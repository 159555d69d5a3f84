// AES-GCM with a 96-bit nonce and a 128-bit tag (NIST SP 800-38D), by libipsec-mb: vector AES where the CPU has it, the
// AES and carry-less multiply instructions elsewhere; both run in time that depends on lengths alone. One key per
// object, one thread at a time. Does not count: the caller must never use a nonce twice (transport/tls/traffic_keys.h
// counts).
#pragma once

#include <array>
#include <memory>

#include "base/buffer.h"

namespace backhaul {

inline constexpr std::size_t kAeadNonceSize = 12;
inline constexpr std::size_t kAeadTagSize = 16;
using AeadNonce = std::array<std::byte, kAeadNonceSize>;

class AesGcm {
 public:
  // False when the CPU lacks the instructions (the library would fall back to tables, whose timing leaks the key), or
  // the library did not initialise.
  static bool available() noexcept;

  // A key of 16 or 32 bytes. REQUIRES available().
  explicit AesGcm(Bytes key);
  ~AesGcm();  // wipes
  AesGcm(AesGcm&&) noexcept;
  AesGcm& operator=(AesGcm&&) noexcept;

  // Encrypts `text`, then `last`, to `out`, and puts the tag behind: out.size() = text.size() + 1 + kAeadTagSize. `out`
  // is where `text` starts, or does not overlap it.
  void seal(const AeadNonce& nonce, Bytes associated, Bytes text, std::byte last, MutableBytes out) noexcept;

  // Decrypts `text` (without the tag): its first head.size() bytes to `head`, which does not overlap, the rest in
  // place. False when the tag is wrong; then both places are wiped. REQUIRES head.size() <= text.size().
  [[nodiscard]] bool open(const AeadNonce& nonce, Bytes associated, MutableBytes text, MutableBytes head,
                          Bytes tag) noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace backhaul
