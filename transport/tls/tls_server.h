// The listening side: accepts TCP connections (Boost.Asio), shakes hands, and gives each stream to the handler of the
// protocol that ALPN chose, on a thread of its own. Signals SIGINT and SIGTERM, or stop(), end it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "transport/tls/tls_stream.h"

namespace backhaul {

// Handshakes and streams at once. Each takes a thread (8 MiB of address space, some 100 KiB of memory before its lane's
// buffers).
inline constexpr unsigned kMaxConnections = 256;

class TlsServer {
 public:
  using Handler = std::function<void(std::unique_ptr<TlsStream>)>;

  // Port 0: the system chooses. Errors: link.address_in_use and the like.
  static Result<std::unique_ptr<TlsServer>> listen(const Endpoint& address, std::shared_ptr<TlsContext> context);
  virtual ~TlsServer() = default;

  virtual std::uint16_t port() const noexcept = 0;
  // Before run(). A stream of a protocol without a handler is closed.
  virtual void set_handler(std::string_view alpn, Handler handler) = 0;
  // Accepts until stopped; then sets `stopping`, waits for all handlers to return, and returns.
  virtual void run(std::atomic<bool>& stopping) = 0;
  // From any thread.
  virtual void stop() = 0;
};

}  // namespace backhaul
