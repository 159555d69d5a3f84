// ControlChannel, the error message and the hello: the blocking half of frame_io.h.
#include <fmt/format.h>
#include <algorithm>
#include <boost/json.hpp>

#include "base/version.h"
#include "transport/frames/frame_io.h"
#include "transport/stream/transport_error.h"
#include "transport/tls/tls_stream.h"

namespace backhaul {
namespace {

namespace json = boost::json;
using SteadyClock = std::chrono::steady_clock;
using Millis = std::chrono::milliseconds;

constexpr std::size_t kMaxTextSize = 2 * kKiB;
constexpr std::size_t kMaxSymbolSize = 64;
constexpr std::size_t kMaxJsonDepth = 16;

Millis left_until(SteadyClock::time_point deadline) {
  return std::max(Millis(0), std::chrono::ceil<Millis>(deadline - SteadyClock::now()));
}

Error timed_out(std::string what) { return make_error(BaseErrc::timed_out, std::move(what)); }

// Length of the well-formed UTF-8 sequence at the start of `text` (RFC 3629, table 3-7 of Unicode); 0 if there is none.
std::size_t utf8_sequence(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto lead = at(0);
  if (lead < 0x80) return 1;
  const std::size_t size = lead >= 0xC2 && lead <= 0xDF   ? 2
                           : (lead & 0xF0) == 0xE0        ? 3
                           : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                          : 0;
  if (size == 0 || text.size() < size) return 0;
  for (std::size_t i = 1; i < size; ++i)
    if ((at(i) & 0xC0) != 0x80) return 0;
  const auto second = at(1);
  const bool overlong = (lead == 0xE0 && second < 0xA0) || (lead == 0xF0 && second < 0x90);
  const bool beyond = (lead == 0xED && second > 0x9F) || (lead == 0xF4 && second > 0x8F);
  return overlong || beyond ? 0 : size;
}

// At most kMaxTextSize bytes of well-formed UTF-8 without control characters (C0, DEL, C1): safe for terminals and
// logs.
std::string printable(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const auto size = utf8_sequence(text);
    const auto first = static_cast<unsigned char>(text[0]);
    const bool control =
        first < 0x20 || first == 0x7F || (size == 2 && first == 0xC2 && static_cast<unsigned char>(text[1]) < 0xA0);
    const auto piece = size == 0 || control ? std::string_view("?") : text.substr(0, size);
    if (out.size() + piece.size() > kMaxTextSize) break;
    out += piece;
    text.remove_prefix(std::max<std::size_t>(size, 1));
  }
  return out;
}

std::string checked_symbol(std::string_view symbol) {
  const auto allowed = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.'; };
  if (symbol.empty() || symbol.size() > kMaxSymbolSize || !std::all_of(symbol.begin(), symbol.end(), allowed))
    return {};
  return std::string(symbol);
}

std::string_view text_field(const json::object& body, std::string_view name) {
  const auto* value = body.if_contains(name);
  const auto* text = value == nullptr ? nullptr : value->if_string();
  return text == nullptr ? std::string_view() : std::string_view(*text);
}

Result<json::object> parse_body(FrameType type, Bytes payload) {
  json::error_code failed;
  json::parse_options options;
  options.max_depth = kMaxJsonDepth;
  const std::string_view text(reinterpret_cast<const char*>(payload.data()), payload.size());
  json::value value = json::parse(text, failed, {}, options);
  if (failed) return make_error(TransportErrc::bad_message, fmt::format("{}: {}", to_string(type), failed.message()));
  if (!value.is_object())
    return make_error(TransportErrc::bad_message, fmt::format("{}: not a JSON object", to_string(type)));
  return std::move(value.get_object());
}

}  // namespace

Result<void> ControlChannel::send(FrameType type, const json::object& body, std::uint64_t epoch, Millis timeout) {
  const auto deadline = SteadyClock::now() + timeout;
  std::vector<std::byte> payload;
  if (type != FrameType::ping && type != FrameType::pong) {
    const std::string text = json::serialize(body);
    if (text.size() > kMaxControlPayloadSize)
      return make_error(TransportErrc::payload_too_large, fmt::format("{}: {} bytes", to_string(type), text.size()));
    const auto bytes = as_bytes(text.data(), text.size());
    payload.assign(bytes.begin(), bytes.end());
  }
  FrameWriter writer(*stream_);
  writer.push_owned({.type = type, .epoch = epoch}, std::move(payload));
  while (true) {
    auto done = writer.pump();
    if (!done) {
      // A peer that gave up said why before it closed, which says more than "the connection was lost".
      if (auto last = next(SteadyClock::now(), false); !last && last.error().from_peer())
        return std::move(last).error();
      return std::move(done).error();
    }
    if (*done) return {};
    BH_TRY(const bool ready, wait_stream(*stream_, true, left_until(deadline)));
    if (!ready || SteadyClock::now() >= deadline) return timed_out(fmt::format("sending {}", to_string(type)));
  }
}

