// Failbacks through the API, and each resource's verbs.
#include "unit/control/api/api_fixture.h"

namespace backhaul::test {
namespace {

class ApiTest : public ApiFixture {};

TEST_F(ApiTest, AFailbackFromTheFirstRequestToTheLast) {
  declare("web");
  auto item = call("GET", kItems + "web", {}, "reader");
  EXPECT_EQ(item.at("/properties/protectionState"), "FailoverCommitted");
  EXPECT_EQ(item.at("/properties/activeLocation"), "Recovery");
  EXPECT_EQ(item.at("/properties/currentScenario/jobId"), "None");
  EXPECT_EQ(item.at("/properties/allowedOperations"), (json::array{"PlannedFailover", "DisableProtection"}));

  auto answer = call("POST", kItems + "web/plannedFailover",
                     R"({"properties": {"failoverDirection": "RecoveryToPrimary", "providerSpecificDetails":
                     {"instanceType": "HyperVReplicaAzureFailback", "dataSyncOption": "fordowntime"}}})",
                     "operator");
  ASSERT_EQ(answer.status, 202U) << answer.response.body;
  EXPECT_EQ(answer.header("retry-after"), "1");
  const std::string location = path_of(answer.header("location")),
                    status = path_of(answer.header("azure-asyncoperation"));
  const std::string job = location.substr(location.rfind('/') + 1);
  EXPECT_EQ(call("GET", status).at("/status"), "InProgress");
  EXPECT_EQ(call("GET", location).status, 202U);

  ASSERT_TRUE(bench.run_until_job(job, JobState::suspended));
  EXPECT_EQ(call("GET", status).at("/status"), "Succeeded");  // it waits: whoever began it goes on
  auto done = call("GET", location);
  EXPECT_EQ(done.status, 200U);
  EXPECT_EQ(done.at("/name"), "web");
  EXPECT_EQ(done.at("/properties/currentScenario/jobId").as_string(), kJobs + job);
  auto waiting = call("GET", kJobs + job, {}, "reader");
  EXPECT_EQ(waiting.at("/properties/state"), "Suspended");
  EXPECT_EQ(waiting.at("/properties/allowedActions"), (json::array{"Resume", "Cancel"}));
  EXPECT_EQ(waiting.at("/properties/backhaul/direction"), "RecoveryToPrimary");
  EXPECT_EQ(waiting.at("/properties/backhaul/source/site"), "Recovery");
  EXPECT_EQ(waiting.at("/properties/backhaul/target/host"), "hv1");
  EXPECT_EQ(waiting.at("/properties/customDetails/instanceType"), "FailoverJobDetails");
  EXPECT_EQ(waiting.at("/properties/customDetails/protectedItemDetails/0/name"), "web");
  EXPECT_TRUE(waiting.at("/properties/backhaul/projectedDowntimeSeconds").is_number());

  EXPECT_EQ(start(kJobs + job + "/resume", R"({"properties": {"comments": "go"}})"), job);
  EXPECT_EQ(status_of("resume", job), "InProgress");
  ASSERT_TRUE(bench.run_until_ended(job));
  EXPECT_EQ(status_of("resume", job), "Succeeded");
  auto ended = call("GET", "/v1/operationResults/resume/" + job);
  EXPECT_EQ(ended.at("/properties/state"), "Succeeded") << ended.response.body;
  EXPECT_EQ(ended.at("/properties/backhaul/round/final"), true);
  EXPECT_EQ(ended.at("/properties/backhaul/round/disks/0/rootDigestSource"),
            ended.at("/properties/backhaul/round/disks/0/rootDigestTarget"));
  EXPECT_TRUE(ended.at("/properties/endTime").is_string());
  EXPECT_EQ(call("GET", kItems + "web").at("/properties/activeLocation"), "Primary");

  const std::string commit = start(kItems + "web/failoverCommit");
  ASSERT_TRUE(bench.run_until_ended(commit));
  EXPECT_EQ(status_of("failoverCommit", commit), "Succeeded");
  const std::string protect =
      start(kItems + "web/reProtect", R"({"properties": {"failoverDirection": "PrimaryToRecovery",
      "providerSpecificDetails": {"instanceType": "HyperVReplicaAzure", "storageAccountId": "x"}}})");
  ASSERT_TRUE(bench.run_until([&] { return bench.state("web") == ItemState::protected_; }));
  EXPECT_EQ(status_of("reProtect", protect), "Succeeded");
  item = call("GET", kItems + "web");
  EXPECT_EQ(item.at("/properties/replicationHealth"), "Normal");
  EXPECT_TRUE(item.at("/properties/providerSpecificDetails/rpoInSeconds").is_int64());
  EXPECT_TRUE(item.at("/properties/backhaul/replicationJob").is_string());

  // Removal waits for the replication to give its disks back.
  answer = call("DELETE", kItems + "web");
  ASSERT_EQ(answer.status, 202U) << answer.response.body;
  EXPECT_EQ(status_of("remove", "web"), "InProgress");
  EXPECT_EQ(call("GET", path_of(answer.header("location"))).status, 202U);
  ASSERT_TRUE(bench.run_until([&] { return !bench.service->get_item("web"); }));
  EXPECT_EQ(status_of("remove", "web"), "Succeeded");
  EXPECT_EQ(call("GET", path_of(answer.header("location"))).status, 204U);

  // Who did what.
  const auto audit = call("GET", "/v1/audit?object=job%2F" + job, {}, "reader");
  EXPECT_EQ(audit.at("/value/0/detail"), "comment: go");
  EXPECT_EQ(audit.at("/value/0/actor"), "operator");
}

