// What the tests of records share: bytes from hexadecimal, and records made of chosen secrets.
#pragma once

#include <gtest/gtest.h>

#include <string_view>
#include <vector>

#include "transport/tls/record_channel.h"

namespace backhaul::test {

inline std::vector<std::byte> from_hex(std::string_view text) {
  const auto digit = [](char c) { return static_cast<unsigned>(c <= '9' ? c - '0' : c - 'a' + 10); };
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i + 1 < text.size();) {
    if (text[i] == ' ') {
      ++i;
      continue;
    }
    bytes.push_back(static_cast<std::byte>(digit(text[i]) << 4 | digit(text[i + 1])));
    i += 2;
  }
  return bytes;
}

inline TrafficKeys keys_of(unsigned seed, RecordSuite suite = RecordSuite::aes_128_gcm_sha256) {
  const std::vector<std::byte> secret(secret_size(suite), static_cast<std::byte>(seed));
  return std::move(*TrafficKeys::make(suite, TrafficSecret(secret)));
}

// One record of the sealer as bytes. An inner text with padding: its type among `content`, then zeros, and 0 as `type`.
inline std::vector<std::byte> sealed(RecordSealer& sealer, RecordType type, Bytes content) {
  std::vector<std::byte> out(content.size() + kRecordOverhead);
  EXPECT_EQ(sealer.seal(type, content, out), out.size());
  return out;
}

inline void append(CipherBuffer& buffer, Bytes bytes) {
  buffer.compact();
  ASSERT_LE(bytes.size(), buffer.room());
  if (!bytes.empty()) std::memcpy(buffer.free_space().data(), bytes.data(), bytes.size());
  buffer.end += bytes.size();
}

}  // namespace backhaul::test
