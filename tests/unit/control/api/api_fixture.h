// The API over a service in a fake world. Every answer that a test gets is held against the OpenAPI document that the
// API serves: a documented status, the media type, every required field, right types, and no field that stands in no
// schema.
#pragma once

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <string>
#include <vector>

#include "control/api/api.h"
#include "control/http/http.h"
#include "unit/control/bench.h"

namespace backhaul::test {

namespace json = boost::json;

inline const std::string kArm =
    "/subscriptions/s-1/resourceGroups/g%201/providers/Microsoft.RecoveryServices/vaults/backhaul";
inline const std::string kItems = "/v1/replicationProtectedItems/";
inline const std::string kJobs = "/v1/replicationJobs/";
inline const std::string kPlans = "/v1/replicationRecoveryPlans/";

class ApiFixture : public ::testing::Test {
 protected:
  ApiFixture() : api(*bench.service, {"backhaul", "1.2.3", 2}, bench.world.clock, bench.world.random) {
    for (const auto& [name, role] :
         {std::pair("reader", Role::reader), {"operator", Role::operator_}, {"admin", Role::admin}})
      secrets[name] = bench.service->create_token(fake::kAdmin, name, role).value().secret;
    document = json::parse(api.handle(request("GET", "/openapi.json")).body).as_object();
  }

  static HttpRequest request(std::string method, std::string target, HttpHeaders headers = {}, std::string body = {}) {
    HttpRequest made{std::move(method), std::move(target), std::move(headers), std::move(body), "10.0.0.1"};
    made.headers.emplace_back("host", "appliance:8443");
    if (!made.body.empty()) made.headers.emplace_back("content-type", "application/json; charset=utf-8");
    return made;
  }

  struct Answer {
    unsigned status = 0;
    HttpResponse response;
    json::value body;  // null: no JSON
    const json::value& at(std::string_view pointer) const {
      static const json::value missing("(missing)");
      boost::system::error_code failed;
      const auto* found = body.find_pointer(pointer, failed);
      return found == nullptr ? missing : *found;
    }
    std::string code() const { return at("/error/code").is_string() ? at("/error/code").as_string().c_str() : ""; }
    std::string header(std::string_view name) const { return std::string(response.header(name)); }
  };

  Answer call(std::string method, std::string target, std::string body = {}, const std::string& who = "admin",
              HttpHeaders headers = {}) {
    headers.emplace_back("authorization", "Bearer " + (secrets.contains(who) ? secrets[who] : who));
    return send(request(std::move(method), std::move(target), std::move(headers), std::move(body)));
  }
  Answer send(const HttpRequest& asked) {
    Answer answer;
    answer.response = api.handle(asked);
    answer.status = answer.response.status;
    boost::system::error_code failed;
    if (answer.response.content_type == "application/json" && !answer.response.body.empty()) {
      answer.body = json::parse(answer.response.body, failed);
      EXPECT_FALSE(failed) << answer.response.body;
    }
    if (answer.status >= 400 && answer.response.content_type != "text/plain; charset=utf-8") {
      EXPECT_TRUE(answer.at("/error/code").is_string()) << answer.response.body;
      EXPECT_TRUE(answer.at("/error/innererror/recommendedAction").is_string() || answer.status == 409)
          << answer.response.body;
    }
    EXPECT_FALSE(answer.header("x-ms-request-id").empty());
    hold_against_document(asked, answer);
    return answer;
  }

  // Location and the like are absolute.
  static std::string path_of(std::string_view url) {
    constexpr std::string_view kHost = "https://appliance:8443";
    EXPECT_TRUE(url.starts_with(kHost)) << url;
    return std::string(url.substr(std::min(kHost.size(), url.size())));
  }

  void hold_against_document(const HttpRequest& asked, const Answer& answer) {
    const json::object* operation = find_operation(asked);
    if (operation == nullptr) {
      EXPECT_TRUE(answer.status == 404 || answer.status == 405 || answer.status == 400 || answer.status == 401 ||
                  answer.status == 429)
          << asked.method << " " << asked.target << " is not in the document, but answers " << answer.status;
      return;
    }
    ++documented;
    const auto& responses = operation->at("responses").as_object();
    const auto* response = responses.if_contains(std::to_string(answer.status));
    if (response == nullptr && answer.status >= 400) response = responses.if_contains("default");
    ASSERT_NE(response, nullptr) << asked.method << " " << asked.target << ": status " << answer.status
                                 << " is not documented: " << answer.response.body;
    const auto* content = response->as_object().if_contains("content");
    if (content == nullptr) {
      EXPECT_TRUE(answer.response.body.empty() && !answer.response.stream) << answer.response.body;
      return;
    }
    const auto& media = *content->as_object().begin();
    EXPECT_TRUE(answer.response.content_type.starts_with(std::string_view(media.key())))
        << asked.target << ": " << answer.response.content_type;
    if (!answer.body.is_null())
      check(answer.body, media.value().as_object().at("schema").as_object(), asked.method + " " + asked.target);
  }

