// Recovery plans: order, parallel items, actions, failures and retries.
#include <gtest/gtest.h>

#include "tests/unit/control/bench.h"

namespace backhaul {
namespace {

using namespace fake;

PlanAction command(const std::string& name) { return {name, false, "", {"/bin/true"}, 10}; }
PlanAction manual(const std::string& name) { return {name, true, "look at " + name, {}, 10}; }

struct PlanTest : ::testing::Test, Bench {
  void SetUp() override {
    for (const char* id : {"db", "web1", "web2"}) add_item(make_item(id));
    plan.id = "shop";
    plan.groups = {{"database", {"db"}, {}, {}, {}, {}}, {"web", {"web1", "web2"}, {}, {}, {}, {}}};
  }
  void put() {
    auto done = service->put_plan(kAdmin, plan);
    ASSERT_TRUE(done) << done.error().to_string();
  }
  std::string start(const PlannedFailoverRequest& request = {}) {
    auto id = service->plan_planned_failover(kAdmin, "shop", request);
    EXPECT_TRUE(id) << id.error().to_string();
    return id ? *id : "";
  }
  // Where an action of the log came first; -1: never.
  int first(const std::string& prefix) const {
    for (std::size_t i = 0; i < world.log.size(); ++i)
      if (world.log[i].starts_with(prefix)) return static_cast<int>(i);
    return -1;
  }
  bool all_in(ItemState wanted) {
    for (const char* id : {"db", "web1", "web2"})
      if (state(id) != wanted) return false;
    return true;
  }
  RecoveryPlan plan;
};

TEST_F(PlanTest, ItemsWaitTogetherGoDownInReverseAndComeUpInOrder) {
  plan.groups[0].before_shutdown = {command("quiesce")};
  plan.groups[0].after_boot = {command("db-check")};
  plan.groups[1].before_boot = {command("dns")};
  put();
  auto id = start();
  ASSERT_TRUE(run_until_job(id, JobState::suspended)) << errors_of(id);
  EXPECT_EQ(job(id).children.size(), 3u);
  EXPECT_EQ(job(id).waiting_for, "Complete Failover");
  for (const auto& child : job(id).children) {
    EXPECT_EQ(job(child).state, JobState::suspended);
    EXPECT_FALSE(service->resume_job(kAdmin, child)) << "the plan resumes its items";
  }
  EXPECT_EQ(world.count("shutdown"), 0);
  ASSERT_TRUE(service->resume_job(kAdmin, id));
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
  EXPECT_TRUE(all_in(ItemState::planned_failover_commit_pending));
  EXPECT_GT(first("command quiesce"), first("shutdown")) << "the web group goes down first";
  EXPECT_LT(first("command db-check"), first("command dns"));
  EXPECT_EQ(world.count("command"), 3);
  // The database starts before the web servers are started.
  int starts_before_check = 0;
  for (int i = 0; i < first("command db-check"); ++i)
    starts_before_check += world.log[static_cast<std::size_t>(i)].starts_with("start hv1");
  EXPECT_EQ(starts_before_check, 1);
  EXPECT_EQ(world.count("start hv1"), 3);

  ASSERT_TRUE(run_until_job(service->plan_commit(kAdmin, "shop").value(), JobState::succeeded));
  EXPECT_TRUE(all_in(ItemState::planned_failover_committed));
  ASSERT_TRUE(run_until_job(service->plan_reprotect(kAdmin, "shop").value(), JobState::succeeded));
  EXPECT_TRUE(all_in(ItemState::protected_));
}

TEST_F(PlanTest, ForSynchronizationGoesStraightToTheShutdowns) {
  put();
  auto id = start(full_request());
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
  EXPECT_TRUE(all_in(ItemState::planned_failover_commit_pending));
}

TEST_F(PlanTest, AManualActionSuspendsThePlanUntilResume) {
  plan.groups[1].after_boot = {manual("order")};
  plan.groups[1].before_boot = {manual("dns")};
  put();
  auto id = start(full_request());
  for (const char* name : {"dns", "order"}) {
    ASSERT_TRUE(run_until([&] {
      return job(id).state == JobState::suspended && job(id).waiting_for.starts_with(name);
    })) << errors_of(id);
    EXPECT_EQ(allowed_actions(job(id)).front(), "Resume");
    open();  // survives a restart
    ASSERT_TRUE(service->resume_job(kAdmin, id));
  }
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
}

TEST_F(PlanTest, AManualActionIsConfirmedAfterCompleteFailoverToo) {
  plan.groups[1].after_boot = {manual("order")};
  put();
  auto id = start({});
  ASSERT_TRUE(run_until_job(id, JobState::suspended)) << errors_of(id);
  ASSERT_TRUE(service->resume_job(kAdmin, id));
  ASSERT_TRUE(run_until([&] {
    return job(id).state == JobState::suspended && job(id).waiting_for.starts_with("order");
  })) << errors_of(id);
  EXPECT_EQ(allowed_actions(job(id)).front(), "Resume");
  ASSERT_TRUE(service->resume_job(kAdmin, id));
  EXPECT_FALSE(service->resume_job(kAdmin, id)) << "it was said already";
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
}

TEST_F(PlanTest, AnActionOfOneDirectionRunsOnlyThatWay) {
  plan.groups[1].before_boot = {command("home"), command("away"), command("always")};
  plan.groups[1].before_boot[0].direction = "RecoveryToPrimary";
  plan.groups[1].before_boot[1].direction = "PrimaryToRecovery";
  put();
  auto id = start(full_request());
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
  EXPECT_EQ(world.count("command home"), 1);
  EXPECT_EQ(world.count("command away"), 0);
  EXPECT_EQ(world.count("command always"), 1);
}

TEST_F(PlanTest, OneItemsFailureStopsLaterGroupsAndOnlyItIsRetried) {
  put();
  auto id = start(full_request());
  world.fail = {{"start hv1", 1}};  // the first to start is the database
  ASSERT_TRUE(run_until_job(id, JobState::failed)) << errors_of(id);
  EXPECT_EQ(state("db"), ItemState::planned_failover_failed);
  EXPECT_EQ(world.count("start hv1"), 0) << "the web group must not start";
  EXPECT_NE(errors_of(id).find("control.item_failed"), std::string::npos);
  const int shutdowns = world.count("shutdown");
  auto child =
      service->list_jobs({{JobState::failed}, {JobKind::planned_failover}, "db", "", 0, 0, false}).value().at(0).id;
  ASSERT_TRUE(service->restart_job(kAdmin, child));
  ASSERT_TRUE(service->restart_job(kAdmin, id));
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
  EXPECT_EQ(world.count("shutdown"), shutdowns);
  EXPECT_EQ(job(id).children.size(), 3u);
}

TEST_F(PlanTest, RestartOfThePlanRestartsItsFailedItems) {
  put();
  auto id = start(full_request());
  world.fail = {{"start hv1", 1}};
  ASSERT_TRUE(run_until_job(id, JobState::failed));
  ASSERT_TRUE(service->restart_job(kAdmin, id));
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
  EXPECT_TRUE(all_in(ItemState::planned_failover_commit_pending));
}

TEST_F(PlanTest, AFailingCommandFailsThePlanAndIsTriedAgainByRestart) {
  plan.groups[1].before_boot = {command("dns")};
  put();
  failing_commands = {"dns"};
  auto id = start(full_request());
  ASSERT_TRUE(run_until_job(id, JobState::failed));
  EXPECT_NE(errors_of(id).find("control.action_failed"), std::string::npos);
  EXPECT_EQ(state("db"), ItemState::planned_failover_commit_pending);
  failing_commands.clear();
  ASSERT_TRUE(service->restart_job(kAdmin, id));
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
}

TEST_F(PlanTest, CancelBringsEveryItemBackThatHasNotStarted) {
  put();
  auto id = start();
  ASSERT_TRUE(run_until_job(id, JobState::suspended));
  ASSERT_TRUE(service->cancel_job(kAdmin, id));
  ASSERT_TRUE(run_until_job(id, JobState::cancelled)) << errors_of(id);
  ASSERT_TRUE(run_until([&] { return all_in(ItemState::failover_committed); }));
  for (const char* name : {"db", "web1", "web2"}) {
    EXPECT_EQ(world.vm("", name).power, PowerState::running);
    EXPECT_EQ(world.disk("hv1", std::string(name) + "-os").content, "old os");
  }
}

TEST_F(PlanTest, PlansAreCheckedAndHeldByTheirJob) {
  plan.groups[1].items.push_back("db");
  EXPECT_EQ(service->put_plan(kAdmin, plan).error(), make_error_code(ControlErrc::invalid));
  plan.groups[1].items.back() = "nobody";
  EXPECT_EQ(service->put_plan(kAdmin, plan).error(), make_error_code(ControlErrc::invalid));
  plan.groups[1].items.pop_back();
  put();
  EXPECT_EQ(service->allowed_plan_operations(plan).value(), (std::vector<std::string_view>{"PlannedFailover"}));
  EXPECT_EQ(service->plan_commit(kAdmin, "shop").error(), make_error_code(ControlErrc::forbidden_in_phase));
  EXPECT_EQ(service->remove_item(kAdmin, "db").error(), make_error_code(ControlErrc::conflict));
  auto id = start();
  EXPECT_EQ(service->put_plan(kAdmin, plan).error(), make_error_code(ControlErrc::forbidden_in_phase));
  EXPECT_EQ(service->remove_plan(kAdmin, "shop").error(), make_error_code(ControlErrc::forbidden_in_phase));
  EXPECT_EQ(service->plan_planned_failover(kAdmin, "shop", {}).error(),
            make_error_code(ControlErrc::forbidden_in_phase));
  ASSERT_TRUE(service->cancel_job(kAdmin, id));
  ASSERT_TRUE(run_until_job(id, JobState::cancelled));
  EXPECT_TRUE(service->remove_plan(kAdmin, "shop"));
}

TEST_F(PlanTest, SurvivesACrashAtEveryOutsideAction) {
  for (bool after : {false, true}) {
    for (int n = 1;; ++n) {
      SCOPED_TRACE((after ? "after action " : "before action ") + std::to_string(n));
      Bench bench;
      for (const char* id : {"db", "web1"}) bench.add_item(make_item(id));
      RecoveryPlan small;
      small.id = "shop";
      small.groups = {{"database", {"db"}, {}, {}, {}, {command("check")}}, {"web", {"web1"}, {}, {}, {}, {}}};
      ASSERT_TRUE(bench.service->put_plan(kAdmin, small));
      auto id = bench.service->plan_planned_failover(kAdmin, "shop", full_request()).value();
      bench.world.crash_at = bench.world.actions + n;
      bench.world.crash_after = after;
      ASSERT_TRUE(bench.run_until_job(id, JobState::succeeded)) << bench.errors_of(id);
      EXPECT_EQ(bench.job(id).children.size(), 2u);
      for (const char* name : {"db", "web1"}) {
        EXPECT_EQ(bench.world.vm("hv1", name).power, PowerState::running);
        EXPECT_EQ(bench.world.disk("hv1", std::string(name) + "-os").content, "new os");
      }
      if (bench.crashes == 0) break;
    }
  }
}

}  // namespace
}  // namespace backhaul
