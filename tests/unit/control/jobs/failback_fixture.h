// One item, and what its failback must leave behind.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "tests/unit/control/bench.h"

namespace backhaul::fake {

struct Failback : ::testing::Test, Bench {
  void SetUp() override { add_item(make_item("web")); }
  std::string start(const PlannedFailoverRequest& request = {}) {
    auto job_id = service->planned_failover(kAdmin, "web", request);
    EXPECT_TRUE(job_id) << job_id.error().to_string();
    return job_id ? *job_id : "";
  }
  void expect_at_home() {
    EXPECT_EQ(world.vm("hv1", "web").power, PowerState::running);
    EXPECT_EQ(world.vm("", "web").power, PowerState::off);
    for (const char* name : {"os", "data"}) {
      const std::string disk = name;
      EXPECT_EQ(world.disk("hv1", "web-" + disk).content, world.disk("", "/r/web-" + disk).content);
    }
  }
  void expect_untouched(bool source_running = true) {
    EXPECT_EQ(world.disk("hv1", "web-os").content, "old os");
    EXPECT_EQ(world.disk("hv1", "web-data").content, "old data");
    EXPECT_FALSE(world.disk("hv1", "web-os").has_staged);
    EXPECT_EQ(world.vm("", "web").power, source_running ? PowerState::running : PowerState::off);
    EXPECT_NE(world.vm("hv1", "web").power, PowerState::running);
    EXPECT_EQ(state("web"), ItemState::failover_committed);
    EXPECT_TRUE(world.snapshots.empty());
    EXPECT_TRUE(world.rounds.empty());
  }
};

}  // namespace backhaul::fake
