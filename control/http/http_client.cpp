#include <boost/asio/error.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>

#include <fmt/format.h>

#include <algorithm>

#include "base/units.h"
#include "control/http/http.h"
#include "control/http/http_wire.h"
#include "control/model/control_error.h"

namespace backhaul {
namespace {

namespace http = boost::beast::http;
using boost::system::error_code;

constexpr std::chrono::seconds kConnectTimeout{10};
constexpr std::chrono::seconds kWriteTimeout{30};
// An endless response says something at least every 15 s (the server's heartbeat); a link that is silent for this long
// is dead.
constexpr std::chrono::seconds kSilence{60};
constexpr std::uint32_t kMaxHeader = 64 * kKiB;
constexpr std::uint64_t kMaxBody = 64 * kMiB;

// A body that is handed on piece by piece.
struct PieceBody {
  using value_type = std::function<bool(std::string_view)>;
  class reader {
   public:
    template <bool IsRequest, class Fields>
    reader(http::header<IsRequest, Fields>&, value_type& piece) : piece_(piece) {}
    void init(const boost::optional<std::uint64_t>&, error_code& code) { code = {}; }
    template <class Buffers>
    std::size_t put(const Buffers& buffers, error_code& code) {
      std::size_t size = 0;
      code = {};
      for (auto it = boost::asio::buffer_sequence_begin(buffers); it != boost::asio::buffer_sequence_end(buffers);
           ++it) {
        const boost::asio::const_buffer part = *it;
        size += part.size();
        if (part.size() > 0 && !piece_(std::string_view(static_cast<const char*>(part.data()), part.size()))) {
          code = boost::asio::error::operation_aborted;
          break;
        }
      }
      return size;
    }
    void finish(error_code& code) { code = {}; }

   private:
    value_type& piece_;
  };
};

using Parser = http::response_parser<PieceBody>;

// No limit on the whole exchange: only silence ends it.
constexpr Clock::Duration kEndless{0};

Error no_http(const error_code& code) {
  return make_error(ControlErrc::http_protocol, "the answer is not HTTP/1.1: " + code.message());
}

bool is_idempotent(std::string_view method) {
  return method == "GET" || method == "HEAD" || method == "PUT" || method == "DELETE";
}

}  // namespace

struct HttpClient::State {
  Endpoint endpoint;
  std::shared_ptr<TlsContext> tls;
  Clock& clock;
  std::unique_ptr<TlsStream> stream;
  std::unique_ptr<HttpWire> wire;
  bool answered = false;  // a byte of this answer has come

  void close() {
    wire.reset();
    if (stream) stream->close();
    stream.reset();
  }

  Result<void> connect(std::chrono::milliseconds timeout) {
    close();
    BH_TRY(stream, tls_connect(*tls, endpoint, kAlpnHttp, timeout));
    wire = std::make_unique<HttpWire>(*stream, clock, nullptr);
    return {};
  }

  // An open connection is used again unless the server has closed it meanwhile.
  bool usable() { return wire && !wire->peer_gone() && wire->input().empty(); }

