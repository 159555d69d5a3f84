#include "transport/tls_stream.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <sys/socket.h>

#include <fmt/format.h>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "transport/socket.h"
#include "transport/tls_internal.h"

namespace backhaul {
namespace {

// Bytes in one send or recv at most. Fewer and larger calls halve what the kernel's part costs.
constexpr std::size_t kCoalesceSize = 256 * kKiB;
constexpr std::size_t kRecordPayload = SSL3_RT_MAX_PLAIN_LENGTH;
// Header 5, inner type 1, tag 16 (RFC 8446, section 5.2), and room to spare.
constexpr std::size_t kRecordSize = kRecordPayload + 64;
// Encryption goes on while a whole record surely fits; the last record may stand behind kCoalesceSize. One more is kept
// for what OpenSSL writes on its own (alerts, key updates).
constexpr std::size_t kOutCapacity = kCoalesceSize + 2 * kRecordSize;

// Ciphertext on its way to or from the socket: [begin, end) of a fixed place.
struct CipherBuffer {
  std::unique_ptr<std::byte[]> bytes;
  std::size_t capacity = 0;
  std::size_t begin = 0;
  std::size_t end = 0;

  explicit CipherBuffer(std::size_t size) : bytes(new std::byte[size]), capacity(size) {}
  std::size_t size() const noexcept { return end - begin; }
  bool empty() const noexcept { return begin == end; }
  std::size_t room() const noexcept { return capacity - end; }
  std::byte* data() noexcept { return bytes.get() + begin; }
  void drop(std::size_t count) noexcept {
    begin += count;
    if (begin == end) begin = end = 0;
  }
  void compact() noexcept {
    if (begin == 0) return;
    std::memmove(bytes.get(), data(), size());
    end -= begin;
    begin = 0;
  }
};

// OpenSSL encrypts from the caller's memory and decrypts into it; between it and the socket stand the two buffers,
// which it reaches through a BIO of ours. OpenSSL's own read-ahead would move the whole rest of its buffer at every
// record.
class OpensslStream final : public TlsStream {
 public:
  OpensslStream(TlsContext& context, UniqueFd socket, std::string peer)
      : socket_(std::move(socket)),
        peer_(std::move(peer)),
        records_per_key_(context.impl().records_per_key),
        assumed_alpn_(context.impl().role == TlsRole::api_server ? kAlpnHttp : std::string_view()),
        in_(kCoalesceSize),
        out_(kOutCapacity) {
    ssl_.reset(SSL_new(context.impl().context.get()));
    BIO* bio = BIO_new(method());
    BIO_set_data(bio, this);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl_.get(), bio, bio);
  }
  ~OpensslStream() override { close(); }

  Result<void> prepare_client(const Endpoint& endpoint, std::string_view alpn);
  Result<void> handshake(SteadyTime deadline);

  Result<std::size_t> read_some(MutableBytes into) override;
  Result<std::size_t> write_some(Bytes from) override;
  Result<bool> flush() override;
  PollHandle poll_handle() const noexcept override { return socket_.get(); }
  bool has_buffered_input() const noexcept override {
    return !in_.empty() || (ssl_ != nullptr && SSL_pending(ssl_.get()) > 0);
  }
  void close() noexcept override;
  std::uint64_t wire_bytes_sent() const noexcept override { return sent_; }
  std::uint64_t wire_bytes_received() const noexcept override { return received_; }
  std::string peer_name() const override { return peer_name_; }
  std::string_view alpn() const noexcept override { return alpn_; }

 private:
  static const BIO_METHOD* method();
  static int bio_write(BIO* bio, const char* data, std::size_t size, std::size_t* written);
  static int bio_read(BIO* bio, char* into, std::size_t size, std::size_t* got);
  static long bio_ctrl(BIO* bio, int command, long, void*);
  static OpensslStream& of(BIO* bio) { return *static_cast<OpensslStream*>(BIO_get_data(bio)); }

  bool fill();   // recv into in_; false: nothing came (would block, end, or receive_errno_)
  bool drain();  // send from out_; false: would block, or send_errno_
  Result<void> finish_handshake();
  Error failure(int ssl_error);
  Error broken(int number) const;
  Error remember(Error error);

