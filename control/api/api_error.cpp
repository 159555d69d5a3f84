#include "control/api/api_error.h"

#include <boost/json.hpp>

#include "control/model/control_error.h"
#include "dataplane/nbd/nbd.h"

namespace backhaul {
namespace {

namespace json = boost::json;

struct Status {
  std::error_code code;
  unsigned status;
};
const Status kStatuses[] = {
    {ApiErrc::bad_request, 400},
    {ApiErrc::bad_json, 400},
    {ApiErrc::bad_field, 400},
    {ApiErrc::bad_query, 400},
    {ApiErrc::no_route, 404},
    {ApiErrc::method_not_allowed, 405},
    {ApiErrc::too_slow, 408},
    {ApiErrc::version_mismatch, 412},
    {ApiErrc::body_too_large, 413},
    {ApiErrc::unsupported_media_type, 415},
    {ApiErrc::expectation_failed, 417},
    {ApiErrc::too_many_failures, 429},
    {ApiErrc::header_too_large, 431},
    {ApiErrc::internal, 500},
    {ApiErrc::too_many_streams, 503},
    {ControlErrc::not_found, 404},
    {ControlErrc::invalid, 400},
    {ControlErrc::forbidden_in_phase, 409},
    {ControlErrc::conflict, 409},
    {ControlErrc::forbidden_role, 403},
    {ControlErrc::unauthenticated, 401},
    {ControlErrc::precondition_failed, 409},
    {ControlErrc::busy, 429},
    {ControlErrc::bad_file, 400},
    {ControlErrc::host_unreachable, 503},
    {NbdErrc::read_only, 409},
    {BaseErrc::invalid_argument, 400},
    {BaseErrc::timed_out, 503},
};

// Which field a line of mistakes is about: "item: vm.memory_mib: must be ..." or "body: properties.x: ...".
struct Mistake {
  std::string field, text;
};
Mistake split_mistake(std::string_view line) {
  Mistake mistake;
  for (const std::string_view name : {"item: ", "plan: ", "body: "}) {
    if (!line.starts_with(name)) continue;
    line.remove_prefix(name.size());
    const auto end = line.find_first_not_of(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$.[]");  // the characters of a path
    if (end == 0 || end == line.npos || !line.substr(end).starts_with(": ")) break;
    mistake.field = (name == "body: " ? "" : "properties.") + std::string(line.substr(0, end));
    line.remove_prefix(end + 2);
    break;
  }
  mistake.text = line;
  return mistake;
}

json::array mistakes_of(const Error& error) {
  json::array details;
  const std::string_view all = error.cause();
  for (std::size_t at = 0; at < all.size();) {
    const auto end = std::min(all.find('\n', at), all.size());
    auto mistake = split_mistake(all.substr(at, end - at));
    json::object detail{{"code", error.symbol()}, {"message", mistake.text}};
    if (!mistake.field.empty()) detail["target"] = mistake.field;
    details.push_back(std::move(detail));
    at = end + 1;
  }
  return details;
}

}  // namespace

const ErrorCategory& api_category() noexcept {
  static constexpr ErrorInfo kTable[] = {
      {"http.bad_request", "the request is not valid HTTP/1.1", "Correct what the cause names.", Retry::no},
      {"http.bad_json", "the body is no JSON object", "Send one JSON object, UTF-8, no key twice.", Retry::no},
      {"http.bad_field", "a field of the body is not right", "Correct each field that is named.", Retry::no},
      {"http.bad_query", "a query parameter is not right", "Correct the parameter that the cause names.", Retry::no},
      {"http.no_route", "there is no such path", "See /openapi.json for what is served.", Retry::no},
      {"http.method_not_allowed", "the path does not have this method", "Use a method that Allow names.", Retry::no},
      {"http.too_slow", "the request did not arrive in time", "Repeat it over a better link.", Retry::later},
      {"http.version_mismatch", "the object's version is not the one that the request names",
       "Read the object again, then repeat the change with its new ETag.", Retry::no},
      {"http.body_too_large", "the body is too large", "Send at most 1 MiB.", Retry::no},
      {"http.unsupported_media_type", "the body is not application/json", "Send Content-Type: application/json.",
       Retry::no},
      {"http.expectation_failed", "Expect asks for what is not offered", "Only 100-continue is.", Retry::no},
      {"http.too_many_failures", "too many requests without a valid token came from this address",
       "Correct the token and wait a minute.", Retry::later},
      {"http.header_too_large", "the request's header is too large", "Send at most 16 KiB.", Retry::no},
      {"http.internal", "the request could not be handled", "See the appliance's log for the request's id.",
       Retry::later},
      {"http.too_many_streams", "too many event streams are open", "Close one, or wait.", Retry::later},
  };
  static const TableCategory category("http", kTable);
  return category;
}

unsigned http_status(const Error& error) noexcept {
  for (const auto& [code, status] : kStatuses)
    if (error.code() == code) return status;
  return 500;
}

Error error_of_status(unsigned status, std::string_view why) {
  for (const auto& entry : kStatuses)
    if (entry.status == status && entry.code.category() == api_category())
      return make_error(entry.code, std::string(why));
  return make_error(ApiErrc::internal, std::string(why));
}

HttpResponse error_response(const Error& error, std::string_view target) {
  const bool listed = error.code() == ControlErrc::bad_file || error.code() == ApiErrc::bad_field;
  json::array details = listed ? mistakes_of(error) : json::array();
  std::string where(target);
  if (!details.empty())
    if (const auto* field = details.front().as_object().if_contains("target")) where = field->as_string().c_str();
  const std::string& cause = error.cause();
  json::object body{{"code", error.symbol()},
                    {"message", error.message() + (cause.empty() ? "" : ": " + cause)},
                    {"details", std::move(details)},
                    {"innererror",
                     {{"code", error.symbol()},
                      {"cause", cause},
                      {"recommendedAction", error.fix()},
                      {"retryable", error.retry() == Retry::later}}}};
  if (!where.empty()) body["target"] = where;
  HttpResponse response;
  response.status = http_status(error);
  response.body = json::serialize(json::object{{"error", std::move(body)}});
  if (response.status == 401) response.headers.emplace_back("www-authenticate", "Bearer realm=\"backhaul\"");
  if (response.status == 429 || response.status == 503) response.headers.emplace_back("retry-after", "10");
  return response;
}

}  // namespace backhaul
