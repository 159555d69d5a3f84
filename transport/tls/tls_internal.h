// What the TLS files share: owners of OpenSSL objects, the context's inside, and the translation of failures. Internal
// to the room (and pki/).
#pragma once

#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "transport/stream/transport_error.h"
#include "transport/tls/record_layer.h"
#include "transport/tls/tls_stream.h"

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

struct TlsContext::Impl {
  TlsRole role;
  SslCtxPtr context;
  std::vector<std::string> warnings;
  TlsRecords records = TlsRecords::automatic;
  RecordLimits limits;  // tests lower them
};

// Takes the newest entry of this thread's OpenSSL error queue as text, and empties the queue.
std::string take_openssl_error();

// The subject's common name; empty when there is none.
std::string common_name(const X509* certificate);

// What the handshake of one connection agreed on for application data.
struct TrafficSecrets {
  TrafficSecret client, server;
};
// Lets connections of `context` export their secrets. Call it before any is made.
void offer_secrets(SSL_CTX* context);
// Exports this connection's secrets to `into`, which outlives the handshake.
void capture_secrets(SSL* ssl, TrafficSecrets& into);
// The agreed suite, when its records can be ours.
std::optional<RecordSuite> record_suite(const SSL* ssl);

// The Error for an alert of the peer.
Error alert_failure(int alert, const std::string& peer);

// The Error for a failed SSL call: an alert of the peer, a refused certificate of the peer, or the library's own
// reason. `established`: the handshake was over for this end. Empties the error queue.
Error tls_failure(SSL* ssl, bool established, const std::string& peer);

}  // namespace backhaul