  UniqueFd socket_;
  std::string peer_, peer_name_, alpn_, wanted_alpn_;
  std::uint64_t records_per_key_;
  std::string_view assumed_alpn_;  // of a client that names no protocol
  std::uint64_t records_ = 0;      // written with the present key
  CipherBuffer in_, out_;
  SslPtr ssl_;
  std::uint64_t sent_ = 0, received_ = 0;
  int send_errno_ = 0, receive_errno_ = 0;
  bool end_of_file_ = false;
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
  auto& self = of(bio);
  BIO_clear_retry_flags(bio);
  auto& out = self.out_;
  if (out.room() < size) out.compact();
  if (out.room() < size) {
    self.drain();
    out.compact();
  }
  const auto taken = std::min(size, out.room());
  if (taken == 0) {
    if (self.send_errno_ == 0) BIO_set_retry_write(bio);
    return 0;
  }
  std::memcpy(out.bytes.get() + out.end, data, taken);
  out.end += taken;
  *written = taken;
  return 1;
}

int OpensslStream::bio_read(BIO* bio, char* into, std::size_t size, std::size_t* got) {
  auto& self = of(bio);
  BIO_clear_retry_flags(bio);
  if (self.in_.empty() && !self.fill()) {
    if (!self.end_of_file_ && self.receive_errno_ == 0) BIO_set_retry_read(bio);
    return 0;
  }
  *got = std::min(size, self.in_.size());
  std::memcpy(into, self.in_.data(), *got);
  self.in_.drop(*got);
  return 1;
}

long OpensslStream::bio_ctrl(BIO* bio, int command, long, void*) {
  switch (command) {
    case BIO_CTRL_FLUSH: return 1;  // the stream flushes when it decides to
    case BIO_CTRL_EOF: return of(bio).end_of_file_ ? 1 : 0;
    default: return 0;
  }
}

bool OpensslStream::fill() {
  if (end_of_file_ || receive_errno_ != 0 || !socket_) return false;
  while (true) {
    const auto got = ::recv(socket_.get(), in_.bytes.get(), in_.capacity, MSG_DONTWAIT);
    if (got > 0) {
      in_.begin = 0;
      in_.end = static_cast<std::size_t>(got);
      received_ += in_.end;
      return true;
    }
    if (got == 0) {
      end_of_file_ = true;
      return false;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) receive_errno_ = errno;
    return false;
  }
}

bool OpensslStream::drain() {
  while (!out_.empty()) {
    if (send_errno_ != 0 || !socket_) return false;
    const auto count = ::send(socket_.get(), out_.data(), out_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count >= 0) {
      sent_ += static_cast<std::uint64_t>(count);
      out_.drop(static_cast<std::size_t>(count));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) send_errno_ = errno;
    return false;
  }
  return true;
}

Error OpensslStream::broken(int number) const {
  return make_error(TransportErrc::lost,
                    fmt::format("{}: {}", peer_, std::error_code(number, std::generic_category()).message()));
}

Error OpensslStream::remember(Error error) {
  if (!error_) error_ = error;
  return error;
}

Error OpensslStream::failure(int ssl_error) {
  if (ssl_error == SSL_ERROR_ZERO_RETURN)
    return make_error(TransportErrc::closed, fmt::format("{} said goodbye", peer_));
  const int number = receive_errno_ != 0 ? receive_errno_ : send_errno_;
  if (ssl_error == SSL_ERROR_SYSCALL || (number != 0 && ERR_peek_error() == 0)) {
    ERR_clear_error();
    if (number != 0) return broken(number);
    return make_error(TransportErrc::lost, fmt::format("{} ended the connection without a goodbye", peer_));
  }
  return tls_failure(ssl_.get(), established_, peer_);
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
    const bool sent = drain();  // an alert of ours must go out, too
    if (done == 1 && sent) return finish_handshake();
    if (done != 1 && ssl_error != SSL_ERROR_WANT_READ && ssl_error != SSL_ERROR_WANT_WRITE) return failure(ssl_error);
    if (send_errno_ != 0) return broken(send_errno_);
    const bool for_write = !sent;
    BH_TRY(const bool ready, poll_socket(socket_.get(), for_write, deadline));
    if (!ready) return Error::from_errno(ETIMEDOUT, fmt::format("TLS handshake with {}", peer_));
  }
}