TEST_F(ApiTest, AFailedJobFailsItsOperationWithItsError) {
  declare("web");
  const std::string job = start(kItems + "web/plannedFailover", R"({"properties": {"providerSpecificDetails":
      {"instanceType": "HyperVReplicaAzureFailback", "dataSyncOption": "ForSynchronization"}}})");
  bench.world.fail["shutdown"] = 1;
  ASSERT_TRUE(bench.run_until_job(job, JobState::failed)) << bench.errors_of(job);
  const auto status = call("GET", "/v1/operationStatuses/plannedFailover/" + job);
  EXPECT_EQ(status.at("/status"), "Failed");
  EXPECT_EQ(status.at("/error/code"), "control.driver_failed");
  const auto result = call("GET", "/v1/operationResults/plannedFailover/" + job);
  EXPECT_EQ(result.status, 409U);
  EXPECT_EQ(result.code(), "control.driver_failed");
  EXPECT_NE(std::string(result.at("/error/message").as_string()).find("shutdown"), std::string::npos);
  const auto shown = call("GET", kJobs + job);
  EXPECT_EQ(shown.at("/properties/errors/0/serviceErrorDetails/code"), "control.driver_failed");
  EXPECT_TRUE(shown.at("/properties/errors/0/serviceErrorDetails/recommendedAction").is_string());
  EXPECT_EQ(shown.at("/properties/allowedActions"), json::array{"Restart"});
  const auto item = call("GET", kItems + "web");
  EXPECT_EQ(item.at("/properties/failoverHealth"), "Critical");
  EXPECT_EQ(item.at("/properties/healthErrors/0/errorCode"), "control.driver_failed");

  EXPECT_EQ(start(kJobs + job + "/restart"), job);
  EXPECT_EQ(status_of("restart", job), "InProgress");
  ASSERT_TRUE(bench.run_until_ended(job));
  EXPECT_EQ(status_of("restart", job), "Succeeded");
}

TEST_F(ApiTest, ACancelledJobIsWhatTheCancelWantedAndNotWhatTheFailoverDid) {
  declare("web");
  const std::string job = start(kItems + "web/plannedFailover");
  ASSERT_TRUE(bench.run_until_job(job, JobState::suspended));
  EXPECT_EQ(start(kItems + "web/failoverCancel"), job);
  EXPECT_EQ(status_of("failoverCancel", job), "InProgress");
  ASSERT_TRUE(bench.run_until_ended(job));
  EXPECT_EQ(status_of("failoverCancel", job), "Succeeded");
  EXPECT_EQ(status_of("cancel", job), "Succeeded");
  const auto status = call("GET", "/v1/operationStatuses/plannedFailover/" + job);
  EXPECT_EQ(status.at("/status"), "Canceled");
  EXPECT_EQ(status.at("/error/code"), "job.cancelled");
  EXPECT_EQ(call("GET", "/v1/operationResults/failoverCancel/" + job).at("/name"), "web");
}