Result<ControlChannel::Message> ControlChannel::receive(Millis timeout) {
  return next(SteadyClock::now() + timeout, true);
}

Result<ControlChannel::Message> ControlChannel::next(SteadyClock::time_point deadline, bool answer_pings) {
  // The reader outlives the call, so that a message may come in pieces over several timeouts.
  if (reader_ == nullptr) reader_ = std::make_unique<FrameReader>(*stream_);
  while (true) {
    BH_TRY(const auto step, reader_->step());
    const auto& header = reader_->header();
    if (step == FrameReader::Step::blocked) {
      BH_TRY(const bool ready, wait_stream(*stream_, false, left_until(deadline)));
      if (!ready || SteadyClock::now() >= deadline) return timed_out("waiting for a message");
      continue;
    }
    if (!is_control(header.type))
      return make_error(TransportErrc::unexpected_frame, fmt::format("{} on a control stream", to_string(header.type)));
    if (step == FrameReader::Step::need_buffer) {
      payload_.resize(header.payload_size);
      reader_->set_buffer(payload_);
      continue;
    }
    if (header.type == FrameType::pong) continue;
    if (header.type == FrameType::ping) {
      if (answer_pings)
        BH_RETURN_IF_ERROR(send(FrameType::pong, {}, header.epoch, std::max(left_until(deadline), Millis(100))));
      continue;
    }
    if (header.type == FrameType::error) return error_from_payload(reader_->payload());
    BH_TRY(auto body, parse_body(header.type, reader_->payload()));
    return Message{header, std::move(body)};
  }
}

Result<ControlChannel::Message> ControlChannel::expect(FrameType type, Millis timeout) {
  BH_TRY(auto message, receive(timeout));
  if (message.header.type != type)
    return make_error(TransportErrc::unexpected_frame,
                      fmt::format("{} instead of {}", to_string(message.header.type), to_string(type)));
  return message;
}

json::object error_to_json(const Error& error) {
  std::string cause = error.cause();
  if (!error.from_peer()) cause = cause.empty() ? error.message() : error.message() + " (" + cause + ")";
  return {{"symbol", error.symbol()},
          {"cause", printable(cause)},
          {"fix", printable(error.fix())},
          {"retry", error.retry() == Retry::later ? "later" : "no"}};
}

Error error_from_json(const json::object& body) {
  auto cause = printable(text_field(body, "cause"));
  if (cause.empty()) cause = "the other end gave no cause";
  return Error::from_peer(checked_symbol(text_field(body, "symbol")), std::move(cause),
                          printable(text_field(body, "fix")),
                          text_field(body, "retry") == "later" ? Retry::later : Retry::no);
}

Error error_from_payload(Bytes payload) {
  const auto body = parse_body(FrameType::error, payload);
  return body ? error_from_json(*body) : body.error();
}

namespace {

constexpr std::uint16_t kLowestVersion = 1;

Result<std::uint16_t> version_at(const json::array& versions, std::size_t index) {
  json::error_code failed;
  const auto version = versions[index].to_number<std::uint16_t>(failed);
  if (failed || version == 0) return make_error(TransportErrc::bad_message, "hello: versions");
  return version;
}

Result<Hello> read_hello(const json::object& body) {
  const auto* value = body.if_contains("versions");
  const auto* versions = value == nullptr ? nullptr : value->if_array();
  if (versions == nullptr || versions->size() != 2) return make_error(TransportErrc::bad_message, "hello: versions");
  BH_TRY(const auto lowest, version_at(*versions, 0));
  BH_TRY(const auto highest, version_at(*versions, 1));
  if (lowest > highest) return make_error(TransportErrc::bad_message, "hello: versions");
  Hello hello;
  hello.version = std::min(highest, kProtocolVersion);
  if (hello.version < std::max(lowest, kLowestVersion))
    return make_error(TransportErrc::version_mismatch, fmt::format("we speak {} to {}, the other end {} to {}",
                                                                   kLowestVersion, kProtocolVersion, lowest, highest));
  if (const auto* features = body.if_contains("features"); features != nullptr && features->is_array())
    for (const auto& feature : features->get_array())
      if (const auto* name = feature.if_string(); name != nullptr && *name == "zstd") hello.zstd = true;
  return hello;
}

}  // namespace

Result<Hello> exchange_hello(ControlChannel& channel, Millis timeout) {
  const auto deadline = SteadyClock::now() + timeout;
  const json::object ours{{"versions", json::array{kLowestVersion, kProtocolVersion}},
                          {"features", json::array{"zstd"}},
                          {"software", fmt::format("backhaul {}", kVersion)}};
  BH_RETURN_IF_ERROR(channel.send(FrameType::hello, ours, 0, timeout));
  BH_TRY(const auto message, channel.expect(FrameType::hello, left_until(deadline)));
  return read_hello(message.body);
}

}  // namespace backhaul
