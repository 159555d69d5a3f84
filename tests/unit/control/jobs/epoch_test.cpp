// Epochs of an item against what its disks have on record: sends by hand do not lock a job out, and one that takes a
// disk away in the middle stops the job, which can still be restarted or cancelled.
#include <gtest/gtest.h>

#include "tests/unit/control/bench.h"

namespace backhaul {
namespace {

using namespace fake;

struct Epochs : ::testing::Test, Bench {
  void SetUp() override { add_item(make_item("web")); }
  std::string start() {
    auto job_id = service->planned_failover(kAdmin, "web", {});
    EXPECT_TRUE(job_id) << job_id.error().to_string();
    return job_id ? *job_id : "";
  }
};

TEST_F(Epochs, ADiskThatWasSentToByHandBeforeDoesNotRefuseTheJob) {
  world.disk("hv1", "web-os").epoch = 500;
  auto id = start();
  ASSERT_TRUE(run_until_job(id, JobState::suspended)) << errors_of(id);
  EXPECT_GT(world.disk("hv1", "web-os").epoch, 500u);
}

TEST_F(Epochs, ADiskThatIsTakenAwayInTheMiddleFailsTheJobAndARestartTakesItBack) {
  auto id = start();
  ASSERT_TRUE(run_until_job(id, JobState::suspended)) << errors_of(id);
  world.disk("hv1", "web-os").epoch = 500;
  ASSERT_TRUE(service->resume_job(kAdmin, id));
  ASSERT_TRUE(run_until_job(id, JobState::failed)) << "a newer run must fence the job";
  ASSERT_TRUE(service->restart_job(kAdmin, id));
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
  EXPECT_EQ(world.disk("hv1", "web-os").content, "new os");
}

TEST_F(Epochs, ADiskThatIsTakenAwayInTheMiddleCanStillBeGivenBack) {
  auto id = start();
  ASSERT_TRUE(run_until_job(id, JobState::suspended)) << errors_of(id);
  world.disk("hv1", "web-os").epoch = 500;
  ASSERT_TRUE(service->cancel_job(kAdmin, id));
  ASSERT_TRUE(run_until_job(id, JobState::cancelled)) << errors_of(id);
  EXPECT_EQ(world.disk("hv1", "web-os").content, "old os");
}

// Not of epochs, but of the same kind: what is wrong for a moment must not end a job.
TEST_F(Epochs, AnAgentThatIsAwayDuringTheChecksIsAskedAgain) {
  auto id = start();
  world.host_connected = false;
  run_until([] { return false; }, 15);
  EXPECT_EQ(job(id).state, JobState::in_progress) << errors_of(id);
  EXPECT_FALSE(job(id).errors.empty());
  world.host_connected = true;
  ASSERT_TRUE(run_until_job(id, JobState::suspended)) << errors_of(id);
}

}  // namespace
}  // namespace backhaul
