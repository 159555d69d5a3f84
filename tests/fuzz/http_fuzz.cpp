// What an API client can send: any bytes, in any pieces, through the server's loop; and what passes that, through the
// router, the strict JSON reader and every reader of a body. The first byte chooses which, and the size of the pieces.
#include <boost/json.hpp>
#include <cstdint>
#include <string>

#include "control/api/api_body.h"
#include "control/api/api_error.h"
#include "control/api/api_filter.h"
#include "control/api/api_json.h"
#include "control/api/api_router.h"
#include "control/http/http.h"
#include "control/model/iso_time.h"
#include "tests/fuzz/fuzz_input.h"
#include "unit/control/http/script_stream.h"

namespace backhaul {
namespace {

void use(const HttpRequest& request, const HttpLimits& limits) {
  require(!request.method.empty() && !request.target.empty() && request.body.size() <= limits.body_bytes);
  for (const char c : request.target) require(c > 0x20 && c < 0x7f);
  std::size_t header_bytes = 0;
  for (const auto& [name, value] : request.headers) {
    header_bytes += name.size() + value.size();
    for (const char c : name) require(c < 'A' || c > 'Z');
    require(value.find_first_of("\r\n") == value.npos);
  }
  require(header_bytes <= limits.header_bytes);
  static const ApiRouter router("backhaul");
  ApiCall call{request, {}, {}, {}, {}, {}, {}, {}, nullptr};
  if (const auto match = router.match(call); match && match->route != nullptr) {
    for (const auto& [name, value] : call.path) require(!value.empty() && is_utf8(value));
    (void)ApiRouter::read_query(*match->route, call);
  }
}

void serve(std::string_view bytes, std::size_t piece) {
  test::TickingClock clock;
  std::string output;
  auto peer = std::make_unique<test::ScriptStream>(clock, output);
  for (; !bytes.empty(); bytes.remove_prefix(std::min(piece, bytes.size()))) peer->send(bytes.substr(0, piece));
  const HttpLimits limits{.header_bytes = 2048, .body_bytes = 1024};
  std::size_t handled = 0, refused = 0;
  const std::atomic<bool> stopping{false};
  serve_http(
      std::move(peer),
      [&](const HttpRequest& request) {
        require(refused == 0);  // a refusal ends the connection
        ++handled;
        use(request, limits);
        HttpResponse response;
        response.body = "{}";
        return response;
      },
      [&](unsigned status, std::string_view why) {
        require(++refused == 1 && status >= 400 && status < 500 && !why.empty());
        return error_response(error_of_status(status, why));
      },
      clock, stopping, limits);
  require(output.ends_with("[closed]"));
  require(handled + refused == 0 || output.starts_with("HTTP/1.1 "));
}

template <class T>
void explained(const Result<T>& result) {
  if (!result) require(http_status(result.error()) == 400 && error_response(result.error()).status == 400);
}

void read_bodies(std::string_view text) {
  const auto body = parse_json_object(text);
  explained(body);
  if (!body) return;
  // What was read is JSON again, and the same.
  const auto again = parse_json_object(boost::json::serialize(*body));
  require(again && *again == *body);
  explained(read_planned_failover(*body));
  explained(read_commit(*body));
  explained(read_reprotect(*body));
  explained(read_remove(*body));
  explained(read_resume(*body));
  explained(read_nothing(*body));
  explained(read_token(*body));
  explained(read_item(*body, "web01"));
  explained(read_plan(*body, "plan"));
}

void read_texts(std::string_view text) {
  if (const auto decoded = percent_decode(text, true)) require(is_utf8(*decoded) && decoded->size() <= text.size());
  if (const auto time = parse_iso_time(text)) require(parse_iso_time(iso_time(*time)) == *time);
  explained(job_query(text));
}

}  // namespace
}  // namespace backhaul

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0: backhaul::read_bodies(rest); break;
    case 1: backhaul::read_texts(rest); break;
    default: backhaul::serve(rest, 1 + data[0] / 4); break;
  }
  return 0;
}