Result<void> OpensslStream::finish_handshake() {
  const unsigned char* selected = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(ssl_.get(), &selected, &size);
  if (size > 0) alpn_.assign(reinterpret_cast<const char*>(selected), size);
  if (size == 0) alpn_ = assumed_alpn_;
  if (alpn_.empty() || (!wanted_alpn_.empty() && alpn_ != wanted_alpn_))
    return make_error(TransportErrc::alpn_mismatch, fmt::format("{} chose the protocol '{}'", peer_, alpn_));
  if (const X509* certificate = SSL_get0_peer_certificate(ssl_.get()); certificate != nullptr)
    peer_name_ = common_name(certificate);
  established_ = true;
  return {};
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
    drain();  // the alert that tells the peer, if OpenSSL made one
    if (total == 0) return error;
    break;  // what came before the failure is good; the next call reports it
  }
  return total;
}

Result<std::size_t> OpensslStream::write_some(Bytes from) {
  if (error_) return *error_;
  std::size_t total = 0;
  while (total < from.size()) {
    if (out_.size() >= kCoalesceSize) drain();
    if (out_.room() < 2 * kRecordSize) out_.compact();
    if (out_.room() < 2 * kRecordSize || send_errno_ != 0) break;
    // A record always fits, so OpenSSL never keeps a half-taken one that would bind us to offer the same bytes again.
    std::size_t taken = 0;
    ERR_clear_error();
    if (++records_ > records_per_key_ && SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_NOT_REQUESTED) == 1) records_ = 1;
    if (SSL_write_ex(ssl_.get(), from.data() + total, std::min(from.size() - total, kRecordPayload), &taken) != 1)
      return remember(failure(SSL_get_error(ssl_.get(), 0)));
    total += taken;
  }
  if (send_errno_ != 0) return flush().error();
  return total;
}

Result<bool> OpensslStream::flush() {
  if (error_) return *error_;
  if (drain()) return true;
  if (send_errno_ == 0) return false;
  // A peer that refused us said why before it closed: an alert that waits unread tells more than EPIPE. What else it
  // sent stays for the reader.
  std::byte one{};
  std::size_t got = 0;
  ERR_clear_error();
  if (SSL_peek_ex(ssl_.get(), &one, 1, &got) != 1) {
    const int ssl_error = SSL_get_error(ssl_.get(), 0);
    if (ssl_error == SSL_ERROR_SSL) return remember(failure(ssl_error));
  }
  ERR_clear_error();
  return broken(send_errno_);
}

void OpensslStream::close() noexcept {
  if (!socket_) return;
  if (established_ && !error_ && send_errno_ == 0) {
    ERR_clear_error();
    SSL_shutdown(ssl_.get());
    drain();
    ERR_clear_error();
  }
  ::shutdown(socket_.get(), SHUT_WR);
  // Closing with unread bytes makes Linux send a reset, which can overtake nothing but is needless noise for the peer.
  in_.begin = in_.end = 0;
  fill();
  in_.begin = in_.end = 0;
  socket_.reset();
  if (!error_) error_ = make_error(TransportErrc::closed, "closed by this end");
}

}  // namespace

Result<std::unique_ptr<TlsStream>> tls_connect(TlsContext& context, const Endpoint& endpoint, std::string_view alpn,
                                               std::chrono::milliseconds timeout) {
  if (alpn.empty() || alpn.size() > 255) return make_error(BaseErrc::invalid_argument, "ALPN of 1 to 255 bytes");
  const auto deadline = SteadyTime::clock::now() + timeout;
  BH_TRY(auto socket, connect_socket(endpoint, deadline));
  auto stream = std::make_unique<OpensslStream>(context, std::move(socket), endpoint_text(endpoint));
  BH_CHECK(stream->prepare_client(endpoint, alpn));
  BH_CHECK(stream->handshake(deadline));
  return std::unique_ptr<TlsStream>(std::move(stream));
}

Result<std::unique_ptr<TlsStream>> tls_accept(TlsContext& context, UniqueFd socket, std::chrono::milliseconds timeout) {
  const auto deadline = SteadyTime::clock::now() + timeout;
  BH_CHECK(set_socket_options(socket.get()));
  const auto peer = socket_peer_text(socket.get());
  auto stream = std::make_unique<OpensslStream>(context, std::move(socket), peer);
  BH_CHECK(stream->handshake(deadline));
  return std::unique_ptr<TlsStream>(std::move(stream));
}

Result<bool> wait_stream(ByteStream& stream, bool for_write, std::chrono::milliseconds timeout) {
  if (!for_write && stream.has_buffered_input()) return true;
  return poll_socket(stream.poll_handle(), for_write, SteadyTime::clock::now() + timeout);
}

}  // namespace backhaul
