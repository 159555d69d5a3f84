// What the first round after a planned failover begins with: the driver's token since the VM's start, and the proof of
// what it is the difference to.
#include <gtest/gtest.h>

#include "tests/unit/control/bench.h"

namespace backhaul {
namespace {

using namespace fake;

TEST(StartBase, WhatTheTrackerMissedBeforeTheStartIsNotLeftToIt) {
  // ForSynchronization proves nothing; a VM that ran before the start that gave the token has written to its disks.
  for (const bool verified : {false, true}) {
    Bench bench;
    bench.add_item(make_item("web"));
    if (verified) bench.world.fail = {{"start hv1", 1}};
    auto id = bench.service->planned_failover(kAdmin, "web", verified ? at_once() : full_request()).value();
    if (verified) {
      ASSERT_TRUE(bench.run_until_job(id, JobState::failed));
      bench.world.disk("hv1", "web-os").content += " by a start that was not heard of";
      ASSERT_TRUE(bench.service->restart_job(kAdmin, id));
    }
    ASSERT_TRUE(bench.run_until_job(id, JobState::succeeded)) << bench.errors_of(id);
    EXPECT_NE(bench.item("web").start_token, "");
    EXPECT_TRUE(bench.item("web").start_roots.empty());
    ASSERT_TRUE(bench.run_until_job(bench.service->failover_commit(kAdmin, "web").value(), JobState::succeeded));
    bench.world.write("hv1", "web", "web-os", " at home");
    ASSERT_TRUE(bench.run_until_job(bench.service->reprotect(kAdmin, "web").value(), JobState::succeeded));
    EXPECT_FALSE(bench.world.requests.back().changed) << "digests find the changes";
  }
}

TEST(StartBase, AKeptDiskThatIsNotWhatTheVmWasStartedFromIsComparedAsAWhole) {
  Bench bench;
  bench.add_item(make_item("web"));
  ASSERT_TRUE(
      bench.run_until_job(bench.service->planned_failover(kAdmin, "web", at_once()).value(), JobState::succeeded));
  ASSERT_TRUE(bench.run_until_job(bench.service->failover_commit(kAdmin, "web").value(), JobState::succeeded));
  EXPECT_EQ(bench.item("web").start_roots.size(), 2u);
  bench.world.root_differs_once = true;
  const auto before = bench.world.requests.size();
  const auto job = bench.service->reprotect(kAdmin, "web").value();
  ASSERT_TRUE(bench.run_until_job(job, JobState::succeeded)) << bench.errors_of(job);
  EXPECT_TRUE(bench.world.requests[before].changed);
  EXPECT_EQ(bench.world.requests[before].verify, VerifyMode::full) << "it proves that it is the base";
  EXPECT_FALSE(bench.world.requests.back().changed);
  EXPECT_TRUE(bench.world.requests.back().base_root.empty());
}

}  // namespace
}  // namespace backhaul
