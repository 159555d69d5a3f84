// Tokens, the audit log, health, the document.
#include <fmt/format.h>
#include <boost/json.hpp>

#include <charconv>

#include "control/api/api_body.h"
#include "control/api/api_context.h"
#include "control/api/api_error.h"

namespace backhaul {
namespace {

namespace json = boost::json;

HttpResponse text_response(unsigned status, std::string_view text) {
  HttpResponse response;
  response.status = status;
  response.content_type = "text/plain; charset=utf-8";
  response.body = std::string(text) + "\n";
  return response;
}

Result<std::uint64_t> number_of(const ApiCall& call, std::string_view name, std::uint64_t fallback, std::uint64_t low,
                                std::uint64_t high) {
  const auto text = call.query_of(name);
  if (!call.query.contains(name)) return fallback;
  std::uint64_t value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc() || end != text.data() + text.size() || value < low || value > high)
    return make_error(ApiErrc::bad_query, fmt::format("{}: must be a whole number from {} to {}", name, low, high));
  return value;
}

}  // namespace

Result<HttpResponse> list_tokens(ApiContext& context, const ApiCall& call) {
  BH_TRY(const auto tokens, context.service.list_tokens(call.actor));
  return page(
      call, tokens, PageOrder::by_name, kPage,
      [](const TokenRecord& token) -> const std::string& { return token.name; },
      [](const TokenRecord& token) { return token_json(token); });
}
Result<HttpResponse> put_token(ApiContext& context, const ApiCall& call) {
  BH_TRY(const auto request, read_token(call.body));
  BH_TRY(const auto token,
         context.service.create_token(call.actor, call.at("token"), request.role, request.lifetime_s));
  return json_response(201, token_json(token.record, token.secret));
}
Result<HttpResponse> remove_token(ApiContext& context, const ApiCall& call) {
  BH_RETURN_IF_ERROR(context.service.remove_token(call.actor, call.at("token")));
  return empty_response(204);
}

Result<HttpResponse> list_audit(ApiContext& context, const ApiCall& call) {
  BH_TRY(const auto limit, number_of(call, "limit", 100, 1, kMaxAuditEntries));
  BH_TRY(const auto before, number_of(call, "before", 0, 1, INT64_MAX));
  const auto object = call.query_of("object");
  BH_TRY(const auto entries, context.service.list_audit(call.actor, object, before, limit));
  json::array values;
  for (const auto& entry : entries) values.push_back(audit_json(entry));
  json::object body{{"value", std::move(values)}};
  if (entries.size() == limit && entries.back().id > 1) {
    std::string encoded;
    for (const char c : object)
      encoded += std::isalnum(static_cast<unsigned char>(c)) != 0
                     ? std::string(1, c)
                     : fmt::format("%{:02X}", static_cast<unsigned char>(c));
    body["nextLink"] = fmt::format("{}/audit?before={}&limit={}{}{}", call.base_url, entries.back().id, limit,
                                   encoded.empty() ? "" : "&object=", encoded);
  }
  return json_response(200, body);
}

Result<HttpResponse> livez(ApiContext&, const ApiCall&) { return text_response(200, "ok"); }

// Ready: the store answers.
Result<HttpResponse> readyz(ApiContext& context, const ApiCall&) {
  auto probe = context.service.get_plan("readyz");
  if (probe || probe.error().is(ControlErrc::not_found)) return text_response(200, "ok");
  return text_response(503, "the job store cannot be read");
}

Result<HttpResponse> openapi(ApiContext& context, const ApiCall&) {
  HttpResponse response;
  response.body = context.openapi;
  return response;
}

}  // namespace backhaul
