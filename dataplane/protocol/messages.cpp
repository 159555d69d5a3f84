#include "dataplane/protocol/messages.h"

#include <boost/json/value.hpp>

#include <algorithm>

#include "transport/stream/transport_error.h"

namespace backhaul {
namespace {

namespace json = boost::json;

Error bad_field(std::string_view name) {
  return make_error(TransportErrc::bad_message, "field '" + std::string(name) + "'");
}

// A field with a fixed set of words.
template <class Parse>
auto word_field(const json::object& body, std::string_view name, Parse parse)
    -> Result<typename std::decay_t<decltype(parse(std::string_view{}))>::value_type> {
  BH_TRY(const auto text, text_field(body, name, 32));
  const auto value = parse(text);
  if (!value) return bad_field(name);
  return *value;
}

// A hexadecimal root digest, or empty when the field is absent.
Result<std::string> digest_field(const json::object& body, std::string_view name) {
  if (!body.contains(name)) return std::string();
  BH_TRY(auto text, text_field(body, name, 64));
  const bool hex =
      std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  if (text.size() != 64 || !hex) return bad_field(name);
  return text;
}

// A key in lower-case hexadecimal. What is wrong with it is not told: it is a secret.
Result<GmacKey> key_field(const json::object& body, std::string_view name) {
  GmacKey key{};
  auto text = text_field(body, name, 2 * key.size());
  if (!text) return bad_field(name);
  const auto digit = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  bool good = text->size() == 2 * key.size();
  for (std::size_t i = 0; good && i < key.size(); ++i) {
    const int high = digit((*text)[2 * i]), low = digit((*text)[2 * i + 1]);
    good = high >= 0 && low >= 0;
    key[i] = static_cast<std::byte>(high * 16 + low);
  }
  if (!good) return bad_field(name);
  return key;
}

}  // namespace

Result<std::uint64_t> number_field(const json::object& body, std::string_view name) {
  const auto* value = body.if_contains(name);
  if (value == nullptr) return bad_field(name);
  boost::system::error_code failed;
  const auto number = value->to_number<std::uint64_t>(failed);
  if (failed || number > std::uint64_t{1} << 62) return bad_field(name);
  return number;
}

Result<std::string> text_field(const json::object& body, std::string_view name, std::size_t max_size) {
  const auto* value = body.if_contains(name);
  const auto* text = value != nullptr ? value->if_string() : nullptr;
  if (text == nullptr || text->size() > max_size) return bad_field(name);
  return std::string(text->begin(), text->end());
}

Result<bool> bool_field(const json::object& body, std::string_view name) {
  const auto* value = body.if_contains(name);
  const auto* flag = value != nullptr ? value->if_bool() : nullptr;
  if (flag == nullptr) return bad_field(name);
  return *flag;
}

json::object to_json(const OpenRequest& request) {
  json::object body{{"disk", request.disk},
                    {"size", request.size},
                    {"sync", to_string(request.sync)},
                    {"verify", to_string(request.verify)},
                    {"staging", to_string(request.staging)},
                    {"changed_only", request.changed_only},
                    {"epoch", request.epoch},
                    {"transfer", request.transfer}};
  if (request.format) body["format"] = to_string(*request.format);
  if (request.compare_key) body["compare_key"] = to_hex(*request.compare_key);
  return body;
}

Result<OpenRequest> open_request_from_json(const json::object& body) {
  OpenRequest request;
  BH_TRY(request.disk, text_field(body, "disk", kMaxDiskNameLength));
  BH_TRY(request.size, number_field(body, "size"));
  BH_TRY(request.sync, word_field(body, "sync", parse_sync_mode));
  BH_TRY(request.verify, word_field(body, "verify", parse_verify_mode));
  BH_TRY(request.staging, word_field(body, "staging", parse_staging_choice));
  BH_TRY(request.changed_only, bool_field(body, "changed_only"));
  BH_TRY(request.epoch, number_field(body, "epoch"));
  BH_TRY(request.transfer, number_field(body, "transfer"));
  if (body.contains("format")) {
    BH_TRY(request.format, word_field(body, "format", parse_disk_format));
  }
  if (body.contains("compare_key")) {
    BH_TRY(request.compare_key, key_field(body, "compare_key"));
  }
  return request;
}

json::object to_json(const OpenedSession& opened) {
  json::object body{{"session", opened.session},           {"epoch", opened.epoch},
                    {"transfer", opened.transfer},         {"size", opened.size},
                    {"format", to_string(opened.format)},  {"staging", to_string(opened.staging)},
                    {"had_old_disk", opened.had_old_disk}, {"resumed", opened.resumed},
                    {"compare", opened.compare},           {"blank", opened.blank}};
  if (opened.compare_by == CompareBy::gmac) body["keyed"] = true;
  if (opened.finished) body["finished"] = true;
  if (!opened.root_digest.empty()) body["root_digest"] = opened.root_digest;
  return body;
}

Result<OpenedSession> opened_from_json(const json::object& body) {
  OpenedSession opened;
  BH_TRY(opened.session, text_field(body, "session", 64));
  BH_TRY(opened.epoch, number_field(body, "epoch"));
  BH_TRY(opened.transfer, number_field(body, "transfer"));
  BH_TRY(opened.size, number_field(body, "size"));
  BH_TRY(opened.format, word_field(body, "format", parse_disk_format));
  BH_TRY(opened.staging, word_field(body, "staging", parse_staging_kind));
  BH_TRY(opened.had_old_disk, bool_field(body, "had_old_disk"));
  BH_TRY(opened.resumed, bool_field(body, "resumed"));
  BH_TRY(opened.compare, bool_field(body, "compare"));
  BH_TRY(opened.blank, bool_field(body, "blank"));
  if (body.contains("keyed")) {
    BH_TRY(const bool keyed, bool_field(body, "keyed"));
    opened.compare_by = keyed ? CompareBy::gmac : CompareBy::sha256;
  }
  if (body.contains("finished")) {
    BH_TRY(opened.finished, bool_field(body, "finished"));
  }
  BH_TRY(opened.root_digest, digest_field(body, "root_digest"));
  return opened;
}

json::object to_json(const JoinRequest& request) {
  return {{"session", request.session}, {"epoch", request.epoch}, {"lane", request.lane}};
}

Result<JoinRequest> join_from_json(const json::object& body) {
  JoinRequest request;
  BH_TRY(request.session, text_field(body, "session", 64));
  BH_TRY(request.epoch, number_field(body, "epoch"));
  BH_TRY(const auto lane, number_field(body, "lane"));
  if (lane >= kMaxLanes) return bad_field("lane");
  request.lane = static_cast<std::uint32_t>(lane);
  return request;
}

json::object to_json(const VerbRequest& request) {
  json::object body{{"disk", request.disk}};
  if (request.epoch != 0) body["epoch"] = request.epoch;
  return body;
}

Result<VerbRequest> verb_from_json(const json::object& body) {
  VerbRequest request;
  BH_TRY(request.disk, text_field(body, "disk", kMaxDiskNameLength));
  if (body.contains("epoch")) {
    BH_TRY(request.epoch, number_field(body, "epoch"));
  }
  return request;
}

bool is_offer_id(std::string_view text) noexcept {
  return !text.empty() && text.size() <= 64 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  });
}

