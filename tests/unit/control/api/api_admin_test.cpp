// Tokens, the audit log, lists with filters and pages, health and metrics.
#include "unit/control/api/api_fixture.h"

namespace backhaul::test {
namespace {

class ApiAdminTest : public ApiFixture {};

TEST_F(ApiAdminTest, ATokenIsMadeShownOnceUsedAndRevoked) {
  const auto made = call("PUT", "/v1/tokens/script", R"({"properties": {"role": "Operator", "lifetimeSeconds": 60}})");
  ASSERT_EQ(made.status, 201U) << made.response.body;
  const std::string secret = made.at("/properties/secret").as_string().c_str();
  EXPECT_EQ(call("GET", "/v1/replicationJobs", {}, secret).status, 200U);
  const auto list = call("GET", "/v1/tokens");
  EXPECT_EQ(list.at("/value").as_array().size(), 4U);
  EXPECT_EQ(list.response.body.find(secret.substr(20)), std::string::npos);
  EXPECT_EQ(list.response.body.find("secret"), std::string::npos);
  EXPECT_EQ(call("PUT", "/v1/tokens/script", R"({"properties": {"role": "Admin"}})").code(), "control.conflict");
  bench.world.clock.sleep_for(std::chrono::seconds(61));
  EXPECT_EQ(call("GET", "/v1/replicationJobs", {}, secret).status, 401U) << "expired";
  EXPECT_EQ(call("DELETE", "/v1/tokens/script").status, 204U);
  EXPECT_EQ(call("DELETE", "/v1/tokens/script").status, 404U);
  const auto audit = call("GET", "/v1/audit?limit=1000");
  EXPECT_EQ(audit.response.body.find(secret.substr(20)), std::string::npos);
}

TEST_F(ApiAdminTest, TheAuditLogIsReadInPages) {
  for (int i = 0; i < 5; ++i)
    (void)call("PUT", "/v1/tokens/t" + std::to_string(i), R"({"properties": {"role": "Reader"}})");
  std::string target = "/v1/audit?limit=3";
  std::vector<std::int64_t> ids;
  while (!target.empty()) {
    const auto answer = call("GET", target);
    ASSERT_EQ(answer.status, 200U) << answer.response.body;
    for (const auto& entry : answer.at("/value").as_array()) ids.push_back(entry.at("id").to_number<std::int64_t>());
    target = answer.at("/nextLink") == "(missing)" ? "" : path_of(answer.at("/nextLink").as_string());
  }
  EXPECT_EQ(ids.size(), 8U);
  EXPECT_TRUE(std::is_sorted(ids.rbegin(), ids.rend()));
  EXPECT_EQ(call("GET", "/v1/audit?limit=0").status, 400U);
  EXPECT_EQ(call("GET", "/v1/audit?before=x").code(), "http.bad_query");
}

// Jobs

TEST_F(ApiAdminTest, JobsAreFiltered) {
  for (const char* id : {"a", "b", "c"}) declare(id);
  const std::string a = start(kItems + "a/plannedFailover");
  ASSERT_TRUE(bench.run_until_job(a, JobState::suspended));
  bench.world.clock.sleep_for(std::chrono::hours(1));
  const std::string b = start(kItems + "b/plannedFailover");
  ASSERT_TRUE(bench.run_until_job(b, JobState::suspended));
  const std::string c = start(kItems + "c/plannedFailover");
  const auto names = [&](const std::string& filter) {
    std::string encoded, found;
    for (const char ch : filter) encoded += ch == ' ' ? "%20" : ch == '+' ? "%2B" : std::string(1, ch);
    const auto answer =
        call("GET", kArm + "/replicationJobs?$filter=" + encoded + "&api-version=2023-06-01", {}, "reader");
    EXPECT_EQ(answer.status, 200U) << answer.response.body;
    if (answer.status == 200)
      for (const auto& job : answer.at("/value").as_array()) found += std::string(job.at("name").as_string()) + " ";
    return found;
  };
  const std::string all = c + " " + b + " " + a + " ";
  EXPECT_EQ(names("JobStatus eq 'Suspended'"), b + " " + a + " ");
  EXPECT_EQ(names("JobStatus eq 'Suspended,NotStarted'"), all);
  EXPECT_EQ(names("(JobStatus eq 'Suspended' or jobstatus EQ 'notstarted') and ItemName eq 'a'"), a + " ");
  EXPECT_EQ(names("ScenarioName eq 'PlannedFailover'"), all);
  EXPECT_EQ(names("ScenarioName eq 'Commit'"), "");
  EXPECT_EQ(
      names("AffectedObjectTypes eq 'ProtectionEntity' and FabricId eq '" + kArm + "/replicationFabrics/backhaul'"),
      all);
  EXPECT_EQ(names("AffectedObjectTypes eq 'RecoveryPlan'"), "");
  EXPECT_EQ(names("ScenarioName eq 'PlannedFailover' and AffectedObjectTypes eq 'RecoveryPlan'"), "");
  EXPECT_EQ(names("FabricId eq 'another'"), "");
  EXPECT_EQ(names("JobName eq '" + b + "'"), b + " ");
  EXPECT_EQ(names("PlanName eq 'none'"), "");
  const std::string time = call("GET", kJobs + b).at("/properties/startTime").as_string().c_str();
  EXPECT_EQ(names("StartTime ge " + time), c + " " + b + " ");
  EXPECT_EQ(names("StartTime eq '" + time + "'"), c + " " + b + " ");
  EXPECT_EQ(names("EndTime lt '" + time + "'"), a + " ");
  for (const char* bad : {"JobStatus", "JobStatus eq", "JobStatus eq 'Suspended", "JobStatus eq 'Nothing'",
                          "JobStatus ne 'Failed'", "Color eq 'red'", "JobStatus eq 'Failed' or JobName eq '1'",
                          "(JobStatus eq 'Failed' or JobName eq '1')", "JobStatus eq 'Failed' and",
                          "StartTime eq 'yesterday'", "JobStatus eq 'Failed' and JobStatus eq 'Failed'", "()"}) {
    std::string encoded;
    for (const char ch : std::string_view(bad)) encoded += ch == ' ' ? "%20" : std::string(1, ch);
    const auto answer = call("GET", "/v1/replicationJobs?$filter=" + encoded);
    EXPECT_EQ(answer.status, 400U) << bad;
    EXPECT_EQ(answer.code(), "http.bad_query");
  }
}

TEST_F(ApiAdminTest, ListsHavePages) {
  for (int i = 0; i < 501; ++i) {
    char id[8];
    std::snprintf(id, sizeof id, "i%03d", i);
    ASSERT_TRUE(bench.service->put_item(fake::kAdmin, fake::make_item(id)));
  }
  auto first = call("GET", kArm + "/replicationProtectedItems?api-version=2023-06-01", {}, "reader");
  EXPECT_EQ(first.at("/value").as_array().size(), 500U);
  ASSERT_TRUE(first.at("/nextLink").is_string());
  EXPECT_EQ(call("DELETE", kItems + "i499").status, 204U);  // the one that the link names
  const auto rest = call("GET", path_of(first.at("/nextLink").as_string()), {}, "reader");
  ASSERT_EQ(rest.at("/value").as_array().size(), 1U) << rest.response.body;
  EXPECT_EQ(rest.at("/value/0/name"), "i500");
  EXPECT_FALSE(rest.at("/nextLink") != "(missing)");
  EXPECT_EQ(call("GET", "/v1/replicationProtectedItems?$filter=ProtectionState%20eq%20'Protected'")
                .at("/value")
                .as_array()
                .size(),
            0U);
}

// The rest

TEST_F(ApiAdminTest, HealthIsOpenAndMetricsAreNot) {
  for (const char* path : {"/livez", "/readyz", "/openapi.json"}) EXPECT_EQ(send(request("GET", path)).status, 200U);
  EXPECT_EQ(send(request("GET", "/metrics")).status, 401U);
  declare("web");
  const std::string job = start(kItems + "web/plannedFailover");
  ASSERT_TRUE(bench.run_until_job(job, JobState::suspended));
  const auto metrics = call("GET", "/metrics", {}, "reader");
  EXPECT_EQ(metrics.status, 200U);
  const auto& text = metrics.response.body;
  for (const char* line :
       {"backhaul_info{version=\"1.2.3\"} 1\n", "backhaul_items{state=\"PlannedFailoverInProgress\"} 1\n",
        "backhaul_jobs{scenario=\"PlannedFailover\",state=\"Suspended\"} 1\n",
        "backhaul_http_requests_total{operation=\"item.plannedFailover\",status=\"202\"} 1\n",
        "backhaul_http_requests_total{operation=\"metrics\",status=\"401\"} 1\n"})
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  // The format: a comment, or a name, labels and a number.
  for (std::size_t at = 0; at < text.size();) {
    const auto line = text.substr(at, text.find('\n', at) - at);
    at += line.size() + 1;
    if (line.starts_with("# HELP ") || line.starts_with("# TYPE ")) continue;
    EXPECT_TRUE(line.starts_with("backhaul_")) << line;
    EXPECT_NO_THROW((void)std::stod(line.substr(line.rfind(' ')))) << line;
  }
}

TEST_F(ApiAdminTest, RequestsAreNamed) {
  auto answer = call("GET", "/v1/replicationJobs", {}, "reader", {{"x-ms-client-request-id", "abc-123"}});
  EXPECT_EQ(answer.header("x-ms-client-request-id"), "abc-123");
  const auto id = answer.header("x-ms-request-id");
  EXPECT_EQ(id.size(), 32U);
  answer = call("GET", "/v1/replicationJobs", {}, "reader", {{"x-ms-client-request-id", std::string(500, 'x')}});
  EXPECT_EQ(answer.header("x-ms-client-request-id"), "");
  EXPECT_NE(answer.header("x-ms-request-id"), id);
}

}  // namespace
}  // namespace backhaul::test
