// What a peer says of itself in a job's step.
#include <gtest/gtest.h>

#include "tests/unit/control/bench.h"

namespace backhaul {
namespace {

using namespace fake;

struct PeerError : ::testing::Test, Bench {
  void SetUp() override { add_item(make_item("web")); }
  void fail(const std::string& action, const char* symbol) {
    world.fail = {{action, -1}};
    world.fail_with = Error::from_peer(symbol, "the agent says so", "", Retry::no);
  }
};

// Else the job would look for its own cancel, find none, and begin again without end.
TEST_F(PeerError, ThatSpeaksOfACancelIsNotOursAndFailsTheJob) {
  fail("snapshot", "base.cancelled");
  const auto id = service->planned_failover(kAdmin, "web", {}).value();
  ASSERT_TRUE(run_until_job(id, JobState::failed));
  EXPECT_EQ(job(id).errors.back().code, "base.cancelled");
}

TEST_F(PeerError, OfItsStoreIsNotOursAndFailsTheJob) {
  fail("shutdown", "control.store_failed");
  const auto id = service->planned_failover(kAdmin, "web", full_request()).value();
  ASSERT_TRUE(run_until_job(id, JobState::failed));
}

// A transfer's base is judged by the error's code, whoever gives it.
TEST_F(PeerError, OfABaseThatIsNotThereMakesTheNextRoundCompareEverything) {
  const auto id = service->planned_failover(kAdmin, "web", {}).value();
  ASSERT_TRUE(run_until_job(id, JobState::suspended));
  ASSERT_FALSE(job(id).round.base_token.empty());
  fail("round", "target.no_base");
  world.fail.begin()->second = 1;
  ASSERT_TRUE(service->resume_job(kAdmin, id));
  ASSERT_TRUE(run_until_job(id, JobState::failed));
  EXPECT_TRUE(job(id).round.base_token.empty());
}

}  // namespace
}  // namespace backhaul