TEST_F(ApiTest, AnEarlierFailoverIsCommittedWithoutAJob) {
  bench.add_item(fake::make_item("other"));
  std::string body = declaration("web");
  body.replace(body.find("\"vm\":"), 0, "\"earlier_failover_committed\": false, ");
  ASSERT_EQ(call("PUT", kItems + "web", body).status, 201U);
  const auto refused = call("POST", kItems + "web/plannedFailover", {}, "operator");
  EXPECT_EQ(refused.status, 409U);
  const auto answer = call("POST", kItems + "web/failoverCommit", {}, "operator");
  EXPECT_EQ(answer.status, 200U) << answer.response.body;
  EXPECT_EQ(answer.at("/properties/protectionState"), "FailoverCommitted");
}

TEST_F(ApiTest, PreflightChangesNothingAndTellsAll) {
  declare("web");
  const auto before = state_of_the_world();
  const auto report = call("POST", kItems + "web/preflight", {}, "operator");
  ASSERT_EQ(report.status, 200U) << report.response.body;
  EXPECT_EQ(report.at("/properties/passed"), true) << report.response.body;
  EXPECT_GT(report.at("/properties/checks").as_array().size(), 3U);
  EXPECT_TRUE(report.at("/properties/estimate/downtimeSeconds").is_number());
  EXPECT_EQ(state_of_the_world(), before);
}

TEST_F(ApiTest, TheRequestReachesTheJobWhole) {
  declare("web");
  const std::string job = start(kItems + "web/plannedFailover", R"({"properties": {
      "failoverDirection": "recoverytoprimary",
      "providerSpecificDetails": {"instanceType": "HyperVReplicaAzureFailback", "dataSyncOption": "ForDownTime",
                                  "recoveryVmCreationOption": "NoAction"},
      "backhaul": {"complete": {"mode": "window", "windowStart": "2030-01-01T00:00:00+01:00",
                                "windowEnd": "2030-01-02T00:00:00Z", "downtimeBudgetSeconds": 30},
                   "allowForcedShutdown": true}}})");
  const auto shown = call("GET", kJobs + job);
  EXPECT_EQ(shown.at("/properties/backhaul/complete/mode"), "window");
  EXPECT_EQ(shown.at("/properties/backhaul/complete/windowStart"), "2029-12-31T23:00:00Z");
  EXPECT_EQ(shown.at("/properties/backhaul/complete/downtimeBudgetSeconds").to_number<double>(), 30);
  EXPECT_EQ(shown.at("/properties/backhaul/allowForcedShutdown"), true);
  EXPECT_EQ(shown.at("/properties/backhaul/dataSyncOption"), "ForDownTime");
}

TEST_F(ApiTest, ItemsAreFoundAtBothPlacesAndBases) {
  declare("web");
  const std::string below =
      "/replicationFabrics/backhaul/replicationProtectionContainers/items/replicationProtectedItems";
  for (const std::string& base : {std::string("/v1"), kArm}) {
    for (const std::string& place : {below, std::string("/replicationProtectedItems")}) {
      const auto item = call("GET", base + place + "/web?api-version=2023-06-01", {}, "reader");
      EXPECT_EQ(item.status, 200U);
      EXPECT_EQ(item.at("/id").as_string(), base + below + "/web");
      const auto list = call("GET", base + place, {}, "reader");
      EXPECT_EQ(list.at("/value").as_array().size(), 1U);
    }
    EXPECT_EQ(call("GET", base + "/replicationFabrics").at("/value/0/name"), "backhaul");
    EXPECT_EQ(call("GET", base + "/replicationFabrics/backhaul").at("/name"), "backhaul");
    EXPECT_EQ(call("GET", base + "/replicationFabrics/backhaul/replicationProtectionContainers").at("/value/0/name"),
              "items");
    EXPECT_EQ(call("GET", base + "/replicationFabrics/backhaul/replicationProtectionContainers/items")
                  .at("/properties/protectedItemCount"),
              1);
    EXPECT_EQ(call("GET", base + "/replicationProtectionContainers").at("/value/0/name"), "items");
  }
  EXPECT_EQ(call("GET", "/v1/replicationFabrics/other").code(), "control.not_found");
  EXPECT_EQ(
      call("GET", "/v1/replicationFabrics/backhaul/replicationProtectionContainers/x/replicationProtectedItems/web")
          .status,
      404U);
  EXPECT_EQ(api.handle(request("GET", "/V1/REPLICATIONPROTECTEDITEMS/web",
                               {{"authorization", "bearer " + secrets["reader"]}}))
                .status,
            200U);
  EXPECT_EQ(call("GET", kItems + "WEB").status, 404U);
}

