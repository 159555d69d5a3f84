#include "transport/tls/openssl_stream.h"

#include <openssl/bio.h>
#include <openssl/err.h>

#include <fmt/format.h>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "transport/tls/cipher_socket.h"
#include "transport/tls/record_stream.h"

namespace backhaul {
namespace {

constexpr std::size_t kRecordPayload = SSL3_RT_MAX_PLAIN_LENGTH;

// OpenSSL encrypts from the caller's memory and decrypts into it. A BIO of ours connects it to the two buffers of the
// socket: OpenSSL's own read-ahead would move the rest of its buffer at every record.
class OpensslStream final : public TlsStream {
 public:
  OpensslStream(TlsContext& context, UniqueFd socket, std::string peer)
      : socket_(std::make_unique<CipherSocket>(std::move(socket), std::move(peer))),
        limits_(context.impl().limits),
        assumed_alpn_(context.impl().role == TlsRole::api_server ? kAlpnHttp : std::string_view()) {
    ssl_.reset(SSL_new(context.impl().context.get()));
    BIO* bio = BIO_new(method());
    BIO_set_data(bio, socket_.get());
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl_.get(), bio, bio);
    if (context.impl().records == TlsRecords::automatic && AesGcm::available()) capture_secrets(ssl_.get(), secrets_);
  }
  ~OpensslStream() override { close(); }

  Result<void> prepare_client(const Endpoint& endpoint, std::string_view alpn);
  Result<void> handshake(SteadyTime deadline);
  // A stream whose records are ours, which takes over everything; null: this one goes on.
  std::unique_ptr<TlsStream> hand_over();
  void forget_secrets() {
    SSL_set_app_data(ssl_.get(), nullptr);
    secrets_ = {};
  }

  Result<std::size_t> read_some(MutableBytes into) override;
  Result<std::size_t> write_some(Bytes from) override;
  Result<bool> flush() override;
  PollHandle poll_handle() const noexcept override { return socket_->handle(); }
  // OpenSSL keeps a record's beginning in a buffer of its own.
  void expect_input(std::size_t bytes) noexcept override {
    socket_->gather(bytes > kRecordMax ? bytes - kRecordMax : 0);
  }
  bool has_buffered_input() const noexcept override {
    return !socket_->in.empty() || (ssl_ != nullptr && SSL_pending(ssl_.get()) > 0);
  }
  void close() noexcept override;
  std::uint64_t wire_bytes_sent() const noexcept override { return socket_->sent(); }
  std::uint64_t wire_bytes_received() const noexcept override { return socket_->received(); }
  std::string peer_name() const override { return names_.peer_name; }
  std::string_view alpn() const noexcept override { return names_.alpn; }
  std::string_view record_layer() const noexcept override { return "openssl"; }

 private:
  static const BIO_METHOD* method();
  static int bio_write(BIO* bio, const char* data, std::size_t size, std::size_t* written);
  static int bio_read(BIO* bio, char* into, std::size_t size, std::size_t* got);
  static long bio_ctrl(BIO* bio, int command, long, void*);
  static CipherSocket& of(BIO* bio) { return *static_cast<CipherSocket*>(BIO_get_data(bio)); }

  Result<void> finish_handshake();
  Error failure(int ssl_error);
  Error remember(Error error) {
    if (!error_) error_ = error;
    return error;
  }

  std::unique_ptr<CipherSocket> socket_;  // null when handed over
  StreamNames names_;
  std::string wanted_alpn_;
  RecordLimits limits_;
  std::string_view assumed_alpn_;  // of a client that names no protocol
  std::uint64_t records_ = 0;      // written with the present key
  TrafficSecrets secrets_;
  SslPtr ssl_;
  bool established_ = false;
  std::optional<Error> error_;  // once a stream broke it stays broken
};

const BIO_METHOD* OpensslStream::method() {
  static const BIO_METHOD* const made = [] {
    BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "coalescing socket");
    BIO_meth_set_write_ex(m, bio_write);
    BIO_meth_set_read_ex(m, bio_read);
    BIO_meth_set_ctrl(m, bio_ctrl);
    return m;
  }();
  return made;
}

int OpensslStream::bio_write(BIO* bio, const char* data, std::size_t size, std::size_t* written) {
  auto& socket = of(bio);
  BIO_clear_retry_flags(bio);
  auto& out = socket.out;
  if (out.room() < size) out.compact();
  if (out.room() < size) {
    socket.drain();
    out.compact();
  }
  const auto taken = std::min(size, out.room());
  if (taken == 0) {
    if (socket.send_errno() == 0) BIO_set_retry_write(bio);
    return 0;
  }
  std::memcpy(out.free_space().data(), data, taken);
  out.end += taken;
  *written = taken;
  return 1;
}

