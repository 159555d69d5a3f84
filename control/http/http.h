// HTTP/1.1 over a byte stream, server and client; the API, the host agent's services and the command line use it.
// Blocking, one connection on one thread. Boost.Beast parses; whatever a peer sends is bounded before it is kept.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
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

  std::string_view header(std::string_view name) const noexcept;  // first value of this lower-case name; empty: absent
};

// Writes a response of unknown length; each piece goes out at once. Fails when the client is gone, took nothing for the
// write timeout, or the server stops.
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
  // When set, it replaces `body`: the connection's thread calls it once, sends its pieces in chunks, and closes the
  // connection.
  std::function<Result<void>(HttpBodyWriter&)> stream;

  std::string_view header(std::string_view name) const noexcept;
};

struct HttpLimits {
  std::size_t header_bytes = 16 * 1024;
  std::size_t body_bytes = 1024 * 1024;
  std::chrono::seconds idle{60};     // between requests of one connection
  std::chrono::seconds request{30};  // from a request's first byte to its last
  std::chrono::seconds write{30};    // until a client takes more of the response
  unsigned requests_per_connection = 1000;
};

using HttpHandler = std::function<HttpResponse(const HttpRequest&)>;

// Makes the response, in the API's error shape, to what the server itself refuses: 400 not HTTP, 408 too slow, 413 body
// too large, 431 header too large.
using HttpRefusal = std::function<HttpResponse(unsigned status, std::string_view why)>;

// Serves one connection. Returns when the peer is gone, a limit is passed, or `stopping` is set.
void serve_http(std::unique_ptr<ByteStream> stream, const HttpHandler& handler, const HttpRefusal& refuse, Clock& clock,
                const std::atomic<bool>& stopping, const HttpLimits& limits = {});

// A client of one server. One request at a time; keeps the connection open between requests and dials again when it
// was closed. Not thread-safe.
class HttpClient {
 public:
  HttpClient(Endpoint endpoint, std::shared_ptr<TlsContext> tls, Clock& clock);
  ~HttpClient();
  // Errors: the link's and TLS's; a ControlErrc when the peer does not speak HTTP. A status is never an error.
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