TEST_F(ApiTest, VersionsGuardChanges) {
  bench.add_item(fake::make_item("other"));
  const std::string target = kItems + "web", body = declaration("web");
  EXPECT_EQ(call("PUT", target, body, "admin", {{"if-match", "*"}}).status, 412U);
  EXPECT_EQ(call("PUT", target, body, "admin", {{"if-match", "\"1\""}}).status, 412U);
  auto made = call("PUT", target, body, "admin", {{"if-none-match", "*"}});
  EXPECT_EQ(made.status, 201U) << made.response.body;
  EXPECT_EQ(made.header("etag"), "\"1\"");
  EXPECT_EQ(call("PUT", target, body, "admin", {{"if-none-match", "*"}}).code(), "http.version_mismatch");
  EXPECT_EQ(call("PUT", target, body, "admin", {{"if-match", "\"7\""}}).status, 412U);
  std::string changed = body;
  changed.replace(changed.find("1024"), 4, "2048");
  auto replaced = call("PUT", target, changed, "admin", {{"if-match", "\"1\""}});
  EXPECT_EQ(replaced.status, 200U) << replaced.response.body;
  EXPECT_EQ(replaced.header("etag"), "\"2\"");
  EXPECT_EQ(replaced.at("/properties/backhaul/declaration/vm/memory_mib"), 2048);
  EXPECT_EQ(call("GET", target).header("etag"), "\"2\"");
  EXPECT_EQ(call("DELETE", target, {}, "admin", {{"if-match", "\"1\""}}).status, 412U);
  EXPECT_EQ(call("DELETE", target, {}, "admin", {{"if-match", "\"2\""}}).status, 204U);
  EXPECT_EQ(call("DELETE", target).status, 404U);
}

TEST_F(ApiTest, WhatWasDeclaredCanBeSentBack) {
  declare("web");
  const auto item = call("GET", kItems + "web");
  const json::value declared = item.at("/properties/backhaul/declaration");
  const auto again = call("PUT", kItems + "web", json::serialize(json::object{{"properties", declared}}));
  ASSERT_EQ(again.status, 200U) << again.response.body;
  EXPECT_EQ(again.at("/properties/backhaul/declaration"), declared);
}

// Plans

constexpr const char* kArmPlan = R"({"properties": {"primaryFabricId": "a", "recoveryFabricId": "b",
  "failoverDeploymentModel": "ResourceManager", "groups": [
  {"groupType": "Shutdown", "replicationProtectedItems": [], "startGroupActions": [
    {"actionName": "tell", "failoverTypes": ["PlannedFailover"], "failoverDirections": ["PrimaryToRecovery", "RecoveryToPrimary"],
     "customDetails": {"instanceType": "ManualActionDetails", "description": "tell people"}}], "endGroupActions": []},
  {"groupType": "Failover", "replicationProtectedItems": [], "startGroupActions": [], "endGroupActions": []},
  {"groupType": "Boot", "replicationProtectedItems": [{"id": "/v1/replicationProtectedItems/db", "virtualMachineId": "x"}]},
  {"groupType": "Boot", "replicationProtectedItems": [{"id": "web"}], "startGroupActions": [], "endGroupActions": [
    {"actionName": "dns", "failoverTypes": ["PlannedFailover", "TestFailover"], "failoverDirections": ["RecoveryToPrimary"],
     "customDetails": {"instanceType": "ScriptActionDetails", "path": "/bin/dns", "timeout": "00:02:00", "fabricLocation": "Primary"}}]}]}})";

