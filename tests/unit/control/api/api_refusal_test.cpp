// What the API refuses: each with the right status, an ARM error, and nothing changed.
#include "unit/control/api/api_fixture.h"

#include "control/api/api_json.h"
#include "control/api/api_router.h"
#include "control/model/iso_time.h"

namespace backhaul::test {
namespace {

class ApiRefusal : public ApiFixture {
 protected:
  std::size_t audited(const std::string& action, const std::string& outcome) {
    std::size_t count = 0;
    const auto entries = bench.store->list_audit("", 0, 10000).value();
    for (const auto& entry : entries) count += entry.action == action && entry.outcome == outcome ? 1 : 0;
    return count;
  }
};

TEST_F(ApiRefusal, WithoutAValidTokenNothingIsToldNotEvenWhatExists) {
  const std::string good = secrets["admin"];
  std::string wrong = good;
  wrong.back() = wrong.back() == '0' ? '1' : '0';
  const std::vector<HttpHeaders> tries{{},
                                       {{"authorization", ""}},
                                       {{"authorization", "Bearer"}},
                                       {{"authorization", "Bearer "}},
                                       {{"authorization", "Basic " + good}},
                                       {{"authorization", good}},
                                       {{"authorization", "Bearer " + wrong}},
                                       {{"authorization", "Bearer " + good + "0"}}};
  for (const auto& headers : tries)
    for (const char* target : {"/v1/replicationJobs", "/nowhere"}) {
      const auto answer = send(request("GET", target, headers));
      EXPECT_EQ(answer.status, 401U) << target;
      EXPECT_EQ(answer.code(), "control.unauthenticated");
      EXPECT_TRUE(answer.header("www-authenticate").starts_with("Bearer"));
    }
  EXPECT_EQ(audited("authenticate", "refused"), 16U);
  const auto entries = bench.store->list_audit("peer/10.0.0.1", 0, 100).value();
  ASSERT_EQ(entries.size(), 16U);
  for (const auto& entry : entries)
    EXPECT_EQ(entry.detail.find(good.substr(0, 20)), std::string::npos) << "a token in the log";
}

TEST_F(ApiRefusal, GuessingIsSlowAndDoesNotFillTheAuditLog) {
  for (int i = 0; i < 100; ++i) {
    const auto answer = call("GET", "/v1/replicationJobs", {}, "bh_guess");
    EXPECT_EQ(answer.status, i < 20 ? 401U : 429U) << i;
    if (i >= 20) {
      EXPECT_EQ(answer.code(), "http.too_many_failures");
      EXPECT_FALSE(answer.header("retry-after").empty());
    }
  }
  EXPECT_EQ(audited("authenticate", "refused"), 21U);
  EXPECT_EQ(call("GET", "/v1/replicationJobs").status, 200U) << "a good token from there still works";
  auto elsewhere = request("GET", "/v1/replicationJobs", {{"authorization", "Bearer bh_guess"}});
  elsewhere.peer = "10.0.0.2";
  EXPECT_EQ(send(elsewhere).status, 401U);
  bench.world.clock.sleep_for(std::chrono::seconds(61));
  EXPECT_EQ(call("GET", "/v1/replicationJobs", {}, "bh_guess").status, 401U);
}

// For each route: the role that it says, every lower one refused, audited, and nothing changed.
TEST_F(ApiRefusal, EveryRouteAsksForItsRole) {
  declare("web");
  const auto before = state_of_the_world();
  const ApiRouter router("backhaul");
  std::size_t refused = 0;
  for (const auto& place : router.places()) {
    std::string target;
    for (const auto& part : place.parts)
      target += "/" + (part == "{vault}"       ? std::string("backhaul")
                       : part == "{fabric}"    ? std::string("backhaul")
                       : part == "{container}" ? std::string("items")
                       : part == "{item}"      ? std::string("web")
                       : part == "{verb}"      ? std::string("cancel")
                       : part.starts_with("{") ? std::string("1")
                                               : part);
    if (!place.route->role) continue;
    for (const auto& [who, role] : {std::pair("reader", Role::reader), {"operator", Role::operator_}}) {
      if (role >= *place.route->role) continue;
      const auto answer = call(std::string(place.route->method), target, R"({"properties": {}})", who);
      EXPECT_EQ(answer.status, 403U) << place.route->method << " " << target << " by " << who;
      EXPECT_EQ(answer.code(), "control.forbidden_role");
      ++refused;
    }
  }
  EXPECT_GT(refused, 60U);
  EXPECT_EQ(state_of_the_world(), before);
  std::size_t listed = 0;
  const auto entries = bench.store->list_audit("", 0, 10000).value();
  for (const auto& entry : entries) listed += entry.detail.find("control.forbidden_role") != std::string::npos ? 1 : 0;
  EXPECT_EQ(listed, refused);
}

TEST_F(ApiRefusal, PathsAndMethodsThatAreNotThere) {
  declare("web");
  for (const char* target :
       {"/", "/v1", "/v2/replicationJobs", "/v1/replicationJobs/", "/v1//replicationJobs",
        "/v1/replicationJobs/1/explode", "/v1/../v1/replicationJobs",
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.RecoveryServices/vaults/other/replicationJobs",
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.RecoveryServices/vaults/backhaul/tokens",
        "/subscriptions//resourceGroups/g/providers/Microsoft.RecoveryServices/vaults/backhaul/replicationJobs"}) {
    const auto answer = call("GET", target);
    EXPECT_EQ(answer.status, 404U) << target;
    EXPECT_EQ(answer.code(), "http.no_route") << target;
  }
  auto answer = call("PATCH", kItems + "web", "{}");
  EXPECT_EQ(answer.status, 405U);
  EXPECT_EQ(answer.header("allow"), "GET, HEAD, PUT, DELETE");
  EXPECT_EQ(call("GET", kItems + "web/plannedFailover").header("allow"), "POST");
  EXPECT_EQ(call("TRACE", "/livez").status, 405U);
  for (const char* target : {"/v1/replicationJobs/%", "/v1/replicationJobs/%zz", "/v1/replicationJobs/%00",
                             "/v1/replicationJobs/%ff", "v1", "*", "/v1/replicationJobs/%0d%0aset-cookie:x"}) {
    answer = call("GET", target);
    EXPECT_EQ(answer.status, 400U) << target;
    EXPECT_EQ(answer.code(), "http.bad_request") << target;
  }
  EXPECT_EQ(call("GET", "/v1/replicationJobs/a%2Fb").code(), "control.not_found");
  EXPECT_EQ(call("GET", "https://appliance:8443/v1/replicationJobs").status, 200U);
  EXPECT_EQ(call("GET", kItems + "%77eb").status, 200U);
  for (const char* query : {"color=red", "$filter=a&$filter=b", "$filter=%zz", "skipToken=%ff", "$top=1"})
    EXPECT_EQ(call("GET", std::string("/v1/replicationJobs?") + query).code(), "http.bad_query") << query;
  auto odd = request("GET", "/v1/replicationJobs", {{"authorization", "Bearer " + secrets["reader"]}});
  odd.headers[1].second = "evil/\"path";
  EXPECT_EQ(api.handle(odd).status, 400U);
}

// Bodies

struct BadBody {
  const char* name;
  std::string body;
  unsigned status;
  const char* code;
};
std::vector<BadBody> bad_bodies() {
  std::string deep;
  for (int i = 0; i < 40; ++i) deep += R"({"properties":)";
  deep += "1" + std::string(40, '}');
  return {{"cut", R"({"properties": {)", 400, "http.bad_json"},
          {"garbage", "\x01\x02", 400, "http.bad_json"},
          {"array", "[]", 400, "http.bad_json"},
          {"text", "\"x\"", 400, "http.bad_json"},
          {"null", "null", 400, "http.bad_json"},
          {"two", "{}{}", 400, "http.bad_json"},
          {"comment", "{/* x */}", 400, "http.bad_json"},
          {"trailing comma", R"({"properties": {},})", 400, "http.bad_json"},
          {"twice", R"({"properties": {}, "properties": {}})", 400, "http.bad_json"},
          {"twice inside", R"({"properties": {"x": [{"a": 1, "\u0061": 2}]}})", 400, "http.bad_json"},
          {"deep", deep, 400, "http.bad_json"},
          {"not UTF-8", "{\"properties\": {\"x\": \"\xff\"}}", 400, "http.bad_json"},
          {"surrogate", R"({"properties": {"x": "\ud800"}})", 400, "http.bad_json"},
          {"huge number", R"({"properties": {"x": 1e999}})", 400, "http.bad_json"},
          {"infinite", R"({"properties": {"x": Infinity}})", 400, "http.bad_json"},
          {"unknown", R"({"propertys": {}})", 400, nullptr},
          {"unknown inside", R"({"properties": {"surprise": 1}})", 400, nullptr},
          {"wrong type", R"({"properties": 7})", 400, nullptr}};
}

// Every route with a body, with every bad body: refused, and nothing changed.
TEST_F(ApiRefusal, EveryBodyIsChecked) {
  declare("web");
  const std::string job = start(kItems + "web/plannedFailover");
  ASSERT_TRUE(bench.run_until_job(job, JobState::suspended));
  ASSERT_EQ(call("PUT", kPlans + "all", R"({"properties": {"groups": [{"name": "g", "items": ["web"]}]}})").status,
            201U);
  const auto before = state_of_the_world();
  std::size_t tried = 0;
  for (const ApiRoute& route : api_routes()) {
    if (route.body.empty()) continue;
    std::string path(route.path);
    if (path.starts_with("ITEM")) path = "replicationProtectedItems/web" + path.substr(4);
    for (const auto& [parameter, value] :
         {std::pair<std::string, std::string>("{job}", job), {"{plan}", "all"}, {"{token}", "t"}})
      if (const auto at = path.find(parameter); at != path.npos) path.replace(at, parameter.size(), value);
    for (const auto& bad : bad_bodies()) {
      const auto answer = call(std::string(route.method), "/v1/" + path, bad.body);
      if (std::string_view(bad.name) == "unknown inside" && route.body == "RemoveInput") continue;
      EXPECT_EQ(answer.status, bad.status) << route.operation << ": " << bad.name << ": " << answer.response.body;
      if (bad.code != nullptr) {
        EXPECT_EQ(answer.code(), bad.code) << route.operation << ": " << bad.name;
      }
      ++tried;
    }
    auto form = request(std::string(route.method), "/v1/" + path, {{"authorization", "Bearer " + secrets["admin"]}});
    form.body = "properties=1";
    form.headers.emplace_back("content-type", "application/x-www-form-urlencoded");
    EXPECT_EQ(send(form).status, 415U) << route.operation;
    if (route.body_required) {
      EXPECT_EQ(call(std::string(route.method), "/v1/" + path).status, 400U) << route.operation;
    }
  }
  EXPECT_GT(tried, 200U);
  EXPECT_EQ(state_of_the_world(), before);
}

TEST_F(ApiRefusal, EachWrongFieldIsNamed) {
  declare("web");
  auto answer = call("PUT", kItems + "web",
                     R"({"properties": {"vm": {"name": "x", "memory_mib": "much", "color": "red"}, "recovery": 1}})");
  EXPECT_EQ(answer.status, 400U);
  EXPECT_EQ(answer.code(), "control.bad_file");
  std::set<std::string> targets;
  for (const auto& detail : answer.at("/error/details").as_array())
    targets.insert(detail.at("target").as_string().c_str());
  EXPECT_TRUE(targets.contains("properties.vm.memory_mib")) << answer.response.body;
  EXPECT_TRUE(targets.contains("properties.vm.color")) << answer.response.body;
  EXPECT_TRUE(targets.contains("properties.recovery")) << answer.response.body;
  EXPECT_TRUE(targets.contains("properties.primary")) << answer.response.body;

  const auto first_target = [&](const std::string& body) {
    const auto refused = call("POST", kItems + "web/plannedFailover", body);
    EXPECT_EQ(refused.status, 400U) << body;
    EXPECT_EQ(refused.code(), "http.bad_field") << body;
    return std::string(refused.at("/error/target").as_string());
  };
  EXPECT_EQ(first_target(R"({"properties": {"failoverDirection": "Sideways"}})"), "properties.failoverDirection");
  EXPECT_EQ(first_target(R"({"properties": {"failoverDirection": 1}})"), "properties.failoverDirection");
  EXPECT_EQ(first_target(R"({"properties": {"providerSpecificDetails": {"instanceType": "A2A"}}})"),
            "properties.providerSpecificDetails.instanceType");
  EXPECT_EQ(first_target(R"({"properties": {"providerSpecificDetails": {}}})"),
            "properties.providerSpecificDetails.instanceType");
  EXPECT_EQ(
      first_target(
          R"({"properties": {"providerSpecificDetails": {"instanceType": "HyperVReplicaAzureFailback", "dataSyncOption": "Maybe"}}})"),
      "properties.providerSpecificDetails.dataSyncOption");
  EXPECT_EQ(
      first_target(
          R"({"properties": {"providerSpecificDetails": [{"instanceType": "HyperVReplicaAzureFailback"}, {"instanceType": "HyperVReplicaAzureFailback"}]}})"),
      "properties.providerSpecificDetails");
  EXPECT_EQ(first_target(R"({"properties": {"backhaul": {"complete": {"mode": "automatic"}}}})"),
            "properties.backhaul.complete.downtimeBudgetSeconds");
  EXPECT_EQ(first_target(R"({"properties": {"backhaul": {"complete": {"mode": "scheduled", "at": "tomorrow"}}}})"),
            "properties.backhaul.complete.at");
  EXPECT_EQ(
      first_target(
          R"({"properties": {"backhaul": {"complete": {"mode": "window", "windowStart": "2030-01-02T00:00:00Z", "windowEnd": "2030-01-01T00:00:00Z"}}}})"),
      "properties.backhaul.complete.windowEnd");
  EXPECT_EQ(first_target(R"({"properties": {"backhaul": {"complete": {"downtimeBudgetSeconds": -5}}}})"),
            "properties.backhaul.complete.downtimeBudgetSeconds");
  EXPECT_EQ(first_target(R"({"properties": {"backhaul": {"allowForcedShutdown": "yes"}}})"),
            "properties.backhaul.allowForcedShutdown");
  EXPECT_EQ(call("PUT", kItems + "web", R"({"properties": {"id": "other"}})").status, 400U);
  EXPECT_EQ(call("PUT", "/v1/tokens/t", R"({"properties": {"role": "King"}})").at("/error/target"), "properties.role");
  EXPECT_EQ(call("PUT", "/v1/tokens/%20", R"({"properties": {"role": "Reader"}})").code(), "control.invalid");
}

// Verbs in wrong phases: 409, and nothing changed. The whole grid of phases and verbs is the phase table's test; this
// is that the API asks it.
TEST_F(ApiRefusal, VerbsInTheWrongPhase) {
  declare("web");
  ASSERT_EQ(call("PUT", kPlans + "all", R"({"properties": {"groups": [{"name": "g", "items": ["web"]}]}})").status,
            201U);
  const auto forbidden = [&](const std::string& target, const std::string& method = "POST",
                             const std::string& body = {}) {
    const auto before = state_of_the_world();
    const auto answer = call(method, target, body);
    EXPECT_EQ(answer.status, 409U) << target << answer.response.body;
    EXPECT_EQ(answer.code(), "control.forbidden_in_phase") << target;
    EXPECT_FALSE(answer.at("/error/innererror/recommendedAction").as_string().empty());
    EXPECT_EQ(state_of_the_world(), before) << target;
  };
  for (const char* verb : {"failoverCommit", "failoverCancel", "reProtect"}) forbidden(kItems + "web/" + verb);
  for (const char* verb : {"failoverCommit", "reProtect"}) forbidden(kPlans + "all/" + verb);
  forbidden(kItems + "web/plannedFailover", "POST", R"({"properties": {"failoverDirection": "PrimaryToRecovery"}})");
  const std::string job = start(kItems + "web/plannedFailover");
  for (const char* verb : {"plannedFailover", "failoverCommit", "reProtect", "preflight"})
    forbidden(kItems + "web/" + verb);
  forbidden(kItems + "web", "PUT", declaration("web"));
  forbidden(kJobs + job + "/restart");
  ASSERT_TRUE(bench.run_until_job(job, JobState::suspended));
  start(kJobs + job + "/resume");
  forbidden(kJobs + job + "/resume");
  ASSERT_TRUE(bench.run_until_ended(job));
  for (const char* verb : {"resume", "cancel", "restart"}) forbidden(kJobs + job + "/" + verb);
}

TEST_F(ApiRefusal, ThingsThatAreNotThere) {
  for (const auto& target : {kItems + "x", kJobs + "99", kPlans + "x", std::string("/v1/operationStatuses/cancel/99"),
                             std::string("/v1/operationStatuses/fly/1"), std::string("/v1/operationResults/resume/99")})
    EXPECT_EQ(call("GET", target).code(), "control.not_found") << target;
  for (const char* verb : {"plannedFailover", "failoverCommit", "failoverCancel", "reProtect", "preflight", "remove"})
    EXPECT_EQ(call("POST", kItems + "x/" + verb).status, 404U) << verb;
  for (const char* verb : {"plannedFailover", "failoverCommit", "reProtect"})
    EXPECT_EQ(call("POST", kPlans + "x/" + verb).status, 404U) << verb;
  for (const char* verb : {"resume", "cancel", "restart"})
    EXPECT_EQ(call("POST", kJobs + "x/" + verb).status, 404U) << verb;
  declare("web");
  ASSERT_EQ(call("PUT", kPlans + "all", R"({"properties": {"groups": [{"name": "g", "items": ["web"]}]}})").status,
            201U);
  EXPECT_EQ(call("DELETE", kItems + "web").code(), "control.conflict") << "it is part of a plan";
}

TEST_F(ApiRefusal, WhatTheServerRefusesHasTheSameShape) {
  for (const unsigned status : {400U, 408U, 413U, 417U, 431U, 500U}) {
    const auto response = api.refuse(status, "because");
    EXPECT_EQ(response.status, status);
    const auto body = json::parse(response.body);
    EXPECT_EQ(body.at_pointer("/error/innererror/cause"), "because");
    EXPECT_TRUE(std::string(body.at_pointer("/error/code").as_string()).starts_with("http."));
  }
}

// The pieces

TEST(ApiPieces, JsonIsStrict) {
  EXPECT_TRUE(parse_json_object(R"( {"a": [1, 2.5, -3e2, true, null, "\u00e4"], "b": {"a": 1}} )"));
  EXPECT_TRUE(parse_json_object(R"({"n": 18446744073709551615})"));
  EXPECT_FALSE(parse_json_object(""));
  EXPECT_FALSE(parse_json_object("{}x"));
  EXPECT_FALSE(parse_json_object(std::string_view("{}\0", 3)));
  EXPECT_FALSE(parse_json_object("\xef\xbb\xbf{}"));
}

TEST(ApiPieces, EscapesAreDecodedOnce) {
  EXPECT_EQ(percent_decode("a%2Fb%252f"), "a/b%2f");
  EXPECT_EQ(percent_decode("a+b"), "a+b");
  EXPECT_EQ(percent_decode("a+b", true), "a b");
  EXPECT_EQ(percent_decode("%C3%A4"), "ä");
  for (const char* bad : {"%", "%1", "%g0", "%00", "%1f", "%7f", "%80", "%c0%af", "%ed%a0%80", "%f4%90%80%80"})
    EXPECT_EQ(percent_decode(bad), std::nullopt) << bad;
}

TEST(ApiPieces, TimesAreReadInTheUsualWays) {
  EXPECT_EQ(iso_time(0), "1970-01-01T00:00:00Z");
  EXPECT_EQ(iso_time(1769860800), "2026-01-31T12:00:00Z");
  for (const char* same : {"2026-01-31T12:00:00Z", "2026-01-31T12:00:00.1234567Z", "2026-01-31t12:00z",
                           "2026-01-31 12:00:00", "2026-01-31T13:30:00+01:30", "2026-01-31T11:00:00-01:00"})
    EXPECT_EQ(parse_iso_time(same), 1769860800) << same;
  for (const char* bad :
       {"", "2026", "2026-01-31", "2026-02-30T00:00:00Z", "2026-01-31T24:00:00Z", "2026-01-31T12:00:00.Z",
        "2026-01-31T12:00:00Zx", "2026-01-31T12:00:00+1", "1969-12-31T00:00:00Z", "20260131T120000Z"})
    EXPECT_EQ(parse_iso_time(bad), std::nullopt) << bad;
}

}  // namespace
}  // namespace backhaul::test