  std::string head(std::string_view method, std::string_view target, const HttpHeaders& headers,
                   std::size_t body_size) const;
  Result<void> read(Parser& parser, Clock::Duration limit);
  Result<HttpResponse> exchange(std::string_view method, std::string_view request, const PieceBody::value_type& piece,
                                Clock::Duration limit);
};

std::string HttpClient::State::head(std::string_view method, std::string_view target, const HttpHeaders& headers,
                                    std::size_t body_size) const {
  const bool v6 = endpoint.host.find(':') != std::string::npos;
  std::string text = fmt::format("{} {} HTTP/1.1\r\nhost: {}{}{}:{}\r\n", method, target, v6 ? "[" : "", endpoint.host,
                                 v6 ? "]" : "", endpoint.port);
  for (const auto& [name, value] : headers) text += fmt::format("{}: {}\r\n", name, value);
  if (body_size > 0 || method == "POST" || method == "PUT" || method == "PATCH")
    text += fmt::format("content-length: {}\r\n", body_size);
  return text + "\r\n";
}

// Feeds the parser to the end of the answer. `limit`: of the whole answer; 0: only silence ends it.
Result<void> HttpClient::State::read(Parser& parser, Clock::Duration limit) {
  const auto deadline = clock.now() + limit;
  auto& input = wire->input();
  while (!parser.is_done()) {
    error_code code = http::error::need_more;
    std::size_t used = 0;
    if (!input.empty()) used = parser.put(boost::asio::const_buffer(input.data(), input.size()), code);
    input.erase(0, used);
    if (code == boost::asio::error::operation_aborted) return make_error(BaseErrc::cancelled);
    if (code && code != http::error::need_more) return no_http(code);
    if (used > 0) continue;
    if (input.size() >= kMaxHeader) return no_http(http::error::header_limit);
    auto filled = wire->fill(limit == kEndless ? clock.now() + kSilence : deadline);
    if (filled) {
      answered = true;
      continue;
    }
    if (!parser.is_header_done() || !parser.need_eof()) return filled.error();
    parser.put_eof(code);  // a body without a length ends with the connection
    if (code) return filled.error();
  }
  return {};
}

// One exchange on the open connection.
Result<HttpResponse> HttpClient::State::exchange(std::string_view method, std::string_view request,
                                                 const PieceBody::value_type& piece, Clock::Duration limit) {
  const auto deadline = clock.now() + (limit == kEndless ? Clock::Duration(kWriteTimeout) : limit);
  answered = false;
  // A server that refuses early may close before it has read all; its answer says more than our failure to send.
  auto sent = wire->write_all(request, kWriteTimeout, deadline);
  if (!sent && sent.error().is(BaseErrc::timed_out)) return sent.error();
  while (true) {
    Parser parser;
    parser.get().body() = piece;
    parser.eager(true);
    parser.header_limit(kMaxHeader);
    parser.body_limit(limit == kEndless ? boost::optional<std::uint64_t>() : boost::optional<std::uint64_t>(kMaxBody));
    parser.skip(method == "HEAD");
    auto done = read(parser, limit == kEndless ? kEndless : std::max(deadline - clock.now(), Clock::Duration(1)));
    const auto status = parser.is_header_done() ? parser.get().result_int() : 0;
    if (done && status >= 100 && status < 200) continue;  // not the answer yet
    const bool stopped = !done && done.error().is(BaseErrc::cancelled) && status != 0;
    if (!done && !stopped) return sent || answered ? done.error() : sent.error();
    HttpResponse response;
    response.status = status;
    response.content_type = std::string(parser.get()[http::field::content_type]);
    for (const auto& field : parser.get())
      response.headers.emplace_back(to_lower({field.name_string().data(), field.name_string().size()}),
                                    std::string(field.value()));
    if (stopped || !sent || !parser.keep_alive()) close();
    return response;
  }
}

HttpClient::HttpClient(Endpoint endpoint, std::shared_ptr<TlsContext> tls, Clock& clock)
    : state_(new State{std::move(endpoint), std::move(tls), clock, nullptr, nullptr}) {}
HttpClient::~HttpClient() { state_->close(); }

Result<HttpResponse> HttpClient::send(std::string_view method, std::string_view target, const HttpHeaders& headers,
                                      std::string_view body, std::chrono::milliseconds timeout) {
  auto& s = *state_;
  const auto deadline = s.clock.now() + timeout;
  const std::string request = s.head(method, target, headers, body.size()) + std::string(body);
  std::string answer;
  const PieceBody::value_type keep = [&](std::string_view piece) {
    answer += piece;
    return true;
  };
  for (bool fresh = !s.usable();; fresh = true) {
    if (fresh) BH_RETURN_IF_ERROR(s.connect(std::min<std::chrono::milliseconds>(timeout, kConnectTimeout)));
    auto response = s.exchange(method, request, keep, std::max(deadline - s.clock.now(), Clock::Duration(1)));
    if (response) {
      response->body = std::move(answer);
      return response;
    }
    s.close();
    const bool timed_out = response.error().is(BaseErrc::timed_out);
    // The server may have closed a kept connection just as we used it. It may still have acted, so only an idempotent
    // request is sent again.
    if (fresh || s.answered || timed_out || !is_idempotent(method)) return response;
  }
}

Result<HttpResponse> HttpClient::stream(std::string_view method, std::string_view target, const HttpHeaders& headers,
                                        const std::function<bool(std::string_view piece)>& piece) {
  auto& s = *state_;
  if (!s.usable()) BH_RETURN_IF_ERROR(s.connect(kConnectTimeout));
  auto response = s.exchange(method, s.head(method, target, headers, 0), piece, kEndless);
  if (!response) s.close();
  return response;
}

}  // namespace backhaul
