// Both ends of driver calls as JSON: what goes through comes out the same, and what is malformed is refused by name.
#include "control/drivers/json_driver.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "control/model/control_error.h"

namespace backhaul {
namespace {

// Answers with what was set, and remembers what it was asked.
class RecordingDriver final : public VmDriver {
 public:
  std::string asked;
  VmFacts facts;
  ChangedExtents changed;
  std::optional<std::uint64_t> bytes = 4096;
  bool refuses_shutdown = false;
  std::optional<std::uint64_t> last_write_age_ms;
  FirstWrite written;

  Result<VmFacts> describe(const VmRef& vm) override {
    asked = "describe " + vm.vm + " " + vm.disks.at(0).path + " " + boost::json::serialize(vm.settings);
    return facts;
  }
  Result<Snapshot> snapshot(const VmRef&, const std::string& id) override {
    asked = "snapshot " + id;
    return Snapshot{id, "token-1", {{"os", "/snapshots/os", DiskFormat::raw, 1 << 20}}};
  }
  Result<ChangedExtents> changed_extents(const VmRef&, const std::string& disk, const std::string& since,
                                         const std::string& id) override {
    asked = "changed " + disk + " " + since + " " + id;
    return changed;
  }
  Result<std::optional<std::uint64_t>> changed_bytes(const VmRef&, const std::string& since) override {
    asked = "bytes " + since;
    return bytes;
  }
  Result<void> release_snapshot(const VmRef&, const std::string& id, bool accepted) override {
    asked = "release " + id + (accepted ? " accepted" : " void");
    return {};
  }
  Result<void> forget_tokens(const VmRef&) override {
    asked = "forget";
    return {};
  }
  Result<ShutdownOutcome> shut_down(const VmRef&, const ShutdownRequest& request) override {
    asked = "shut-down " + std::to_string(request.timeout_s) + (request.allow_force ? " force" : "");
    if (refuses_shutdown) return make_error(ControlErrc::shutdown_refused, "the guest plays dead");
    return ShutdownOutcome{request.allow_force, last_write_age_ms};
  }
  Result<void> create(const VmRef&, const VmDescription& description) override {
    asked = "create " + description.name + " " + description.nics.at(0).network;
    return {};
  }
  Result<StartOutcome> start(const VmRef&) override {
    asked = "start";
    return StartOutcome{"started-1"};
  }
  Result<FirstWrite> first_write(const VmRef&, std::chrono::milliseconds wait) override {
    asked = "first-write " + std::to_string(wait.count());
    return written;
  }
  Result<void> stop(const VmRef&) override {
    asked = "stop";
    return {};
  }
  Result<void> remove(const VmRef&, bool delete_disks) override {
    asked = delete_disks ? "remove with disks" : "remove";
    return {};
  }
  Result<std::vector<Check>> preflight(const VmRef&, const VmDescription&) override {
    asked = "preflight";
    return std::vector<Check>{{"memory", CheckLevel::warning, "x.memory", "little is left", "Add some."}};
  }
  Result<Health> health(const VmRef&) override {
    asked = "health";
    return Health{true, "answers"};
  }
};

// A driver reached through JSON text, as over a wire.
class Loop final : public JsonDriver {
 public:
  explicit Loop(VmDriver& driver) : driver_(driver) {}

