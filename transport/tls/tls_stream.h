// TLS 1.3 with mutual certificates and ALPN over TCP: the handshake by OpenSSL, the records by libipsec-mb's AES-GCM or
// by OpenSSL. A TlsContext is shared by all threads; a TlsStream belongs to one thread at a time. Records are coalesced
// into large sends. Only tls_connect, tls_accept and wait_stream block.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/unique_fd.h"
#include "transport/stream/stream.h"

namespace backhaul {

inline constexpr std::string_view kAlpnBackhaul = "backhaul/1";
inline constexpr std::string_view kAlpnHttp = "http/1.1";

// `client` and `server` are nodes, with certificates on both ends. `api_server` is the HTTP API's listener, where a
// bearer token says who calls: it offers http/1.1 alone and asks for no certificate.
enum class TlsRole { client, server, api_server };

// Who makes the records once the handshake is over. The wire is the same.
enum class TlsRecords {
  automatic,  // this program, where the suite is AES-GCM and the CPU has the instructions; OpenSSL elsewhere
  openssl,
};
std::optional<TlsRecords> parse_tls_records(std::string_view text) noexcept;  // "auto", "openssl"

// Credentials of a node: DIR/ca.crt, DIR/node.crt, DIR/node.key, and DIR/crl.pem when it is there. TLS 1.3 only; the
// peer must present a certificate that the CA signed, is valid now, and carries the extended key usage of its role
// (serverAuth for the end that accepts, clientAuth for the end that dials); api_server asks for none.
class TlsContext {
 public:
  // Errors name the file that is missing, unreadable, expired, or whose key does not match.
  static Result<std::shared_ptr<TlsContext>> load(TlsRole role, const std::filesystem::path& directory,
                                                  TlsRecords records = TlsRecords::automatic);
  // A client without a certificate of its own, for servers that ask for none: trusts `ca`, and crl.pem beside it.
  static Result<std::shared_ptr<TlsContext>> load_ca(const std::filesystem::path& ca);
  ~TlsContext();

  // For the log: what is allowed but should be mended (a key that others can read, a certificate that ends soon).
  const std::vector<std::string>& warnings() const noexcept;

  struct Impl;
  Impl& impl() noexcept { return *impl_; }

 private:
  explicit TlsContext(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

struct Endpoint {
  std::string host;  // a name or an address, IPv6 without brackets
  std::uint16_t port = 0;
};

class TlsStream : public ByteStream {
 public:
  virtual std::string_view alpn() const noexcept = 0;
  // Whose code makes the records: "libipsec-mb" or "openssl".
  virtual std::string_view record_layer() const noexcept = 0;
};

// Resolves, connects and shakes hands, checking that the certificate is for `endpoint.host`. Blocks up to `timeout`.
// Note (TLS 1.3): a refusal of the client's own certificate shows only at the first read.
Result<std::unique_ptr<TlsStream>> tls_connect(TlsContext& context, const Endpoint& endpoint, std::string_view alpn,
                                               std::chrono::milliseconds timeout);
// Shakes hands on an accepted socket. Offers both ALPNs; as api_server http/1.1 alone, which is assumed when the client
// names none. Blocks up to `timeout`.
Result<std::unique_ptr<TlsStream>> tls_accept(TlsContext& context, UniqueFd socket, std::chrono::milliseconds timeout);

// The peer's IP address without its port, for logs and limits; empty for a stream that has no socket.
std::string peer_address(const ByteStream& stream);

// Blocks until the stream is readable (or writable), or `timeout` passed: true when ready.
Result<bool> wait_stream(ByteStream& stream, bool for_write, std::chrono::milliseconds timeout);

}  // namespace backhaul
