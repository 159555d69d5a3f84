// The keys of one direction of a TLS 1.3 connection, from the secret that the handshake agreed on (RFC 8446, sections
// 7.1 to 7.3), and the count of the records under each key. Secrets are wiped when they are replaced or no longer
// needed.
#pragma once

#include <optional>

#include "transport/tls/aead.h"

namespace backhaul {

// The cipher suites whose records are ours (RFC 8446, appendix B.4): AES-GCM, and the hash of the key schedule.
enum class RecordSuite { aes_128_gcm_sha256, aes_256_gcm_sha384 };
std::size_t secret_size(RecordSuite suite) noexcept;  // bytes of a traffic secret: the hash's length

// A traffic secret. Move-only.
class TrafficSecret {
 public:
  TrafficSecret() = default;
  explicit TrafficSecret(Bytes bytes);  // at most 48 bytes
  TrafficSecret(TrafficSecret&& other) noexcept;
  TrafficSecret& operator=(TrafficSecret&& other) noexcept;
  ~TrafficSecret();

  bool empty() const noexcept { return size_ == 0; }
  Bytes bytes() const noexcept { return {bytes_.data(), size_}; }

 private:
  void wipe() noexcept;
  std::array<std::byte, 48> bytes_{};
  std::size_t size_ = 0;
};

class TrafficKeys {
 public:
  // REQUIRES AesGcm::available() and secret.bytes().size() == secret_size(suite). Nothing when OpenSSL cannot derive
  // (out of memory).
  static std::optional<TrafficKeys> make(RecordSuite suite, TrafficSecret secret);
  ~TrafficKeys();
  TrafficKeys(TrafficKeys&&) noexcept = default;
  TrafficKeys& operator=(TrafficKeys&&) noexcept = default;

  // The next generation (section 7.2); the record count starts at zero. False: OpenSSL cannot derive, nothing changed.
  bool update();

  AesGcm& aead() noexcept { return aead_; }
  // Records sealed or opened with this key.
  std::uint64_t records() const noexcept { return records_; }
  // The nonce of the next record, which is thereby used up (section 5.3).
  AeadNonce take_nonce() noexcept;

 private:
  TrafficKeys(RecordSuite suite, TrafficSecret secret, AesGcm aead, const AeadNonce& iv);

  RecordSuite suite_;
  TrafficSecret secret_;
  AesGcm aead_;
  AeadNonce iv_;
  std::uint64_t records_ = 0;
};

}  // namespace backhaul