json::object to_json(const Offer& offer) { return {{"send", offer.id}}; }

Result<Offer> offer_from_json(const json::object& body) {
  Offer offer;
  BH_TRY(offer.id, text_field(body, "send", 64));
  if (!is_offer_id(offer.id)) return bad_field("send");
  return offer;
}

json::object to_json(const TargetStatus& status) {
  json::object body{{"state", to_string(status.state)},
                    {"size", status.size},
                    {"format", to_string(status.format)},
                    {"epoch", status.epoch},
                    {"whole", status.whole}};
  if (!status.root_digest.empty()) body["root_digest"] = status.root_digest;
  return body;
}

Result<TargetStatus> status_from_json(const json::object& body) {
  TargetStatus status;
  BH_TRY(status.state, word_field(body, "state", parse_target_state));
  BH_TRY(status.size, number_field(body, "size"));
  BH_TRY(status.format, word_field(body, "format", parse_disk_format));
  BH_TRY(status.epoch, number_field(body, "epoch"));
  BH_TRY(status.whole, bool_field(body, "whole"));
  BH_TRY(status.root_digest, digest_field(body, "root_digest"));
  return status;
}

json::object to_json(const FinishRequest& request) {
  json::object body{{"swap", request.swap}};
  if (!request.root_digest.empty()) body["root_digest"] = request.root_digest;
  return body;
}

Result<FinishRequest> finish_from_json(const json::object& body) {
  FinishRequest request;
  BH_TRY(request.swap, bool_field(body, "swap"));
  BH_TRY(request.root_digest, digest_field(body, "root_digest"));
  return request;
}

json::object to_json(const FinishResult& result) {
  json::object body{{"blocks_zeroed", result.blocks_zeroed}};
  if (!result.root_digest.empty()) body["root_digest"] = result.root_digest;
  return body;
}

Result<FinishResult> finished_from_json(const json::object& body) {
  FinishResult result;
  BH_TRY(result.blocks_zeroed, number_field(body, "blocks_zeroed"));
  BH_TRY(result.root_digest, digest_field(body, "root_digest"));
  return result;
}

}  // namespace backhaul
