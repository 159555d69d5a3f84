// What the TLS files share: owners of OpenSSL objects, the context's inside, and the translation of failures. Included
// by transport/*.cpp only.
#pragma once

#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>
#include <vector>

#include "transport/tls_stream.h"
#include "transport/transport_error.h"

namespace backhaul {

template <auto Free>
struct OpensslFree {
  template <class T>
  void operator()(T* object) const noexcept {
    Free(object);
  }
};
using SslPtr = std::unique_ptr<SSL, OpensslFree<SSL_free>>;
using SslCtxPtr = std::unique_ptr<SSL_CTX, OpensslFree<SSL_CTX_free>>;
using X509Ptr = std::unique_ptr<X509, OpensslFree<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, OpensslFree<EVP_PKEY_free>>;

// Records that one key encrypts. AES-GCM is safe for 2^24.5 of full size (RFC 8446, section 5.5); a disk can be larger
// than those 362 GiB.
inline constexpr std::uint64_t kRecordsPerKey = 1ULL << 23;

struct TlsContext::Impl {
  TlsRole role;
  SslCtxPtr context;
  std::vector<std::string> warnings;
  std::uint64_t records_per_key = kRecordsPerKey;  // tests lower it
};

// The newest entry of this thread's OpenSSL error queue as text, and the queue emptied.
std::string take_openssl_error();

// The subject's common name; empty when there is none.
std::string common_name(const X509* certificate);

// The Error for a failed SSL call: an alert of the peer, a refused certificate of the peer, or the library's own
// reason. `established`: the handshake was over for this end. Empties the error queue.
Error tls_failure(SSL* ssl, bool established, const std::string& peer);

}  // namespace backhaul
