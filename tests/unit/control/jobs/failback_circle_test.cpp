// The whole circle: home, protected, out again; alternate hosts, and cancels on each way.
#include "tests/unit/control/jobs/failback_fixture.h"

namespace backhaul {
namespace {

using namespace fake;

struct FailbackCircle : Failback {};

TEST_F(FailbackCircle, TheWholeCircleClosesAndCyclesKeepTheLagSmall) {
  ASSERT_TRUE(run_until_job(start(at_once()), JobState::succeeded));
  ASSERT_TRUE(run_until_job(service->failover_commit(kAdmin, "web").value(), JobState::succeeded));
  world.write("hv1", "web", "web-os", " at home");
  auto reprotect = service->reprotect(kAdmin, "web");
  ASSERT_TRUE(reprotect);
  ASSERT_TRUE(run_until_job(*reprotect, JobState::succeeded)) << errors_of(*reprotect);
  EXPECT_EQ(state("web"), ItemState::protected_);
  EXPECT_EQ(world.disk("", "/r/web-os").content, "new os at home");
  EXPECT_TRUE(world.requests.back().changed) << "tracked from the start at home: no scan";
  EXPECT_FALSE(world.requests.back().base_root.empty()) << "and what the kept disk is, is proven";
  EXPECT_EQ(item("web").start_token, "");
  EXPECT_TRUE(item("web").start_roots.empty());

  world.write("hv1", "web", "web-os", " later");
  run_until([] { return false; }, 700);
  EXPECT_EQ(world.disk("", "/r/web-os").content, "new os at home later");
  EXPECT_LE(world.clock.unix_time_s() - item("web").protected_until_unix_s, 310);
  EXPECT_TRUE(world.requests.back().changed) << "a cycle sends only changes";
  EXPECT_TRUE(world.requests.back().base_root.empty()) << "since the cycle before";
  EXPECT_FALSE(world.disk("", "/r/web-os").swapped);

  PlannedFailoverRequest there;
  there.direction = Direction::primary_to_recovery;
  there.create_vm_if_not_found = true;
  world.write("hv1", "web", "web-os", " last");
  auto out = service->planned_failover(kAdmin, "web", there);
  ASSERT_TRUE(out) << out.error().to_string();
  ASSERT_TRUE(run_until_job(*out, JobState::succeeded)) << errors_of(*out);
  EXPECT_EQ(world.vm("", "web").power, PowerState::running);
  EXPECT_EQ(world.vm("hv1", "web").power, PowerState::off);
  EXPECT_EQ(world.disk("", "/r/web-os").content, "new os at home later last");
  ASSERT_TRUE(run_until_job(service->failover_commit(kAdmin, "web").value(), JobState::succeeded));
  EXPECT_EQ(world.vm("hv1", "web").power, PowerState::off) << "the primary VM stays";
  EXPECT_EQ(state("web"), ItemState::failover_committed);
  world.write("", "web", "/r/web-os", " away");
  const auto before = world.requests.size();
  auto home = start();
  ASSERT_TRUE(run_until_job(home, JobState::suspended)) << errors_of(home);
  EXPECT_TRUE(world.requests[before].changed) << "tracked from the start at the recovery site";
  EXPECT_FALSE(world.requests[before].base_root.empty());
  ASSERT_TRUE(service->resume_job(kAdmin, home));
  ASSERT_TRUE(run_until_job(home, JobState::succeeded)) << errors_of(home);
  EXPECT_EQ(world.disk("hv1", "web-os").content, "new os at home later last away");
}

TEST_F(FailbackCircle, ACycleThatFailsIsShownAndTriedAgain) {
  ASSERT_TRUE(run_until_job(start(full_request()), JobState::succeeded));
  ASSERT_TRUE(run_until_job(service->failover_commit(kAdmin, "web").value(), JobState::succeeded));
  ASSERT_TRUE(run_until_job(service->reprotect(kAdmin, "web").value(), JobState::succeeded));
  world.fail = {{"transfer", 4}};
  ASSERT_TRUE(run_until([&] { return !item("web").last_error.empty(); }));
  EXPECT_EQ(state("web"), ItemState::protected_);
  ASSERT_TRUE(run_until([&] { return item("web").last_error.empty(); }));
  ASSERT_TRUE(service->remove_item(kAdmin, "web"));
  ASSERT_TRUE(run_until([&] { return !service->get_item("web"); }));
}

TEST_F(FailbackCircle, AnAlternateHostGetsTheVmCreated) {
  PlannedFailoverRequest request = full_request();
  request.alternate_host = "hv2";
  auto refused = service->planned_failover(kAdmin, "web", request);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error(), make_error_code(ControlErrc::invalid));
  request.create_vm_if_not_found = true;
  auto id = start(request);
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
  EXPECT_EQ(world.vm("hv2", "web").power, PowerState::running);
  EXPECT_EQ(world.disk("hv2", "web-os").content, "new os");
  EXPECT_EQ(world.disk("hv1", "web-os").content, "old os");
  EXPECT_EQ(item("web").primary.host, "hv2");
}

TEST_F(FailbackCircle, UndoOfAnAlternateLocationGivesTheItemItsOwnPrimaryBack) {
  PlannedFailoverRequest request = full_request();
  request.alternate_host = "hv2";
  request.create_vm_if_not_found = true;
  ASSERT_TRUE(run_until_job(start(request), JobState::succeeded));
  auto undo = service->failover_cancel(kAdmin, "web");
  ASSERT_TRUE(undo);
  ASSERT_TRUE(run_until_job(*undo, JobState::succeeded)) << errors_of(*undo);
  EXPECT_EQ(item("web").primary.host, "hv1");
  expect_untouched();
}

TEST_F(FailbackCircle, CancelOnTheWayToTheRecoverySiteLeadsBackToProtected) {
  ASSERT_TRUE(run_until_job(start(full_request()), JobState::succeeded));
  ASSERT_TRUE(run_until_job(service->failover_commit(kAdmin, "web").value(), JobState::succeeded));
  ASSERT_TRUE(run_until_job(service->reprotect(kAdmin, "web").value(), JobState::succeeded));
  world.polls_of_a_round = 1'000'000;
  auto id = service->planned_failover(kAdmin, "web", {}).value();
  ASSERT_TRUE(run_until([&] { return job(id).target_touched; })) << errors_of(id);
  ASSERT_TRUE(service->cancel_job(kAdmin, id));
  ASSERT_TRUE(run_until_job(id, JobState::cancelled)) << errors_of(id);
  EXPECT_EQ(state("web"), ItemState::protected_);
  EXPECT_EQ(world.vm("hv1", "web").power, PowerState::running);
  EXPECT_EQ(world.disk("", "/r/web-os").content, "new os");
  world.polls_of_a_round = 1;
  world.write("hv1", "web", "web-os", " more");
  ASSERT_TRUE(run_until([&] { return world.disk("", "/r/web-os").content == "new os more"; }, 700)) << "cycles go on";

  auto out = service->planned_failover(kAdmin, "web", {}).value();
  ASSERT_TRUE(run_until_job(out, JobState::succeeded)) << errors_of(out);
  auto undo = service->failover_cancel(kAdmin, "web").value();
  ASSERT_TRUE(run_until_job(undo, JobState::succeeded)) << errors_of(undo);
  EXPECT_EQ(state("web"), ItemState::protected_);
  EXPECT_EQ(world.vm("hv1", "web").power, PowerState::running);
  EXPECT_EQ(world.vm("", "web").power, PowerState::off);
}

TEST_F(FailbackCircle, CancelOfTheFirstReplicationKeepsTheBaseAsItWas) {
  ASSERT_TRUE(run_until_job(start(full_request()), JobState::succeeded));
  ASSERT_TRUE(run_until_job(service->failover_commit(kAdmin, "web").value(), JobState::succeeded));
  world.write("hv1", "web", "web-os", " more");
  world.polls_of_a_round = 1'000'000;
  auto id = service->reprotect(kAdmin, "web").value();
  ASSERT_TRUE(run_until([&] { return world.rounds.size() == 2; })) << errors_of(id);
  ASSERT_TRUE(service->cancel_job(kAdmin, id));
  ASSERT_TRUE(run_until_job(id, JobState::cancelled)) << errors_of(id);
  EXPECT_EQ(state("web"), ItemState::planned_failover_committed);
  EXPECT_EQ(world.disk("", "/r/web-os").content, "new os");
  EXPECT_TRUE(world.snapshots.empty());
  world.polls_of_a_round = 1;
  id = service->reprotect(kAdmin, "web").value();
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
  EXPECT_FALSE(world.requests.back().changed) << "the trackers were forgotten with the cancel";
  EXPECT_EQ(world.disk("", "/r/web-os").content, "new os more");
}

TEST_F(FailbackCircle, OfTheStartTheCancelIsRefused) {
  auto id = start(full_request());
  world.crash_at = 0;
  bool seen = false;
  // The start itself takes time; a cancel then comes too late.
  auto listener = service->subscribe([&](const Event& event) { seen = seen || event.kind == "job"; });
  ASSERT_TRUE(run_until_job(id, JobState::succeeded));
  service->unsubscribe(listener);
  EXPECT_TRUE(seen);
  auto late = service->cancel_job(kAdmin, id);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error(), make_error_code(ControlErrc::forbidden_in_phase));
}

}  // namespace
}  // namespace backhaul