int OpensslStream::bio_read(BIO* bio, char* into, std::size_t size, std::size_t* got) {
  auto& socket = of(bio);
  BIO_clear_retry_flags(bio);
  if (socket.in.empty() && !socket.fill()) {
    if (!socket.end_of_file() && socket.receive_errno() == 0) BIO_set_retry_read(bio);
    return 0;
  }
  *got = std::min(size, socket.in.size());
  std::memcpy(into, socket.in.data(), *got);
  socket.in.drop(*got);
  return 1;
}

long OpensslStream::bio_ctrl(BIO* bio, int command, long, void*) {
  switch (command) {
    case BIO_CTRL_FLUSH: return 1;  // the stream flushes when it decides to
    case BIO_CTRL_EOF: return of(bio).end_of_file() ? 1 : 0;
    default: return 0;
  }
}

Error OpensslStream::failure(int ssl_error) {
  if (ssl_error == SSL_ERROR_ZERO_RETURN)
    return make_error(TransportErrc::closed, fmt::format("{} said goodbye", socket_->peer()));
  const int number = socket_->receive_errno() != 0 ? socket_->receive_errno() : socket_->send_errno();
  if (ssl_error == SSL_ERROR_SYSCALL || (number != 0 && ERR_peek_error() == 0)) {
    ERR_clear_error();
    return number != 0 ? socket_->broken(number) : socket_->ended();
  }
  return tls_failure(ssl_.get(), established_, socket_->peer());
}

Result<void> OpensslStream::prepare_client(const Endpoint& endpoint, std::string_view alpn) {
  wanted_alpn_ = alpn;
  std::string wire(1, static_cast<char>(alpn.size()));
  wire += alpn;
  SSL_set_alpn_protos(ssl_.get(), reinterpret_cast<const unsigned char*>(wire.data()),
                      static_cast<unsigned>(wire.size()));
  X509_VERIFY_PARAM* verify = SSL_get0_param(ssl_.get());
  X509_VERIFY_PARAM_set_hostflags(verify, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  if (is_ip_address(endpoint.host)) {
    if (X509_VERIFY_PARAM_set1_ip_asc(verify, endpoint.host.c_str()) == 1) return {};
  } else if (X509_VERIFY_PARAM_set1_host(verify, endpoint.host.data(), endpoint.host.size()) == 1 &&
             SSL_set_tlsext_host_name(ssl_.get(), endpoint.host.c_str()) == 1) {
    return {};
  }
  ERR_clear_error();
  return make_error(BaseErrc::invalid_argument, fmt::format("'{}' is no host name", endpoint.host));
}

Result<void> OpensslStream::handshake(SteadyTime deadline) {
  const bool client = !wanted_alpn_.empty();
  client ? SSL_set_connect_state(ssl_.get()) : SSL_set_accept_state(ssl_.get());
  while (true) {
    ERR_clear_error();
    const int done = SSL_do_handshake(ssl_.get());
    const int ssl_error = SSL_get_error(ssl_.get(), done);
    const bool sent = socket_->drain();  // an alert of ours must go out, too
    if (done == 1 && sent) return finish_handshake();
    if (done != 1 && ssl_error != SSL_ERROR_WANT_READ && ssl_error != SSL_ERROR_WANT_WRITE) return failure(ssl_error);
    if (socket_->send_errno() != 0) return socket_->broken(socket_->send_errno());
    const bool for_write = !sent;
    BH_TRY(const bool ready, poll_socket(socket_->handle(), for_write, deadline));
    if (!ready) return Error::from_errno(ETIMEDOUT, fmt::format("TLS handshake with {}", socket_->peer()));
  }
}

Result<void> OpensslStream::finish_handshake() {
  const unsigned char* selected = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(ssl_.get(), &selected, &size);
  if (size > 0) names_.alpn.assign(reinterpret_cast<const char*>(selected), size);
  if (size == 0) names_.alpn = assumed_alpn_;
  if (names_.alpn.empty() || (!wanted_alpn_.empty() && names_.alpn != wanted_alpn_))
    return make_error(TransportErrc::alpn_mismatch,
                      fmt::format("{} chose the protocol '{}'", socket_->peer(), names_.alpn));
  if (const X509* certificate = SSL_get0_peer_certificate(ssl_.get()); certificate != nullptr)
    names_.peer_name = common_name(certificate);
  established_ = true;
  return {};
}

std::unique_ptr<TlsStream> OpensslStream::hand_over() {
  const auto suite = record_suite(ssl_.get());
  const bool server = SSL_is_server(ssl_.get()) == 1;
  // Ours begin at record zero, and the peer's first stands at the front of `in`, unless OpenSSL wrote tickets or read
  // on. Our policy prevents both; where one happens, OpenSSL keeps the records.
  const bool untouched = SSL_has_pending(ssl_.get()) == 0 && (!server || SSL_get_num_tickets(ssl_.get()) == 0);
  if (!suite || !untouched || secrets_.client.bytes().size() != secret_size(*suite) ||
      secrets_.server.bytes().size() != secret_size(*suite))
    return nullptr;
  auto client = TrafficKeys::make(*suite, std::move(secrets_.client));
  auto own = TrafficKeys::make(*suite, std::move(secrets_.server));
  if (!client || !own) return nullptr;
  if (!server) std::swap(client, own);
  RecordChannel channel(server ? TlsSide::server : TlsSide::client, RecordSealer(std::move(*own)),
                        RecordOpener(std::move(*client)), limits_);
  ssl_.reset();
  return make_record_stream(std::move(socket_), std::move(names_), std::move(channel));
}

Result<std::size_t> OpensslStream::read_some(MutableBytes into) {
  if (error_) return *error_;
  std::size_t total = 0;
  while (total < into.size()) {
    std::size_t got = 0;
    ERR_clear_error();
    if (SSL_read_ex(ssl_.get(), into.data() + total, into.size() - total, &got) == 1) {
      total += got;
      continue;
    }
    const int ssl_error = SSL_get_error(ssl_.get(), 0);
    if (ssl_error == SSL_ERROR_WANT_READ || ssl_error == SSL_ERROR_WANT_WRITE) break;
    auto error = remember(failure(ssl_error));
    socket_->drain();  // the alert that tells the peer, if OpenSSL made one
    if (total == 0) return error;
    break;  // what came before the failure is good; the next call reports it
  }
  return total;
}

Result<std::size_t> OpensslStream::write_some(Bytes from) {
  if (error_) return *error_;
  std::size_t total = 0;
  while (total < from.size() && socket_->make_room()) {
    // A record always fits, so OpenSSL never holds a half-taken one for which it would want the same bytes again.
    std::size_t taken = 0;
    ERR_clear_error();
    if (++records_ > limits_.due && SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_NOT_REQUESTED) == 1) records_ = 1;
    if (SSL_write_ex(ssl_.get(), from.data() + total, std::min(from.size() - total, kRecordPayload), &taken) != 1)
      return remember(failure(SSL_get_error(ssl_.get(), 0)));
    total += taken;
  }
  if (socket_->send_errno() != 0) return flush().error();
  return total;
}

