#include "control/jobs/tokens.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>

namespace backhaul {
namespace {

constexpr std::size_t kIdChars = 16, kSecretChars = 64;
constexpr std::string_view kPrefix = "bh_";

std::string random_hex(std::size_t chars, Random& random) {
  std::string text;
  while (text.size() < chars) text += fmt::format("{:016x}", random.next());
  text.resize(chars);
  return text;
}

std::string sha256_hex(std::string_view text) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
  std::string hex;
  for (unsigned char byte : digest) hex += fmt::format("{:02x}", byte);
  return hex;
}

}  // namespace

NewToken make_token(std::string name, Role role, std::int64_t lifetime_s, std::int64_t now_unix_s, Random& random) {
  NewToken token;
  const std::string id = random_hex(kIdChars, random), secret = random_hex(kSecretChars, random);
  token.record = {
      std::move(name), id, sha256_hex(secret), role, now_unix_s, lifetime_s > 0 ? now_unix_s + lifetime_s : 0};
  token.secret = std::string(kPrefix) + id + "_" + secret;
  return token;
}

Result<Actor> check_token(Store& store, std::string_view bearer, std::int64_t now_unix_s) {
  const auto refused = [] { return make_error(ControlErrc::unauthenticated); };
  if (bearer.size() != kPrefix.size() + kIdChars + 1 + kSecretChars || !bearer.starts_with(kPrefix)) return refused();
  BH_TRY(auto record, store.find_token(bearer.substr(kPrefix.size(), kIdChars)));
  const std::string hash = sha256_hex(bearer.substr(kPrefix.size() + kIdChars + 1));
  if (!record || record->hash.size() != hash.size() ||
      CRYPTO_memcmp(record->hash.data(), hash.data(), hash.size()) != 0)
    return refused();
  if (record->expires_unix_s != 0 && record->expires_unix_s <= now_unix_s) return refused();
  return Actor{record->name, record->role};
}

}  // namespace backhaul
