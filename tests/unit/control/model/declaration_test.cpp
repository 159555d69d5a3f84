#include "control/model/declaration.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "control/model/control_error.h"

namespace backhaul {
namespace {

std::string example(const char* name) {
  std::ifstream file(std::filesystem::path(BACKHAUL_SOURCE_DIR) / "examples/files" / name);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(Declaration, TheExampleFilesAreRead) {
  auto item = parse_item_toml(example("web01.toml"), "web01.toml");
  ASSERT_TRUE(item) << item.error().cause();
  EXPECT_EQ(item->id, "web01");
  EXPECT_EQ(item->vm.memory_mib, 2048u);
  EXPECT_EQ(item->vm.nics[0].network, "LAN");
  EXPECT_EQ(item->primary.host, "hv01");
  EXPECT_EQ(item->recovery.disks[1].name, "data");
  EXPECT_EQ(item->shutdown.timeout_s, 60u);
  ASSERT_TRUE(parse_item_toml(example("db01.toml"), "db01.toml"));
  auto plan = parse_plan_toml(example("plan.toml"), "plan.toml");
  ASSERT_TRUE(plan) << plan.error().cause();
  EXPECT_EQ(plan->groups[1].before_boot[0].command[0], "true");
  EXPECT_TRUE(plan->groups[1].after_boot[0].manual);
}

TEST(Declaration, EveryMistakeIsFoundAtOnceWithItsLineAndKey) {
  auto item = parse_item_toml(R"(id = "web01"
replication_minutes = 0
colour = "red"
[vm]
name = 5
memory_mib = "2 GiB"
generation = 3
[recovery]
driver = "files"
disks = [{ name = "os", path = "a", format = "qcow2" }]
[primary]
driver = "files"
disks = [{ name = "os", path = "a", size = 4 }]
[transfer]
lanes = 17
)",
                              "x.toml");
  ASSERT_FALSE(item);
  EXPECT_EQ(item.error(), make_error_code(ControlErrc::bad_file));
  const std::string cause = item.error().cause();
  for (const char* expected :
       {"x.toml:2: replication_minutes: must be a whole number from 1 to 1440", "x.toml:3: colour: is no known key",
        "x.toml:5: vm.name: must be a text", "x.toml:6: vm.memory_mib: must be", "x.toml:7: vm.generation: must be",
        "x.toml:10: recovery.disks[0].format: must be one of raw, vhdx, vhdx-fixed", "primary.host: is missing",
        "x.toml:13: primary.disks[0].size: is no known key",
        "x.toml:15: transfer.lanes: must be a whole number from 0 to 16"})
    EXPECT_NE(cause.find(expected), std::string::npos) << expected << "\n in \n" << cause;
}

TEST(Declaration, SyntaxErrorsHaveTheirLine) {
  auto item = parse_item_toml("id = \"a\"\n[vm\n", "x.toml");
  ASSERT_FALSE(item);
  EXPECT_NE(item.error().cause().find("x.toml:2"), std::string::npos) << item.error().cause();
}

TEST(Declaration, RulesThatSpanKeysAreCheckedToo) {
  std::string text = example("web01.toml");
  text.replace(text.find("name = \"data\", path = \"web01-data.img\""), 13, "name = \"logs\"");
  auto item = parse_item_toml(text, "x.toml");
  ASSERT_FALSE(item);
  EXPECT_NE(item.error().cause().find("lacks disk"), std::string::npos) << item.error().cause();
}

TEST(Declaration, ADiskThatIsOnlyExportedCanBeASourceAndNoTarget) {
  Item item = parse_item_toml(example("web01.toml"), "web01.toml").value();
  const auto cause_of = [](const Item& declared) {
    auto parsed = parse_item_json(declared_json(declared), "web01");
    return parsed ? std::string() : parsed.error().cause();
  };
  auto& disk = item.recovery.disks[0];
  for (const auto* uri : {"nbd+unix:///os?socket=/run/vm.sock", "nbd://localhost:10809/os"}) {
    disk.path = uri;
    EXPECT_EQ(cause_of(item), "") << uri;
  }
  disk.path = "nbd://user:hidden@localhost/os";
  EXPECT_NE(cause_of(item).find("recovery.disks.os: "), std::string::npos) << cause_of(item);
  EXPECT_EQ(cause_of(item).find("hidden"), std::string::npos) << cause_of(item);
  disk.path = "nbd://192.0.2.1/os";
  EXPECT_NE(cause_of(item).find("in the clear"), std::string::npos) << cause_of(item);
  disk.path = "nbd://localhost/os";
  disk.format = DiskFormat::vhdx;
  EXPECT_NE(cause_of(item).find("an NBD export is raw"), std::string::npos) << cause_of(item);
  disk.format = DiskFormat::raw;
  item.primary.disks[0].path = "nbd://localhost/os";
  EXPECT_NE(cause_of(item).find("primary.disks.os: a failback writes here"), std::string::npos) << cause_of(item);
}

TEST(Declaration, JsonHasTheSameKeysAndSurvivesTheRoundTrip) {
  Item item = parse_item_toml(example("web01.toml"), "web01.toml").value();
  item.recovery.settings = {{"list", {1, "a", true}}, {"deep", {{"x", 1.5}}}};
  auto object = declared_json(item);
  auto again = parse_item_json(object, "web01");
  ASSERT_TRUE(again) << again.error().cause();
  EXPECT_EQ(declared_json(*again), object);
  EXPECT_FALSE(parse_item_json(object, "other"));
  object["state"] = "Protected";
  auto refused = parse_item_json(object, "web01");
  ASSERT_FALSE(refused);
  EXPECT_TRUE(refused.error().cause().starts_with("item: state: is no known key; known are boot, commit_policy, "))
      << refused.error().cause();
  RecoveryPlan plan = parse_plan_toml(example("plan.toml"), "plan.toml").value();
  auto plan_again = parse_plan_json(declared_json(plan), "shop");
  ASSERT_TRUE(plan_again) << plan_again.error().cause();
  EXPECT_EQ(declared_json(*plan_again), declared_json(plan));
}

}  // namespace
}  // namespace backhaul