TEST_F(ApiTest, APlanInSiteRecoverysShapeFailsBack) {
  declare("db");
  declare("web");
  auto plan = call("PUT", kPlans + "all", kArmPlan);
  ASSERT_EQ(plan.status, 201U) << plan.response.body;
  const auto& declared = plan.at("/properties/backhaul/declaration/groups");
  ASSERT_EQ(declared.as_array().size(), 2U);
  EXPECT_EQ(plan.at("/properties/backhaul/declaration/groups/1/before_shutdown/0/text"), "tell people");
  EXPECT_EQ(plan.at("/properties/backhaul/declaration/groups/1/after_boot/0/command"), json::array{"/bin/dns"});
  EXPECT_EQ(plan.at("/properties/backhaul/declaration/groups/1/after_boot/0/timeout_s"), 120);
  EXPECT_EQ(plan.at("/properties/groups/0/groupType"), "Shutdown");
  EXPECT_EQ(plan.at("/properties/groups/0/startGroupActions/0/customDetails/description"), "tell people");
  EXPECT_EQ(plan.at("/properties/groups/3/replicationProtectedItems/0/virtualMachineId"), "web");
  EXPECT_EQ(plan.at("/properties/groups/3/endGroupActions/0/failoverDirections"), json::array{"RecoveryToPrimary"});
  EXPECT_EQ(plan.at("/properties/backhaul/declaration/groups/1/after_boot/0/direction"), "RecoveryToPrimary");
  EXPECT_EQ(plan.at("/properties/backhaul/declaration/groups/1/before_shutdown/0/direction"), "both");
  EXPECT_EQ(plan.at("/properties/allowedOperations"), json::array{"PlannedFailover"});
  EXPECT_EQ(plan.at("/properties/currentScenarioStatus"), "None");

  // What was answered can be sent back.
  const auto again = call("PATCH", kPlans + "all",
                          json::serialize(json::object{{"properties", {{"groups", plan.at("/properties/groups")}}}}));
  ASSERT_EQ(again.status, 200U) << again.response.body;
  EXPECT_EQ(again.at("/properties/backhaul/declaration"), plan.at("/properties/backhaul/declaration"));

  const std::string job =
      start(kPlans + "all/plannedFailover", R"({"properties": {"failoverDirection": "RecoveryToPrimary",
      "providerSpecificDetails": [{"instanceType": "HyperVReplicaAzureFailback", "dataSyncOption": "ForDownTime", "recoveryVmCreationOption": "NoAction"}]}})");
  ASSERT_TRUE(bench.run_until_job(job, JobState::suspended));
  EXPECT_EQ(status_of("plannedFailover", job), "Succeeded");
  EXPECT_EQ(call("GET", "/v1/operationResults/plannedFailover/" + job).at("/name"), "all");
  auto shown = call("GET", kJobs + job);
  EXPECT_EQ(shown.at("/properties/targetInstanceType"), "RecoveryPlan");
  EXPECT_EQ(shown.at("/properties/backhaul/children").as_array().size(), 2U);
  EXPECT_EQ(call("GET", kPlans + "all").at("/properties/currentScenario/jobId").as_string(), kJobs + job);
  EXPECT_EQ(call("DELETE", kPlans + "all").status, 409U);
  start(kJobs + job + "/resume");
  ASSERT_TRUE(bench.run_until_job(job, JobState::suspended));  // the manual action
  EXPECT_EQ(status_of("resume", job), "Succeeded");
  start(kJobs + job + "/resume");
  ASSERT_TRUE(bench.run_until_ended(job)) << bench.errors_of(job);
  EXPECT_EQ(status_of("resume", job), "Succeeded");
  EXPECT_EQ(call("GET", kPlans + "all").at("/properties/currentScenarioStatus"), "Succeeded");
  const std::string commit = start(kPlans + "all/failoverCommit");
  ASSERT_TRUE(bench.run_until_ended(commit));
  const std::string protect = start(kPlans + "all/reProtect");
  ASSERT_TRUE(bench.run_until_ended(protect));
  EXPECT_EQ(status_of("reProtect", protect), "Succeeded");
  EXPECT_EQ(call("DELETE", kPlans + "all").status, 204U);
}