Result<bool> OpensslStream::flush() {
  if (error_) return *error_;
  if (socket_->drain()) return true;
  if (socket_->send_errno() == 0) return false;
  // A peer that refused us said why before it closed: its unread alert tells more than EPIPE. Its other bytes stay for
  // the reader.
  std::byte one{};
  std::size_t got = 0;
  ERR_clear_error();
  if (SSL_peek_ex(ssl_.get(), &one, 1, &got) != 1) {
    const int ssl_error = SSL_get_error(ssl_.get(), 0);
    if (ssl_error == SSL_ERROR_SSL) return remember(failure(ssl_error));
  }
  ERR_clear_error();
  return socket_->broken(socket_->send_errno());
}

void OpensslStream::close() noexcept {
  if (socket_ == nullptr || !socket_->is_open()) return;
  if (established_ && !error_ && socket_->send_errno() == 0) {
    ERR_clear_error();
    SSL_shutdown(ssl_.get());
    socket_->drain();
    ERR_clear_error();
  }
  socket_->close();
  if (!error_) error_ = make_error(TransportErrc::closed, "closed by this end");
}

Result<std::unique_ptr<TlsStream>> shake_hands(std::unique_ptr<OpensslStream> stream, SteadyTime deadline) {
  BH_RETURN_IF_ERROR(stream->handshake(deadline));
  if (auto own = stream->hand_over()) return own;
  stream->forget_secrets();
  return std::unique_ptr<TlsStream>(std::move(stream));
}

}  // namespace

Result<std::unique_ptr<TlsStream>> client_handshake(TlsContext& context, UniqueFd socket, const Endpoint& endpoint,
                                                    std::string_view alpn, SteadyTime deadline) {
  auto stream = std::make_unique<OpensslStream>(context, std::move(socket), endpoint_text(endpoint));
  BH_RETURN_IF_ERROR(stream->prepare_client(endpoint, alpn));
  return shake_hands(std::move(stream), deadline);
}

Result<std::unique_ptr<TlsStream>> server_handshake(TlsContext& context, UniqueFd socket, SteadyTime deadline) {
  auto peer = socket_peer_text(socket.get());
  return shake_hands(std::make_unique<OpensslStream>(context, std::move(socket), std::move(peer)), deadline);
}

}  // namespace backhaul
