#include "control/model/downtime.h"

#include <gtest/gtest.h>

#include "control/jobs/estimate.h"
#include "tests/unit/control/bench.h"

namespace backhaul {
namespace {

DowntimeMoments whole() {
  DowntimeMoments m;
  m.asked_unix_ms = 10'000;
  m.last_write_unix_ms = 12'000;
  m.off_unix_ms = 12'500;
  m.delivered_unix_ms = 16'500;
  m.verify_s = 1;
  m.swapped_unix_ms = 17'000;
  m.boot_begun_unix_ms = 19'000;
  m.started_unix_ms = 19'250;
  m.first_write_unix_ms = 25'250;
  return m;
}

TEST(Downtime, ItsPartsAddUpFromTheLastWriteToTheFirst) {
  const auto parts = downtime_parts(whole());
  EXPECT_DOUBLE_EQ(parts.shutdown, 0.5);
  EXPECT_DOUBLE_EQ(parts.delta, 3);
  EXPECT_DOUBLE_EQ(parts.verify, 1);
  EXPECT_DOUBLE_EQ(parts.swap, 0.5);
  EXPECT_DOUBLE_EQ(parts.wait, 2);
  EXPECT_DOUBLE_EQ(parts.start, 0.25);
  EXPECT_DOUBLE_EQ(parts.boot, 6);
  EXPECT_DOUBLE_EQ(parts.sum(), 13.25);
}

TEST(Downtime, WithoutALastWriteItBeginsWhereTheShutdownWasAskedFor) {
  auto moments = whole();
  moments.last_write_unix_ms = 0;
  EXPECT_DOUBLE_EQ(downtime_parts(moments).shutdown, 2.5);
  moments.last_write_unix_ms = 4'000;  // an idle guest was not down since its last write
  EXPECT_DOUBLE_EQ(downtime_parts(moments).shutdown, 2.5);
  EXPECT_EQ(downtime_began_unix_ms(moments), 10'000);
}

TEST(Downtime, WithoutAFirstWriteItEndsWithTheStart) {
  auto moments = whole();
  moments.first_write_unix_ms = 0;
  EXPECT_DOUBLE_EQ(downtime_parts(moments).boot, 0);
  EXPECT_DOUBLE_EQ(downtime_parts(moments).sum(), 7.25);
  EXPECT_EQ(downtime_ended_unix_ms(moments), 19'250);
}

TEST(Downtime, AnUnfinishedOneHasNoParts) {
  auto moments = whole();
  moments.started_unix_ms = moments.first_write_unix_ms = 0;
  EXPECT_DOUBLE_EQ(downtime_parts(moments).sum(), 0);
  EXPECT_DOUBLE_EQ(downtime_parts({}).sum(), 0);
}

TEST(Downtime, AClockThatWasSetBackShortensAPartAndTheSumStaysWhole) {
  auto moments = whole();
  moments.delivered_unix_ms = 9'000;
  const auto parts = downtime_parts(moments);
  EXPECT_DOUBLE_EQ(parts.delta, 0);
  EXPECT_DOUBLE_EQ(parts.verify, 0);
  EXPECT_DOUBLE_EQ(parts.sum(), 13.25);
  moments = whole();
  moments.verify_s = 100;
  EXPECT_DOUBLE_EQ(downtime_parts(moments).verify, 4) << "not more than the round";
}

struct MeasuredFailback : ::testing::Test, fake::Bench {
  void SetUp() override { add_item(fake::make_item("web")); }
  // Until it waits for Complete Failover.
  std::string start() {
    const auto id = service->planned_failover(fake::kAdmin, "web", {}).value();
    EXPECT_TRUE(run_until_job(id, JobState::suspended)) << errors_of(id);
    return id;
  }
  // Complete Failover, until the VM is started at home. Gives when.
  Clock::Duration complete(const std::string& id) {
    EXPECT_TRUE(service->resume_job(fake::kAdmin, id));
    EXPECT_TRUE(run_until([&] { return job(id).moments.started_unix_ms != 0; }));
    return world.clock.now();
  }
  void let_pass(Clock::Duration since, std::chrono::seconds time) {
    run_until([&] { return world.clock.now() - since > time; }, 60);
  }
};

TEST_F(MeasuredFailback, GoesFromTheLastWriteToTheFirstAndTeachesTheNextProjection) {
  world.last_write_age_ms = 1500;
  world.first_write.kind = FirstWrite::not_yet;
  const auto id = start();
  const double projected = job(id).projected_downtime_s;
  EXPECT_DOUBLE_EQ(projected, job(id).projected.sum());
  const auto started = complete(id);
  let_pass(started, std::chrono::seconds(20));
  EXPECT_EQ(job(id).state, JobState::in_progress);
  world.host_connected = false;  // its agent is away for a while
  let_pass(started, std::chrono::seconds(30));
  EXPECT_EQ(job(id).state, JobState::in_progress) << errors_of(id);
  world.host_connected = true;
  world.first_write = {FirstWrite::seen, 400, 20};
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
  const Job done = job(id);
  const auto parts = downtime_parts(done.moments);
  EXPECT_DOUBLE_EQ(parts.shutdown, 1.5);
  EXPECT_GE(parts.delta, 1);
  EXPECT_GE(parts.boot, 29);
  EXPECT_LE(parts.boot, 33);
  EXPECT_DOUBLE_EQ(done.downtime_s, parts.sum());
  EXPECT_EQ(done.moments.unsure_ms, 20u);
  EXPECT_EQ(done.moments.no_first_write, "");
  EXPECT_DOUBLE_EQ(done.projected.sum(), projected) << "what was projected stays beside it";
  EXPECT_DOUBLE_EQ(item("web").downtime.boot, parts.boot);
  EXPECT_NEAR(projected_downtime(item("web"), 10).sum(), done.downtime_s, 0.01) << "the same delta again";
}

TEST_F(MeasuredFailback, AGuestThatNeverWritesEndsTheWaitAndTheJobSucceedsWithoutABootPart) {
  world.first_write.kind = FirstWrite::not_yet;
  const auto id = start();
  const auto started = complete(id);
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
  EXPECT_GE(world.clock.now() - started, std::chrono::seconds(59));
  EXPECT_LE(world.clock.now() - started, std::chrono::seconds(63));
  EXPECT_NE(job(id).moments.no_first_write.find("60 s"), std::string::npos) << job(id).moments.no_first_write;
  EXPECT_EQ(job(id).moments.first_write_unix_ms, 0);
  EXPECT_GE(job(id).downtime_s, 5);
  EXPECT_FALSE(item("web").boot_measured);
}

TEST_F(MeasuredFailback, ADriverThatCannotTellIsNotWaitedFor) {
  const auto id = start();
  const auto started = complete(id);
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
  EXPECT_LE(world.clock.now() - started, std::chrono::seconds(1));
  EXPECT_NE(job(id).moments.no_first_write, "");
  EXPECT_DOUBLE_EQ(downtime_parts(job(id).moments).shutdown, 5) << "from the shutdown's request";
}

TEST_F(MeasuredFailback, OutlivesCrashesOfTheApplianceWhileTheGuestBoots) {
  world.last_write_age_ms = 1500;
  world.first_write.kind = FirstWrite::not_yet;
  const auto id = start();
  const auto started = complete(id);
  let_pass(started, std::chrono::seconds(10));
  open();  // a new process on the same store
  let_pass(started, std::chrono::seconds(25));
  world.first_write = {FirstWrite::seen, 0, 20};
  ASSERT_TRUE(run_until_job(id, JobState::succeeded)) << errors_of(id);
  const auto parts = downtime_parts(job(id).moments);
  EXPECT_DOUBLE_EQ(parts.shutdown, 1.5);
  EXPECT_GE(parts.boot, 24);
  EXPECT_LE(parts.boot, 28);
}

}  // namespace
}  // namespace backhaul