TEST_F(ApiTest, APlanAsItIsDeclared) {
  declare("db");
  declare("web");
  const std::string body = R"({"properties": {"shutdown_in_boot_order": true, "groups": [
      {"name": "one", "items": ["db"], "after_shutdown": [{"name": "x", "command": ["/bin/x", "--fast"]}]},
      {"name": "two", "items": ["web"]}]}})";
  EXPECT_EQ(call("PATCH", kPlans + "own", body).status, 404U);
  auto plan = call("PUT", kPlans + "own", body);
  ASSERT_EQ(plan.status, 201U) << plan.response.body;
  EXPECT_EQ(plan.at("/properties/backhaul/declaration/groups/0/after_shutdown/0/command"),
            (json::array{"/bin/x", "--fast"}));
  EXPECT_EQ(call("PUT", kPlans + "own", body, "admin", {{"if-match", "\"9\""}}).status, 412U);
  EXPECT_EQ(call("DELETE", kPlans + "own", {}, "admin", {{"if-match", plan.header("etag")}}).status, 204U);
  EXPECT_EQ(call("GET", kPlans + "own").status, 404U);
}

TEST_F(ApiTest, PlansThatCannotBeDoneAreRefused) {
  declare("db");
  const auto group = [](const std::string& text) { return R"({"properties": {"groups": [)" + text + "]}}"; };
  const auto action = [](const std::string& types, const std::string& directions, const std::string& details) {
    return R"({"groupType": "Boot", "replicationProtectedItems": [{"id": "db"}], "startGroupActions": [{"actionName": "a", "failoverTypes": [)" +
           types + R"(], "failoverDirections": [)" + directions + R"(], "customDetails": )" + details + "}]}";
  };
  const std::string both = R"("PrimaryToRecovery", "RecoveryToPrimary")", planned = R"("PlannedFailover")",
                    manual = R"({"instanceType": "ManualActionDetails"})";
  EXPECT_EQ(call("PUT", kPlans + "p", group(action(planned, both, manual))).status, 201U);
  std::string too_many = R"({"groupType": "Boot"})";
  for (int i = 0; i < 64; ++i) too_many += R"(, {"groupType": "Boot"})";
  for (const auto& body :
       {group(R"({"groupType": "Shutdown"})"), group(R"({"groupType": "Boot"}, {"name": "mixed"})"),
        group(R"({"groupType": "Boot", "replicationProtectedItems": [{"id": "nobody"}]})"),
        group(R"({"groupType": "Boot", "replicationProtectedItems": [{"id": "db"}, {"id": "db"}]})"),
        group(R"({"groupType": "Shutdown", "replicationProtectedItems": [{"id": "db"}]}, {"groupType": "Boot"})"),
        group(R"({"groupType": "Shutdown"}, {"groupType": "Shutdown"}, {"groupType": "Boot"})"),
        group(R"({"groupType": "Sideways"})"), group(action(R"("TestFailover")", both, manual)),
        group(action(planned, R"("Sideways")", manual)),
        group(action(planned, both, R"({"instanceType": "AutomationRunbookActionDetails"})")),
        group(action(planned, both, R"({"instanceType": "ScriptActionDetails"})")),
        group(action(planned, both, R"({"instanceType": "ScriptActionDetails", "path": "/x", "timeout": "1:2"})")),
        group(action(planned, both, R"({"instanceType": "ScriptActionDetails", "path": "/x", "timeout": "23:59:61"})")),
        group(action(planned, both, R"({"instanceType": "ScriptActionDetails", "path": "/x", "timeout": "0"})")),
        group(too_many), group("")}) {
    const auto answer = call("PUT", kPlans + "p2", body);
    EXPECT_EQ(answer.status, 400U) << body << answer.response.body;
  }
  EXPECT_EQ(call("GET", kPlans + "p2").status, 404U);
}

// Tokens, audit

}  // namespace
}  // namespace backhaul::test
