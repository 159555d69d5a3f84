// Whole failbacks through the service, over fakes and a fake clock.
#include <gtest/gtest.h>

#include "control/jobs/estimate.h"
#include "tests/unit/control/jobs/failback_fixture.h"

namespace backhaul {
namespace {

using namespace fake;

TEST_F(Failback, ForDownTimeWaitsForCompleteFailoverAndLosesNothing) {
  auto id = start();
  ASSERT_TRUE(run_until_job(id, JobState::suspended)) << errors_of(id);
  EXPECT_EQ(allowed_actions(job(id)), (std::vector<std::string_view>{"Resume", "Cancel"}));
  EXPECT_EQ(world.vm("", "web").power, PowerState::running);
  EXPECT_EQ(state("web"), ItemState::planned_failover_in_progress);
  world.write("", "web", "/r/web-os", " + late write");
  ASSERT_TRUE(service->resume_job(kAdmin, id));
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
  expect_at_home();
  EXPECT_EQ(world.disk("hv1", "web-os").content, "new os + late write");
  EXPECT_EQ(state("web"), ItemState::planned_failover_commit_pending);
  const Job done = job(id);
  EXPECT_EQ(done.direction, Direction::recovery_to_primary);
  EXPECT_FALSE(done.round.disks[0].stats.root_digest_source.empty());
  EXPECT_EQ(done.round.disks[0].stats.root_digest_source, done.round.disks[0].stats.root_digest_target);
  EXPECT_GE(done.downtime_s, 5);
  for (const auto& task : done.tasks) EXPECT_EQ(task.state, TaskState::succeeded) << to_string(task.kind);
}

TEST_F(Failback, DeltaRoundsGoOnWhileItWaitsAndCarryTheTrackersHint) {
  auto id = start();
  ASSERT_TRUE(run_until_job(id, JobState::suspended));
  const auto first = job(id).round.number;
  run_until([] { return false; }, 300);
  EXPECT_EQ(job(id).state, JobState::suspended);
  EXPECT_GE(job(id).round.number, first + 4);
  EXPECT_LE(job(id).round.number, first + 6);
  EXPECT_EQ(job(id).next_delta_bytes, 1000u);
  EXPECT_GT(job(id).projected_downtime_s, 0);
  EXPECT_FALSE(world.requests.front().changed) << "the first round has no base";
  EXPECT_TRUE(world.requests.back().changed);
}

TEST_F(Failback, ALostTrackerFallsBackToDigests) {
  auto id = start();
  ASSERT_TRUE(run_until_job(id, JobState::suspended));
  world.tracker_lost = true;
  ASSERT_TRUE(service->resume_job(kAdmin, id));
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
  EXPECT_FALSE(world.requests.back().changed);
  expect_at_home();
}

TEST_F(Failback, AResumeDuringARoundWaitsForItAndIsNotLost) {
  auto id = start();
  ASSERT_TRUE(run_until_job(id, JobState::suspended));
  world.polls_of_a_round = 1000;
  ASSERT_TRUE(run_until([&] { return job(id).round.open; }));
  ASSERT_TRUE(service->resume_job(kAdmin, id));
  EXPECT_EQ(job(id).state, JobState::in_progress);
  const auto again = service->resume_job(kAdmin, id);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error(), make_error_code(ControlErrc::forbidden_in_phase));
  open();  // not even by a restart of the appliance
  world.polls_of_a_round = 2;
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
  expect_at_home();
}

TEST_F(Failback, AResumeBeforeTheFirstRoundIsDoneIsKept) {
  world.polls_of_a_round = 50;
  auto id = start();
  ASSERT_TRUE(run_until_task(id, TaskKind::replicate));
  ASSERT_TRUE(service->resume_job(kAdmin, id));
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
  expect_at_home();
}

TEST_F(Failback, ForSynchronizationShutsDownFirstAndUsesNoDigests) {
  auto id = start(full_request());
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
  expect_at_home();
  for (const auto& request : world.requests) {
    EXPECT_EQ(request.sync, DataSync::for_synchronization);
    EXPECT_EQ(request.verify, VerifyMode::none);
    EXPECT_FALSE(request.changed);
  }
  EXPECT_EQ(world.log[0].substr(0, 8), "shutdown");
}

TEST_F(Failback, CompletesByItselfWhenTheProjectedDowntimeFitsTheBudget) {
  PlannedFailoverRequest request;
  request.complete.mode = CompleteMode::automatic;
  request.complete.downtime_budget_s = 70;
  world.dirty_bytes = 100'000'000'000;  // 1000 s at the assumed rate
  auto id = start(request);
  ASSERT_TRUE(run_until_job(id, JobState::suspended));
  run_until([] { return false; }, 600);
  EXPECT_EQ(job(id).state, JobState::suspended);
  world.dirty_bytes = 1000;
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
}

TEST_F(Failback, AScheduledCompleteHappensAtItsTime) {
  PlannedFailoverRequest request;
  request.complete.mode = CompleteMode::scheduled;
  request.complete.at_unix_s = world.clock.unix_time_s() + 600;
  auto id = start(request);
  ASSERT_TRUE(run_until_job(id, JobState::suspended));
  ASSERT_TRUE(run_until_job(id, JobState::succeeded));
  EXPECT_GE(job(id).source_down_unix_s, request.complete.at_unix_s);
  EXPECT_LE(job(id).source_down_unix_s, request.complete.at_unix_s + 10);
}

TEST_F(Failback, CancelGivesTheOldDisksBackInEveryTaskBeforeTheStart) {
  for (auto sync : {DataSync::for_down_time, DataSync::for_synchronization}) {
    for (TaskKind task : tasks_of(JobKind::planned_failover, sync)) {
      if (task == TaskKind::start_target) continue;
      // The appliance is killed before its n-th outside action, for every n; where that leaves the job in this task,
      // the cancel is said.
      SCOPED_TRACE(std::string(to_string(sync)) + " " + std::string(to_string(task)));
      PlannedFailoverRequest request;
      request.data_sync = sync;
      request.complete.mode = task == TaskKind::wait_for_complete ? CompleteMode::manual : CompleteMode::automatic;
      bool said = false;
      for (int n = 1; n < 200; ++n) {
        Bench probe;
        probe.add_item(make_item("web"));
        probe.world.polls_of_a_round = 3;
        probe.world.crash_at = n;
        auto probe_id = probe.service->planned_failover(kAdmin, "web", request).value();
        try {
          while (!has_ended(probe.job(probe_id).state)) {
            auto next = probe.service->runner().run_ready();
            if (probe.job(probe_id).state == JobState::suspended && request.complete.mode == CompleteMode::manual)
              break;  // it waits: the cancel is said here
            if (next == Clock::Duration::max()) break;
            probe.world.clock.sleep_for(
                std::max<Clock::Duration>(next - probe.world.clock.now(), std::chrono::milliseconds(1)));
          }
        } catch (const Crash&) {
        }
        if (has_ended(probe.job(probe_id).state)) break;  // past its last action
        if (probe.job(probe_id).task() != task) continue;
        if (std::exchange(said, true) && task == TaskKind::wait_for_complete) break;
        probe.world.crash_at = 0;
        probe.open();
        const bool was_down = probe.job(probe_id).source_shut_down;
        auto cancelled = probe.service->cancel_job(kAdmin, probe_id);
        ASSERT_TRUE(cancelled) << cancelled.error().to_string();
        ASSERT_TRUE(probe.run_until_job(probe_id, JobState::cancelled)) << probe.errors_of(probe_id);
        EXPECT_EQ(probe.world.disk("hv1", "web-os").content, "old os");
        EXPECT_EQ(probe.world.disk("hv1", "web-data").content, "old data");
        EXPECT_FALSE(probe.world.disk("hv1", "web-os").has_staged);
        EXPECT_EQ(probe.world.vm("", "web").power, PowerState::running) << was_down;
        EXPECT_EQ(probe.state("web"), ItemState::failover_committed);
        EXPECT_TRUE(probe.world.snapshots.empty());
      }
      EXPECT_TRUE(said || task == TaskKind::prepare_failover) << "never seen in this task";
    }
  }
}

TEST_F(Failback, CancelDuringATransferStopsItAtOnce) {
  world.polls_of_a_round = 1'000'000;
  auto id = start();
  ASSERT_TRUE(run_until([&] { return world.rounds.size() == 2; }));
  ASSERT_TRUE(service->cancel_job(kAdmin, id));
  ASSERT_TRUE(service->cancel_job(kAdmin, id)) << "said twice is said once";
  ASSERT_TRUE(run_until_job(id, JobState::cancelled));
  EXPECT_EQ(world.count("cancel-round"), 2);
  expect_untouched();
  EXPECT_EQ(world.count("shutdown"), 0);
}

TEST_F(Failback, CancelRightAfterTheVerbEndsBeforeAnythingHappens) {
  auto id = start();
  ASSERT_TRUE(service->cancel_job(kAdmin, id));
  ASSERT_TRUE(run_until_job(id, JobState::cancelled));
  expect_untouched();
  EXPECT_EQ(world.count("snapshot"), 0);
}

TEST_F(Failback, ASourceThatWasOffBeforeIsNotStartedByACancel) {
  world.vm("", "web").power = PowerState::off;
  world.polls_of_a_round = 1'000'000;
  auto id = start(full_request());
  ASSERT_TRUE(run_until([&] { return world.rounds.size() == 2; }));
  ASSERT_TRUE(service->cancel_job(kAdmin, id));
  ASSERT_TRUE(run_until_job(id, JobState::cancelled));
  expect_untouched(false);
}

TEST_F(Failback, ARefusedShutdownFailsTheJobAndForceIsUsedOnlyWhenAllowed) {
  world.ignores_shutdown = true;
  auto id = start(full_request());
  ASSERT_TRUE(run_until_job(id, JobState::failed));
  EXPECT_EQ(job(id).errors.back().code, "control.shutdown_refused");
  EXPECT_FALSE(job(id).errors.back().fix.empty());
  EXPECT_EQ(world.vm("", "web").power, PowerState::running);
  EXPECT_EQ(state("web"), ItemState::planned_failover_failed);
  auto undo = service->failover_cancel(kAdmin, "web");
  ASSERT_TRUE(undo);
  ASSERT_TRUE(run_until_job(*undo, JobState::succeeded));
  expect_untouched();

  auto request = full_request();
  request.allow_forced_shutdown = true;
  id = start(request);
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
  EXPECT_NE(job(id).tasks[1].detail.find("forced"), std::string::npos);
}

TEST_F(Failback, APassingFaultIsRetriedAndAFailedJobRestartsAtItsTask) {
  world.fail_retry = Retry::later;
  world.fail = {{"transfer", 3}};
  auto id = start();
  ASSERT_TRUE(run_until_job(id, JobState::suspended)) << errors_of(id);
  EXPECT_FALSE(job(id).errors.empty());
  world.fail_retry = Retry::no;
  world.fail = {{"swap", 1}};
  ASSERT_TRUE(service->resume_job(kAdmin, id));
  ASSERT_TRUE(run_until_job(id, JobState::failed));
  EXPECT_EQ(job(id).task(), TaskKind::swap_disks);
  EXPECT_EQ(allowed_actions(job(id)), (std::vector<std::string_view>{"Restart"}));
  const int shutdowns = world.count("shutdown");
  ASSERT_TRUE(service->restart_job(kAdmin, id));
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
  EXPECT_EQ(world.count("shutdown"), shutdowns) << "what was done is not done again";
  expect_at_home();
}

TEST_F(Failback, AFailedDeltaRoundDoesNotFailAWaitingJob) {
  auto id = start();
  ASSERT_TRUE(run_until_job(id, JobState::suspended));
  world.fail = {{"transfer", -1}};
  run_until([] { return false; }, 600);
  EXPECT_EQ(job(id).state, JobState::suspended);
  EXPECT_FALSE(job(id).errors.empty());
  world.fail.clear();
  ASSERT_TRUE(service->resume_job(kAdmin, id));
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
  expect_at_home();
}

TEST_F(Failback, ATargetThatDoesNotStartCanBeUndone) {
  world.fail = {{"start hv1", 1}};
  auto id = start(full_request());
  ASSERT_TRUE(run_until_job(id, JobState::failed));
  EXPECT_FALSE(service->cancel_job(kAdmin, id)) << "a failed job is cancelled by the item's failoverCancel";
  auto undo = service->failover_cancel(kAdmin, "web");
  ASSERT_TRUE(undo) << undo.error().to_string();
  ASSERT_TRUE(run_until_job(*undo, JobState::succeeded)) << errors_of(*undo);
  expect_untouched();
}

TEST_F(Failback, UndoUntilCommitStartsTheRecoveryVmAgainAndARetryIsADelta) {
  auto id = start(full_request());
  ASSERT_TRUE(run_until_job(id, JobState::succeeded));
  world.write("hv1", "web", "web-os", " scribble");
  auto undo = service->failover_cancel(kAdmin, "web");
  ASSERT_TRUE(undo);
  ASSERT_TRUE(run_until_job(*undo, JobState::succeeded)) << errors_of(*undo);
  EXPECT_EQ(world.vm("", "web").power, PowerState::running);
  EXPECT_EQ(world.vm("hv1", "web").power, PowerState::off);
  EXPECT_EQ(world.disk("", "/r/web-os").content, "new os");
  EXPECT_EQ(state("web"), ItemState::failover_committed);
  id = start();
  ASSERT_TRUE(run_until_job(id, JobState::suspended));
  ASSERT_TRUE(service->resume_job(kAdmin, id));
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
  expect_at_home();
}

TEST_F(Failback, CommitDeletesTheRecoveryVmAndKeepsItsDisksUnlessToldTo) {
  ASSERT_TRUE(run_until_job(start(full_request()), JobState::succeeded));
  auto commit = service->failover_commit(kAdmin, "web");
  ASSERT_TRUE(commit);
  ASSERT_TRUE(run_until_job(*commit, JobState::succeeded));
  EXPECT_EQ(world.vm("", "web").power, PowerState::absent);
  EXPECT_TRUE(world.disk("", "/r/web-os").exists);
  EXPECT_EQ(state("web"), ItemState::planned_failover_committed);

  Bench other;
  other.add_item(make_item("web"));
  ASSERT_TRUE(
      other.run_until_job(other.service->planned_failover(kAdmin, "web", full_request()).value(), JobState::succeeded));
  commit = other.service->failover_commit(kAdmin, "web", true);
  ASSERT_TRUE(other.run_until_job(*commit, JobState::succeeded));
  EXPECT_FALSE(other.world.disk("", "/r/web-os").exists);
}

TEST_F(Failback, ACommitThatFailedCanOnlyGoForward) {
  ASSERT_TRUE(run_until_job(start(full_request()), JobState::succeeded));
  world.fail = {{"remove", 1}};
  auto commit = service->failover_commit(kAdmin, "web");
  ASSERT_TRUE(run_until_job(*commit, JobState::failed));
  EXPECT_EQ(state("web"), ItemState::commit_failed);
  EXPECT_FALSE(service->failover_cancel(kAdmin, "web"));
  ASSERT_TRUE(service->restart_job(kAdmin, *commit));
  ASSERT_TRUE(run_until_job(*commit, JobState::succeeded));
}

TEST_F(Failback, TheCommitPolicyCommitsOrUndoesAfterItsMinutes) {
  for (const auto& [mode, healthy, expected] : std::initializer_list<std::tuple<CommitMode, bool, ItemState>>{
           {CommitMode::commit_after, false, ItemState::planned_failover_committed},
           {CommitMode::undo_after, true, ItemState::planned_failover_committed},
           {CommitMode::undo_after, false, ItemState::failover_committed}}) {
    Bench bench;
    Item item = make_item("web");
    item.commit_policy = {mode, 10, true};
    bench.add_item(item);
    bench.world.healthy = healthy;
    auto id = bench.service->planned_failover(kAdmin, "web", full_request()).value();
    ASSERT_TRUE(bench.run_until_job(id, JobState::succeeded));
    const auto ended = bench.job(id).ended_unix_s;
    bench.open();  // the deadline is in the store
    ASSERT_TRUE(bench.run_until([&] { return bench.state("web") == expected; }, 700)) << to_string(bench.state("web"));
    EXPECT_GE(bench.world.clock.unix_time_s(), ended + 600);
    EXPECT_EQ(bench.store->list_audit("item/web", 0, 1).value().front().actor, "policy");
  }
}

}  // namespace
}  // namespace backhaul