 private:
  Result<boost::json::object> call(std::string_view verb, const boost::json::object& request, std::uint32_t) override {
    const auto sent = boost::json::parse(boost::json::serialize(request));
    BH_TRY(const auto answer, serve_driver_call(driver_, verb, sent.as_object()));
    return boost::json::parse(boost::json::serialize(answer)).as_object();
  }
  VmDriver& driver_;
};

class JsonDriverLoop : public ::testing::Test {
 protected:
  JsonDriverLoop() {
    vm.vm = "web01";
    vm.settings = {{"root", "somewhere"}};
    vm.disks = {{"os", "web01-os.img", DiskFormat::vhdx, 1 << 20}};
    description.name = "web01";
    description.nics = {{"eth0", "LAN", ""}};
  }
  RecordingDriver behind;
  Loop driver{behind};
  VmRef vm;
  VmDescription description;
};

TEST_F(JsonDriverLoop, describe_brings_the_vm_there_and_the_facts_back) {
  behind.facts.power = PowerState::running;
  behind.facts.disks = {{"os", "web01-os.img", DiskFormat::vhdx, 77}};
  behind.facts.vm = description;
  const auto facts = driver.describe(vm);
  ASSERT_TRUE(facts) << facts.error().to_string();
  EXPECT_EQ(behind.asked, "describe web01 web01-os.img {\"root\":\"somewhere\"}");
  EXPECT_EQ(facts->power, PowerState::running);
  ASSERT_EQ(facts->disks.size(), 1u);
  EXPECT_EQ(facts->disks[0].size_bytes, 77u);
  EXPECT_EQ(facts->disks[0].format, DiskFormat::vhdx);
  ASSERT_TRUE(facts->vm);
  EXPECT_EQ(facts->vm->nics.at(0).network, "LAN");
}

TEST_F(JsonDriverLoop, snapshots_and_changed_extents_come_through) {
  const auto snapshot = driver.snapshot(vm, "bh-1-1");
  ASSERT_TRUE(snapshot) << snapshot.error().to_string();
  EXPECT_EQ(snapshot->token, "token-1");
  EXPECT_EQ(snapshot->disks.at(0).path, "/snapshots/os");
  behind.changed.ranges = {{0, 65536}, {1 << 20, 4096}};
  const auto changed = driver.changed_extents(vm, "os", "token-1", "bh-1-2");
  ASSERT_TRUE(changed);
  EXPECT_EQ(behind.asked, "changed os token-1 bh-1-2");
  EXPECT_EQ(changed->ranges, behind.changed.ranges);
  behind.changed = {std::nullopt, "the bitmap is gone"};
  const auto unknown = driver.changed_extents(vm, "os", "token-1", "bh-1-2");
  ASSERT_TRUE(unknown);
  EXPECT_FALSE(unknown->ranges);
  EXPECT_EQ(unknown->why_unknown, "the bitmap is gone");
}

TEST_F(JsonDriverLoop, changed_bytes_may_be_unknown) {
  auto bytes = driver.changed_bytes(vm, "token-1");
  ASSERT_TRUE(bytes);
  EXPECT_EQ(*bytes, std::optional<std::uint64_t>(4096));
  behind.bytes.reset();
  bytes = driver.changed_bytes(vm, "token-1");
  ASSERT_TRUE(bytes);
  EXPECT_FALSE(*bytes);
}

TEST_F(JsonDriverLoop, every_other_verb_arrives_with_its_arguments) {
  EXPECT_TRUE(driver.release_snapshot(vm, "bh-1-1", true));
  EXPECT_EQ(behind.asked, "release bh-1-1 accepted");
  EXPECT_TRUE(driver.release_snapshot(vm, "bh-1-1", false));
  EXPECT_EQ(behind.asked, "release bh-1-1 void");
  EXPECT_TRUE(driver.forget_tokens(vm));
  EXPECT_EQ(behind.asked, "forget");
  EXPECT_TRUE(driver.create(vm, description));
  EXPECT_EQ(behind.asked, "create web01 LAN");
  EXPECT_EQ(driver.start(vm).value().token, "started-1");
  EXPECT_EQ(behind.asked, "start");
  EXPECT_TRUE(driver.stop(vm));
  EXPECT_EQ(behind.asked, "stop");
  EXPECT_TRUE(driver.remove(vm, true));
  EXPECT_EQ(behind.asked, "remove with disks");
  EXPECT_TRUE(driver.remove(vm, false));
  EXPECT_EQ(behind.asked, "remove");
  const auto checks = driver.preflight(vm, description);
  ASSERT_TRUE(checks);
  ASSERT_EQ(checks->size(), 1u);
  EXPECT_EQ((*checks)[0].level, CheckLevel::warning);
  EXPECT_EQ((*checks)[0].fix, "Add some.");
  const auto health = driver.health(vm);
  ASSERT_TRUE(health);
  EXPECT_TRUE(health->healthy);
}

TEST_F(JsonDriverLoop, the_last_and_the_first_write_travel_as_ages_and_may_be_unknown) {
  auto outcome = driver.shut_down(vm, {30, false});
  ASSERT_TRUE(outcome);
  EXPECT_FALSE(outcome->last_write_age_ms);
  behind.last_write_age_ms = 1234;
  outcome = driver.shut_down(vm, {30, false});
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->last_write_age_ms, 1234u);
  for (const auto kind : {FirstWrite::cannot_tell, FirstWrite::not_yet, FirstWrite::seen}) {
    behind.written = {kind, 500, 20};
    const auto write = driver.first_write(vm, std::chrono::milliseconds(250));
    ASSERT_TRUE(write);
    EXPECT_EQ(behind.asked, "first-write 250");
    EXPECT_EQ(write->kind, kind);
    EXPECT_EQ(write->age_ms, kind == FirstWrite::seen ? 500u : 0u);
    EXPECT_EQ(write->unsure_ms, kind == FirstWrite::seen ? 20u : 0u);
  }
  ASSERT_TRUE(driver.first_write(vm, std::chrono::hours(1)));
  EXPECT_EQ(behind.asked, "first-write 10000") << "others for this VM wait behind the call";
}

TEST_F(JsonDriverLoop, a_shutdown_says_whether_it_was_forced_and_a_refusal_stays_one) {
  const auto forced = driver.shut_down(vm, {30, true});
  ASSERT_TRUE(forced);
  EXPECT_TRUE(forced->forced);
  EXPECT_EQ(behind.asked, "shut-down 30 force");
  behind.refuses_shutdown = true;
  const auto refused = driver.shut_down(vm, {30, false});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error(), make_error_code(ControlErrc::shutdown_refused));
}

TEST_F(JsonDriverLoop, a_request_that_lacks_a_field_is_refused_by_its_name) {
  const auto missing = serve_driver_call(behind, "snapshot", {{"vm", "web01"}});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error(), make_error_code(ControlErrc::driver_protocol));
  EXPECT_NE(missing.error().cause().find("'id'"), std::string::npos) << missing.error().cause();
  const auto wrong =
      serve_driver_call(behind, "shut-down", {{"vm", "web01"}, {"timeout_s", -1}, {"allow_force", true}});
  ASSERT_FALSE(wrong);
  EXPECT_NE(wrong.error().cause().find("'timeout_s'"), std::string::npos) << wrong.error().cause();
  EXPECT_TRUE(behind.asked.empty()) << behind.asked;
}

TEST_F(JsonDriverLoop, an_unknown_verb_is_refused) {
  const auto unknown = serve_driver_call(behind, "explode", {{"vm", "web01"}});
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error(), make_error_code(ControlErrc::not_found));
}

}  // namespace
}  // namespace backhaul
