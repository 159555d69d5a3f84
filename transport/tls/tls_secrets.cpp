// How the traffic secrets of a handshake leave OpenSSL: through its key log, the one documented way. Nothing is logged;
// the lines are wiped by OpenSSL and our copies by their owners.
#include <openssl/crypto.h>

#include <string_view>

#include "transport/tls/tls_internal.h"

namespace backhaul {
namespace {

// Hexadecimal digits as OpenSSL writes them, without a branch or a table on what they say.
std::byte nibble(char digit) noexcept {
  const auto value = static_cast<unsigned>(static_cast<unsigned char>(digit));
  return static_cast<std::byte>((value & 0xF) + 9 * (value >> 6));
}

TrafficSecret decode(std::string_view digits) {
  std::array<std::byte, 48> bytes{};
  if (digits.size() % 2 != 0 || digits.size() > 2 * bytes.size()) return {};
  const auto size = digits.size() / 2;
  for (std::size_t i = 0; i < size; ++i) bytes[i] = nibble(digits[2 * i]) << 4 | nibble(digits[2 * i + 1]);
  TrafficSecret secret{Bytes(bytes).first(size)};
  OPENSSL_cleanse(bytes.data(), bytes.size());
  return secret;
}

// "LABEL CLIENT_RANDOM SECRET", the last two in hexadecimal.
void take_line(const SSL* ssl, const char* line) {
  auto* secrets = static_cast<TrafficSecrets*>(SSL_get_app_data(ssl));
  if (secrets == nullptr) return;
  const std::string_view text(line);
  const auto label = text.substr(0, text.find(' '));
  const auto digits = text.substr(text.rfind(' ') + 1);
  if (label == "CLIENT_TRAFFIC_SECRET_0") secrets->client = decode(digits);
  if (label == "SERVER_TRAFFIC_SECRET_0") secrets->server = decode(digits);
}

}  // namespace

void offer_secrets(SSL_CTX* context) { SSL_CTX_set_keylog_callback(context, take_line); }

void capture_secrets(SSL* ssl, TrafficSecrets& into) { SSL_set_app_data(ssl, &into); }

std::optional<RecordSuite> record_suite(const SSL* ssl) {
  const SSL_CIPHER* cipher = SSL_get_current_cipher(ssl);
  switch (cipher == nullptr ? 0 : SSL_CIPHER_get_protocol_id(cipher)) {
    case 0x1301: return RecordSuite::aes_128_gcm_sha256;
    case 0x1302: return RecordSuite::aes_256_gcm_sha384;
    default: return std::nullopt;
  }
}

}  // namespace backhaul
