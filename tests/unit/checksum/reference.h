// What the checksum tests compare with: computed in the plainest way, apart from the code under test.
#pragma once

#include <openssl/evp.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "checksum/block_digest.h"

namespace backhaul::reference {

inline Sha256 sha256(Bytes data) {
  Sha256 digest;
  std::size_t length = 0;
  if (EVP_Q_digest(nullptr, "SHA256", nullptr, data.data(), data.size(),
                   reinterpret_cast<unsigned char*>(digest.bytes.data()), &length) != 1 ||
      length != sizeof digest)
    std::abort();
  return digest;
}

inline BlockDigest block_digest(Bytes data) {
  BlockDigest digest;
  std::memcpy(digest.bytes.data(), reference::sha256(data).bytes.data(), sizeof digest);
  return digest;
}

// CRC-32C bit by bit, straight from its polynomial 0x1EDC6F41 (reflected).
inline std::uint32_t crc32c(Bytes data) {
  std::uint32_t crc = 0xFFFFFFFF;
  for (const std::byte byte : data) {
    crc ^= std::to_integer<std::uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78U : 0);
  }
  return ~crc;
}

inline std::vector<std::byte> random_bytes(std::size_t size, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

inline Bytes text_bytes(std::string_view text) { return as_bytes(text.data(), text.size()); }

}  // namespace backhaul::reference
