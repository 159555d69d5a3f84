// A crash at every outside action of a whole circle, before it happened (intent recorded, nothing done) and after
// (done, outcome not recorded); the appliance starts again on the same store and the circle goes on to the same end.
#include <gtest/gtest.h>

#include "tests/unit/control/bench.h"

namespace backhaul {
namespace {

using namespace fake;

struct CrashAt {
  int action = 0;
  bool after = false;
};

// Verbs may be the first to meet the crash; the caller then says them again, as an operator would.
template <class Verb>
auto say(Bench& bench, Verb verb) {
  for (;;) {
    try {
      return verb();
    } catch (const Crash&) {
      ++bench.crashes;
      bench.open();
    }
  }
}

void run(Bench& bench, const std::string& id) {
  ASSERT_TRUE(bench.run_until_job(id, JobState::succeeded)) << to_string(bench.job(id).state) << "\n"
                                                            << bench.errors_of(id);
}

// Failback, commit, re-protect with a cycle, failover to the recovery site, commit.
void run_circle(Bench& bench, DataSync sync) {
  FakeWorld& world = bench.world;
  PlannedFailoverRequest request;
  request.data_sync = sync;
  auto id = say(bench, [&] { return bench.service->planned_failover(kAdmin, "web", request).value(); });
  if (sync == DataSync::for_down_time) {
    ASSERT_TRUE(bench.run_until_job(id, JobState::suspended)) << bench.errors_of(id);
    world.write("", "web", "/r/web-os", "+1");
    bench.run_until([] { return false; }, 100);
    world.write("", "web", "/r/web-data", "+2");
    ASSERT_TRUE(bench.service->resume_job(kAdmin, id));
  }
  run(bench, id);
  const std::string os = sync == DataSync::for_down_time ? "new os+1" : "new os";
  const std::string data = sync == DataSync::for_down_time ? "new data+2" : "new data";
  ASSERT_EQ(world.disk("hv1", "web-os").content, os);
  ASSERT_EQ(world.disk("hv1", "web-data").content, data);
  ASSERT_EQ(world.vm("hv1", "web").power, PowerState::running);
  ASSERT_EQ(world.vm("", "web").power, PowerState::off);

  run(bench, say(bench, [&] { return bench.service->failover_commit(kAdmin, "web").value(); }));
  ASSERT_EQ(world.vm("", "web").power, PowerState::absent);
  world.write("hv1", "web", "web-os", "+3");
  run(bench, say(bench, [&] { return bench.service->reprotect(kAdmin, "web").value(); }));
  world.write("hv1", "web", "web-os", "+4");
  bench.run_until([] { return false; }, 400);
  ASSERT_EQ(world.disk("", "/r/web-os").content, os + "+3+4");
  world.write("hv1", "web", "web-os", "+5");
  request.create_vm_if_not_found = true;
  run(bench, say(bench, [&] { return bench.service->planned_failover(kAdmin, "web", request).value(); }));
  ASSERT_EQ(world.disk("", "/r/web-os").content, os + "+3+4+5");
  ASSERT_EQ(world.vm("", "web").power, PowerState::running);
  ASSERT_EQ(world.vm("hv1", "web").power, PowerState::off);
  run(bench, say(bench, [&] { return bench.service->failover_commit(kAdmin, "web").value(); }));
  ASSERT_EQ(bench.state("web"), ItemState::failover_committed);
  EXPECT_TRUE(world.snapshots.empty());
  EXPECT_TRUE(world.rounds.empty());
  EXPECT_EQ(bench.item("web").current_job, "");
}

class CrashEverywhere : public ::testing::TestWithParam<std::tuple<DataSync, bool>> {};

TEST_P(CrashEverywhere, TheCircleEndsTheSame) {
  const auto [sync, after] = GetParam();
  int crashes = 0;
  for (int n = 1;; ++n) {
    SCOPED_TRACE("action " + std::to_string(n));
    Bench bench;
    bench.add_item(make_item("web"));
    bench.world.crash_at = n;
    bench.world.crash_after = after;
    run_circle(bench, sync);
    if (HasFatalFailure()) return;
    if (bench.crashes == 0) break;  // past the last action
    crashes += static_cast<int>(bench.crashes);
  }
  EXPECT_GT(crashes, 30);
}

INSTANTIATE_TEST_SUITE_P(All, CrashEverywhere,
                         ::testing::Combine(::testing::Values(DataSync::for_down_time, DataSync::for_synchronization),
                                            ::testing::Bool()));

// The way back, with a crash at every action of it.
class CrashOnTheWayBack : public ::testing::TestWithParam<std::tuple<TaskKind, bool>> {};

TEST_P(CrashOnTheWayBack, CancelAndUndoEndTheSame) {
  const auto [from, after] = GetParam();
  int crashes = 0;
  for (int n = 1;; ++n) {
    SCOPED_TRACE("action " + std::to_string(n));
    Bench bench;
    bench.add_item(make_item("web"));
    auto id = bench.service->planned_failover(kAdmin, "web", full_request()).value();
    std::string undo;
    if (from == TaskKind::full_download) {  // cancel in the middle of the transfers
      bench.world.polls_of_a_round = 1000;
      ASSERT_TRUE(bench.run_until([&] { return bench.world.rounds.size() == 2; }));
      bench.world.crash_at = bench.world.actions + n;
      bench.world.crash_after = after;
      ASSERT_TRUE(bench.service->cancel_job(kAdmin, id));
    } else {  // undo of a failover that succeeded
      ASSERT_TRUE(bench.run_until_job(id, JobState::succeeded));
      bench.world.crash_at = bench.world.actions + n;
      bench.world.crash_after = after;
      undo = bench.service->failover_cancel(kAdmin, "web").value();
    }
    const std::string& last = undo.empty() ? id : undo;
    ASSERT_TRUE(bench.run_until_ended(last));
    ASSERT_EQ(bench.job(last).state, undo.empty() ? JobState::cancelled : JobState::succeeded) << bench.errors_of(last);
    EXPECT_EQ(bench.world.vm("", "web").power, PowerState::running);
    EXPECT_NE(bench.world.vm("hv1", "web").power, PowerState::running);
    EXPECT_EQ(bench.world.disk("", "/r/web-os").content, "new os");
    if (undo.empty()) {
      EXPECT_EQ(bench.world.disk("hv1", "web-os").content, "old os");
      EXPECT_EQ(bench.world.disk("hv1", "web-data").content, "old data");
    }
    EXPECT_FALSE(bench.world.disk("hv1", "web-os").has_staged);
    EXPECT_TRUE(bench.world.snapshots.empty());
    EXPECT_EQ(bench.state("web"), ItemState::failover_committed);
    if (bench.crashes == 0) break;
    crashes += static_cast<int>(bench.crashes);
  }
  EXPECT_GE(crashes, 4);
}

INSTANTIATE_TEST_SUITE_P(All, CrashOnTheWayBack,
                         ::testing::Combine(::testing::Values(TaskKind::full_download, TaskKind::start_target),
                                            ::testing::Bool()));

// Which of a crashed start's two worlds it was is not known; a cancel is refused in both, undo works in both.
TEST(CrashAtTheStart, LeavesUndoOpenAndCancelClosed) {
  for (bool after : {false, true}) {
    int crashed_in_start = 0;
    for (int n = 1;; ++n) {
      Bench bench;
      bench.add_item(make_item("web"));
      auto id = bench.service->planned_failover(kAdmin, "web", full_request()).value();
      bench.world.crash_at = n;
      bench.world.crash_after = after;
      ASSERT_TRUE(bench.run_until([&] { return bench.crashes != 0 || has_ended(bench.job(id).state); }));
      if (bench.crashes == 0) break;
      const Job job = bench.job(id);
      if (job.task() == TaskKind::start_target && !has_ended(job.state)) {
        ++crashed_in_start;
        auto cancel = bench.service->cancel_job(kAdmin, id);
        ASSERT_FALSE(cancel);
        EXPECT_EQ(cancel.error(), make_error_code(ControlErrc::forbidden_in_phase));
        EXPECT_TRUE(allowed_actions(job).empty());
      }
      ASSERT_TRUE(bench.run_until_job(id, JobState::succeeded)) << bench.errors_of(id);
      auto undo = bench.service->failover_cancel(kAdmin, "web");
      ASSERT_TRUE(undo);
      ASSERT_TRUE(bench.run_until_job(*undo, JobState::succeeded));
      EXPECT_EQ(bench.world.vm("", "web").power, PowerState::running);
    }
    EXPECT_GE(crashed_in_start, 3) << "start, and the release of two disks";
  }
}

}  // namespace
}  // namespace backhaul
