// HTTP/1.1 over a byte stream, both ends: what the API, the host agent's services and the command line share. Blocking,
// one connection on one thread; the grammar is Boost.Beast's. Everything from a peer is bounded before it is kept.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/world.h"
#include "transport/tls/tls_stream.h"

namespace backhaul {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;  // names in lower case

struct HttpRequest {
  std::string method;  // "GET", upper case
  std::string target;  // path and query as sent, still percent-encoded
  HttpHeaders headers;
  std::string body;
  std::string peer;  // certificate's common name, else the address

  std::string_view header(std::string_view name) const noexcept;  // first of that (lower-case) name; empty: absent
};

// Writes the pieces of a response whose length is not known; each piece goes out at once. Fails when the client went
// away, took nothing for the write timeout, or the server stops.
class HttpBodyWriter {
 public:
  virtual ~HttpBodyWriter() = default;
  virtual Result<void> write(std::string_view piece) = 0;
  virtual bool stopping() const noexcept = 0;
};

struct HttpResponse {
  unsigned status = 200;
  HttpHeaders headers;
  std::string content_type = "application/json";
  std::string body;
  // When set, `body` is ignored: called on the connection's thread until it returns, sent in chunks; then the
  // connection closes.
  std::function<Result<void>(HttpBodyWriter&)> stream;

  std::string_view header(std::string_view name) const noexcept;
};

struct HttpLimits {
  std::size_t header_bytes = 16 * 1024;
  std::size_t body_bytes = 1024 * 1024;
  std::chrono::seconds idle{60};     // between requests of one connection
  std::chrono::seconds request{30};  // from a request's first byte to its last
  std::chrono::seconds write{30};    // a client that takes nothing
  unsigned requests_per_connection = 1000;
};

using HttpHandler = std::function<HttpResponse(const HttpRequest&)>;

// Called for what the server itself refuses: 400 not HTTP, 408 too slow, 413 body, 431 header. `refuse` makes the
// response in the API's error shape.
using HttpRefusal = std::function<HttpResponse(unsigned status, std::string_view why)>;

// Serves one connection to its end. Returns when the peer went away, a limit was passed, or `stopping`.
void serve_http(std::unique_ptr<ByteStream> stream, const HttpHandler& handler, const HttpRefusal& refuse, Clock& clock,
                const std::atomic<bool>& stopping, const HttpLimits& limits = {});

// A client of one server. One request at a time; keeps the connection open between requests and dials again when it
// was closed. Not thread-safe.
class HttpClient {
 public:
  HttpClient(Endpoint endpoint, std::shared_ptr<TlsContext> tls, Clock& clock);
  ~HttpClient();
  // Errors: those of the link and of TLS; ControlErrc for a peer that does not speak HTTP. A status is no error.
  Result<HttpResponse> send(std::string_view method, std::string_view target, const HttpHeaders& headers,
                            std::string_view body, std::chrono::milliseconds timeout);
  // For endless responses: `piece` gets each piece of the body as it comes, until it returns false or the response
  // ends. The result has status and headers.
  Result<HttpResponse> stream(std::string_view method, std::string_view target, const HttpHeaders& headers,
                              const std::function<bool(std::string_view piece)>& piece);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace backhaul
