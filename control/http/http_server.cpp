#include <boost/beast/core/buffer_traits.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <ctime>

#include "base/units.h"
#include "control/http/http.h"
#include "control/http/http_wire.h"

namespace backhaul {
namespace {

namespace http = boost::beast::http;
using boost::system::error_code;

// A whole answer may take this many times HttpLimits::write, so that a client that takes a byte now and then cannot
// hold a connection for ever.
constexpr int kWholeAnswer = 10;
// Bytes still read after a refusal, so that the client sees the answer.
constexpr std::size_t kLingerBytes = 4 * kMiB;
constexpr std::chrono::seconds kLinger{2};

struct Refusal {
  unsigned status;
  std::string why;
};

// The HTTP status for Beast's error.
Refusal refusal_of(const error_code& code) {
  if (code == http::error::header_limit) return {431, "the header is too large"};
  if (code == http::error::body_limit) return {413, "the body is too large"};
  return {400, "not HTTP/1.1: " + code.message()};
}

bool has_control_character(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

std::string http_date(std::int64_t unix_time_s) {
  const auto time = static_cast<std::time_t>(unix_time_s);
  std::tm parts{};
  ::gmtime_r(&time, &parts);
  char text[40];
  const auto size = std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return {text, size};
}

class Connection final : private HttpBodyWriter {
 public:
  Connection(ByteStream& stream, const HttpHandler& handler, const HttpRefusal& refuse, Clock& clock,
             const std::atomic<bool>& stop, const HttpLimits& limits)
      : handler_(handler), refuse_(refuse), clock_(clock), limits_(limits), wire_(stream, clock, &stop) {
    peer_ = stream.peer_name();
    if (peer_.empty()) peer_ = peer_address(stream);
  }

  void serve() {
    for (unsigned count = 1; serve_one(count); ++count) continue;
  }

 private:
  using Parser = http::request_parser<http::string_body>;

  bool serve_one(unsigned count);
  Result<std::optional<Refusal>> read_request(Parser& parser, HttpRequest& request);
  Result<std::optional<Refusal>> read_part(Parser& parser, bool header_only, Clock::Duration deadline);
  std::optional<Refusal> check_header(const Parser& parser, const HttpRequest& request) const;
  HttpResponse call(const HttpRequest& request) const;
  bool send(const HttpResponse& response, bool head, bool http_1_0, bool keep);
  bool send_stream(const HttpResponse& response, std::string header, bool head, bool http_1_0);

  Result<void> put(std::string_view bytes) {
    return wire_.write_all(bytes, limits_.write, clock_.now() + kWholeAnswer * limits_.write);
  }

  // HttpBodyWriter: the connection streams.
  Result<void> write(std::string_view piece) override {
    if (piece.empty()) return {};  // an empty chunk would end the body
    if (wire_.stopping()) return make_error(BaseErrc::cancelled, "the server stops");
    return put(chunked_ ? fmt::format("{:x}\r\n{}\r\n", piece.size(), piece) : std::string(piece));
  }
  bool stopping() const noexcept override {
    try {
      return wire_.stopping() || wire_.peer_gone();
    } catch (const std::exception&) {
      return true;
    }
  }

  const HttpHandler& handler_;
  const HttpRefusal& refuse_;
  Clock& clock_;
  const HttpLimits& limits_;
  mutable HttpWire wire_;
  std::string peer_;
  bool chunked_ = false;
};

// Feeds the parser until the header, or the whole request, is there.
Result<std::optional<Refusal>> Connection::read_part(Parser& parser, bool header_only, Clock::Duration deadline) {
  auto& input = wire_.input();
  while (!(header_only ? parser.is_header_done() : parser.is_done())) {
    error_code code = http::error::need_more;
    std::size_t used = 0;
    if (!input.empty()) used = parser.put(boost::asio::const_buffer(input.data(), input.size()), code);
    input.erase(0, used);
    if (code && code != http::error::need_more) return std::optional(refusal_of(code));
    if (used > 0) continue;
    // Beast leaves only an unfinished line, which may be no longer than a header.
    if (input.size() >= limits_.header_bytes)
      return std::optional(parser.is_header_done() ? Refusal{400, "a chunk's header is too large"}
                                                   : refusal_of(http::error::header_limit));
    if (auto filled = wire_.fill(deadline); !filled) {
      if (filled.error().is(BaseErrc::timed_out))
        return std::optional(Refusal{408, "the request did not arrive in time"});
      return filled.error();
    }
  }
  return std::optional<Refusal>();
}

// Refuses what the grammar allows and a server must not accept: two ways to say where the body ends (RFC 9112, section
// 6.3), no Host or two, bytes that are not a URL.
std::optional<Refusal> Connection::check_header(const Parser& parser, const HttpRequest& request) const {
  const auto count = [&](std::string_view name) {
    return std::count_if(request.headers.begin(), request.headers.end(), [&](auto& h) { return h.first == name; });
  };
  const auto lengths = count("content-length"), encodings = count("transfer-encoding");
  if (lengths + encodings > 1) return Refusal{400, "more than one Content-Length or Transfer-Encoding"};
  if (lengths == 1) {
    const auto value = request.header("content-length");
    if (value.empty() || value.find_first_not_of("0123456789") != value.npos)
      return Refusal{400, "Content-Length is no number"};
  }
  if (encodings == 1 && (to_lower(request.header("transfer-encoding")) != "chunked" || parser.get().version() < 11))
    return Refusal{400, "Transfer-Encoding other than chunked"};
  if (parser.get().version() >= 11 && count("host") != 1) return Refusal{400, "not exactly one Host"};
  if (count("authorization") > 1) return Refusal{400, "more than one Authorization"};
  for (const char c : request.target)
    if (c < 0x21 || c > 0x7e) return Refusal{400, "the target has bytes that must be percent-encoded"};
  if (const auto expect = request.header("expect"); !expect.empty() && to_lower(expect) != "100-continue")
    return Refusal{417, "Expect other than 100-continue"};
  return std::nullopt;
}

Result<std::optional<Refusal>> Connection::read_request(Parser& parser, HttpRequest& request) {
  if (wire_.input().empty()) BH_RETURN_IF_ERROR(wire_.fill(clock_.now() + limits_.idle));
  const auto deadline = clock_.now() + limits_.request;
  parser.eager(false);
  parser.header_limit(static_cast<std::uint32_t>(limits_.header_bytes));
  parser.body_limit(limits_.body_bytes);

  BH_TRY(auto refused, read_part(parser, true, deadline));
  if (refused) return refused;
  // Taken before the body: a chunked body's trailer adds no headers.
  const auto& head = parser.get();
  request.method = std::string(head.method_string());
  request.target = std::string(head.target());
  request.peer = peer_;
  for (const auto& field : head)
    request.headers.emplace_back(to_lower({field.name_string().data(), field.name_string().size()}),
                                 std::string(field.value()));
  if (refused = check_header(parser, request); refused) return refused;

  if (!request.header("expect").empty() && !parser.is_done() && wire_.input().empty())
    BH_RETURN_IF_ERROR(put("HTTP/1.1 100 Continue\r\n\r\n"));
  parser.eager(true);
  BH_TRY(refused, read_part(parser, false, deadline));
  if (!refused) request.body = std::move(parser.get().body());
  return refused;
}

HttpResponse Connection::call(const HttpRequest& request) const {
  try {
    return handler_(request);
  } catch (const std::exception& thrown) {
    // Out of memory, or a defect: this request fails, the process goes on.
    spdlog::error("http: {} from {}: {}", request.method, request.peer, thrown.what());
    return refuse_(500, "the request could not be handled");
  }
}

// Returns whether the connection goes on.
bool Connection::serve_one(unsigned count) {
  Parser parser;
  HttpRequest request;
  auto refused = read_request(parser, request);
  if (!refused) return false;  // gone, idle for too long, or stopping
  const bool http_1_0 = parser.is_header_done() && parser.get().version() < 11;
  if (*refused) {
    if (send(refuse_((*refused)->status, (*refused)->why), request.method == "HEAD", http_1_0, false))
      wire_.linger(kLingerBytes, clock_.now() + kLinger);
    return false;
  }
  const bool keep = parser.keep_alive() && count < limits_.requests_per_connection && !wire_.stopping();
  return send(call(request), request.method == "HEAD", http_1_0, keep) && keep;
}

bool Connection::send(const HttpResponse& response, bool head, bool http_1_0, bool keep) {
  const bool no_body = response.status == 204 || response.status == 304 || response.status < 200;
  std::string text = fmt::format("HTTP/1.1 {} {}\r\ndate: {}\r\n", response.status,
                                 std::string_view(http::obsolete_reason(http::int_to_status(response.status))),
                                 http_date(clock_.unix_time_s()));
  for (const auto& [name, value] : response.headers)
    if (!has_control_character(name) && !has_control_character(value)) text += fmt::format("{}: {}\r\n", name, value);
  if (!no_body && !response.content_type.empty()) text += fmt::format("content-type: {}\r\n", response.content_type);
  if (response.stream) return send_stream(response, std::move(text), head, http_1_0);
  if (!no_body) text += fmt::format("content-length: {}\r\n", response.body.size());
  text += keep ? (http_1_0 ? "connection: keep-alive\r\n\r\n" : "\r\n") : "connection: close\r\n\r\n";
  if (!head && !no_body) text += response.body;
  return put(text).has_value();
}

bool Connection::send_stream(const HttpResponse& response, std::string header, bool head, bool http_1_0) {
  chunked_ = !http_1_0;
  header += chunked_ ? "transfer-encoding: chunked\r\nconnection: close\r\n\r\n" : "connection: close\r\n\r\n";
  if (!put(header) || head) return false;
  try {
    // A missing last chunk tells the client that the answer is not whole.
    if (response.stream(*this) && chunked_) (void)put("0\r\n\r\n");
  } catch (const std::exception& thrown) {
    spdlog::error("http: a stream to {}: {}", peer_, thrown.what());
  }
  return false;
}

}  // namespace

void serve_http(std::unique_ptr<ByteStream> stream, const HttpHandler& handler, const HttpRefusal& refuse, Clock& clock,
                const std::atomic<bool>& stopping, const HttpLimits& limits) {
  try {
    Connection(*stream, handler, refuse, clock, stopping, limits).serve();
  } catch (const std::exception& thrown) {
    spdlog::error("http: a connection ended: {}", thrown.what());
  }
  stream->close();
}

}  // namespace backhaul
