#include "checksum/sha256_stream.h"

#include <cstdio>
#include <cstdlib>

namespace backhaul {
namespace {

// Fetched once: OpenSSL 3 would look the algorithm up by name at each use. Lives as long as the program.
const EVP_MD* sha256_algorithm() noexcept {
  static const EVP_MD* const algorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  return algorithm;
}

void require(bool ok) noexcept {
  if (ok) return;
  std::fputs("backhaul: OpenSSL cannot compute SHA-256\n", stderr);
  std::abort();
}

}  // namespace

Sha256Stream::Sha256Stream() noexcept : context_(EVP_MD_CTX_new()) {
  const EVP_MD* const algorithm = sha256_algorithm();
  require(context_ != nullptr && algorithm != nullptr && EVP_DigestInit_ex2(context_.get(), algorithm, nullptr) == 1);
}

void Sha256Stream::update(Bytes data) noexcept {
  if (!data.empty()) require(EVP_DigestUpdate(context_.get(), data.data(), data.size()) == 1);
}

Sha256 Sha256Stream::finish() noexcept {
  Sha256 digest;
  require(EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(digest.bytes.data()), nullptr) == 1);
  require(EVP_DigestInit_ex2(context_.get(), nullptr, nullptr) == 1);  // the same algorithm again
  return digest;
}

}  // namespace backhaul
