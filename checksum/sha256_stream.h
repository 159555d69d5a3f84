// SHA-256 (FIPS 180-4) over data that comes in pieces, by OpenSSL's EVP. One context, reused for message after
// message, so that no message costs an allocation. Owned by one thread at a time.
#pragma once

#include <openssl/evp.h>

#include <memory>

#include "base/buffer.h"
#include "checksum/block_digest.h"

namespace backhaul {

class Sha256Stream {
 public:
  // Begins the first message. Without memory for the context, or in a system whose OpenSSL has no SHA-256, the
  // program ends: nothing here can go on without it.
  Sha256Stream() noexcept;

  void update(Bytes data) noexcept;
  // The digest of all since the last finish() (or the construction); begins the next message.
  Sha256 finish() noexcept;

 private:
  struct FreeContext {
    void operator()(EVP_MD_CTX* context) const noexcept { EVP_MD_CTX_free(context); }
  };
  std::unique_ptr<EVP_MD_CTX, FreeContext> context_;
};

}  // namespace backhaul
