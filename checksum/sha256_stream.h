// SHA-256 (FIPS 180-4) over data that comes in pieces, by OpenSSL's EVP. The context is reused, so a message costs no
// allocation. Owned by one thread at a time.
#pragma once

#include <openssl/evp.h>

#include <memory>

#include "base/buffer.h"
#include "checksum/block_digest.h"

namespace backhaul {

class Sha256Stream {
 public:
  // Begins the first message. Ends the program when there is no memory for the context or OpenSSL has no SHA-256:
  // nothing can go on without it.
  Sha256Stream() noexcept;

  void update(Bytes data) noexcept;
  // The digest of everything since the last finish() or the construction; begins the next message.
  Sha256 finish() noexcept;

 private:
  struct FreeContext {
    void operator()(EVP_MD_CTX* context) const noexcept { EVP_MD_CTX_free(context); }
  };
  std::unique_ptr<EVP_MD_CTX, FreeContext> context_;
};

}  // namespace backhaul