  void check(const json::value& value, const json::object& schema, const std::string& where) {
    if (const auto* reference = schema.if_contains("$ref")) {
      constexpr std::string_view kPrefix = "#/components/schemas/";
      const auto name = std::string_view(reference->as_string()).substr(kPrefix.size());
      const auto* found = document.at("components").at("schemas").as_object().if_contains(name);
      ASSERT_NE(found, nullptr) << where << ": no schema " << name;
      return check(value, found->as_object(), where);
    }
    const auto* type = schema.if_contains("type");
    if (type == nullptr) return;
    const std::string_view t = type->as_string();
    const bool fits = t == "object"    ? value.is_object()
                      : t == "array"   ? value.is_array()
                      : t == "string"  ? value.is_string()
                      : t == "boolean" ? value.is_bool()
                      : t == "integer" ? value.is_int64() || value.is_uint64()
                                       : value.is_number();
    EXPECT_TRUE(fits) << where << " is no " << t << ": " << value;
    if (!fits) return;
    if (t == "array")
      for (std::size_t i = 0; i < value.as_array().size(); ++i)
        check(value.as_array()[i], schema.at("items").as_object(), where + "[" + std::to_string(i) + "]");
    if (t != "object" || !schema.contains("properties")) return;
    const auto& known = schema.at("properties").as_object();
    if (const auto* required = schema.if_contains("required")) {
      for (const auto& name : required->as_array())
        EXPECT_TRUE(value.as_object().contains(name.as_string())) << where << " lacks " << name;
    }
    for (const auto& entry : value.as_object()) {
      const auto* property = known.if_contains(entry.key());
      EXPECT_NE(property, nullptr) << where << " has the undocumented field " << entry.key();
      if (property != nullptr) check(entry.value(), property->as_object(), where + "." + std::string(entry.key()));
    }
  }

  // By its own matching, not the router's.
  const json::object* find_operation(const HttpRequest& asked) {
    std::string_view target = asked.target;
    if (target.starts_with("https://")) target.remove_prefix(target.find('/', 8));
    const auto parts = split(target.substr(0, target.find('?')));
    for (const auto& path : document.at("paths").as_object()) {
      const auto pattern = split(path.key());
      bool fits = pattern.size() == parts.size();
      for (std::size_t i = 0; fits && i < parts.size(); ++i)
        fits = pattern[i] == parts[i] || (pattern[i].starts_with("{") && !parts[i].empty() &&
                                          (pattern[i] != "{vault}" || parts[i] == "backhaul"));
      if (!fits) continue;
      std::string method = asked.method == "HEAD" ? "GET" : asked.method;
      for (auto& c : method) c = static_cast<char>(std::tolower(c));
      if (const auto* found = path.value().as_object().if_contains(method)) return &found->as_object();
    }
    return nullptr;
  }
  static std::vector<std::string> split(std::string_view text) {
    std::vector<std::string> parts;
    while (true) {
      const auto end = text.find('/');
      parts.emplace_back(text.substr(0, end));
      if (end == text.npos) return parts;
      text.remove_prefix(end + 1);
    }
  }

  static std::string declaration(const std::string& id) {
    return R"({"properties": {"vm": {"name": ")" + id +
           R"(", "memory_mib": 1024, "nics": [{"name": "eth0", "network": "LAN"}]},
      "recovery": {"driver": "files", "disks": [{"name": "os", "path": "/r/)" +
           id + R"(-os", "size_bytes": 100}, {"name": "data", "path": "/r/)" + id + R"(-data", "size_bytes": 100}]},
      "primary": {"host": "hv1", "driver": "files", "disks": [{"name": "os", "path": ")" +
           id + R"(-os", "size_bytes": 100}, {"name": "data", "path": ")" + id + R"(-data", "size_bytes": 100}]}}})";
  }
  // The world's side of an item, and the item through the API.
  void declare(const std::string& id) {
    bench.add_item(fake::make_item(id));
    const auto answer = call("PUT", kItems + id, declaration(id));
    ASSERT_EQ(answer.status, 200U) << answer.response.body;
  }
  // Starts the verb and gives the job's id.
  std::string start(const std::string& target, const std::string& body = {}, const std::string& who = "operator") {
    const auto answer = call("POST", target, body, who);
    EXPECT_EQ(answer.status, 202U) << answer.response.body;
    const auto location = answer.header("location");
    return location.substr(location.rfind('/') + 1);
  }
  std::string status_of(const std::string& verb, const std::string& object) {
    const auto answer = call("GET", "/v1/operationStatuses/" + verb + "/" + object, {}, "reader");
    EXPECT_EQ(answer.status, 200U) << answer.response.body;
    return answer.at("/status").as_string().c_str();
  }
  // All that the store holds, but for the audit log: what a refused request must not change.
  std::string state_of_the_world() {
    std::string all;
    for (const char* kind : {"item", "job", "plan"}) {
      const auto objects = bench.store->list(kind).value();
      for (const auto& object : objects) all += object.kind + object.id + std::to_string(object.version) + object.body;
    }
    const auto tokens = bench.store->list_tokens().value();
    for (const auto& token : tokens) all += token.name;
    return all;
  }

  fake::Bench bench;
  Api api;
  std::map<std::string, std::string> secrets;
  json::object document;
  int documented = 0;
};

}  // namespace backhaul::test
