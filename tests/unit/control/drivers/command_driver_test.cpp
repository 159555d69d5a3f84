// The command driver's side of its contract (docs/command_driver.md), and the example driver of examples/files against
// it.
#include "control/drivers/command_driver.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "control/drivers/child_process.h"
#include "control/model/control_error.h"

namespace backhaul {
namespace {

namespace fs = std::filesystem;

class CommandDriver : public ::testing::Test {
 protected:
  CommandDriver() {
    std::string name = (fs::temp_directory_path() / "bh-driver-XXXXXX").string();
    root_ = mkdtemp(name.data());
  }
  ~CommandDriver() override { fs::remove_all(root_); }

  // A driver that runs this shell text, with the verb as $1.
  std::unique_ptr<VmDriver> shell(const std::string& text, std::uint32_t timeout_s = 10) {
    return make_command_driver({{"/bin/sh", "-c", text, "driver"}, timeout_s});
  }
  std::unique_ptr<VmDriver> example() {
    const fs::path script = fs::path(BACKHAUL_SOURCE_DIR) / "examples/files/vm-driver";
    return make_command_driver({{"/usr/bin/python3", script.string()}, 20});
  }
  void guest_writes(const std::string& disk, std::uint64_t offset, const std::string& text,
                    bool expect_success = true) {
    const fs::path script = fs::path(BACKHAUL_SOURCE_DIR) / "examples/files/vm-driver";
    std::ostringstream request;
    request << R"({"vm":"web","settings":{"root":")" << root_.string()
            << R"("},"disks":[{"name":"os","path":"os.img"},{"name":"data","path":"data.img"}],"disk":")" << disk
            << R"(","offset":)" << offset << R"(,"text":")" << text << R"("})";
    auto outcome = run_child({"/usr/bin/python3", script.string(), "write"}, request.str(), std::chrono::seconds(20));
    ASSERT_TRUE(outcome);
    EXPECT_EQ(outcome->exit_status == 0, expect_success) << outcome->errors;
  }
  VmRef vm() const {
    return {"web",
            {{"root", root_.string()}},
            {{"os", "os.img", DiskFormat::raw, 0}, {"data", "data.img", DiskFormat::raw, 0}}};
  }
  static std::string content(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  fs::path root_;
};

TEST_F(CommandDriver, AProgramGetsNoneOfOurOtherFiles) {
  int leaky[2];  // without close-on-exec, as some library opens it
  ASSERT_EQ(::pipe(leaky), 0);
  const auto text = "test -e /proc/self/fd/0 && ! test -e /proc/self/fd/" + std::to_string(leaky[1]);
  const auto outcome = run_child({"/bin/sh", "-c", text}, "", std::chrono::seconds(20));
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->exit_status, 0) << outcome->errors;
  ::close(leaky[0]);
  ::close(leaky[1]);
}

TEST_F(CommandDriver, GivesTheRequestOnStdinAndTheVerbAsLastArgument) {
  auto driver = shell("cat > " + (root_ / "in").string() + "; echo $1 > " + (root_ / "verb").string() +
                      R"(; echo '{"power":"off"}')");
  auto facts = driver->describe(vm());
  ASSERT_TRUE(facts) << facts.error().to_string();
  EXPECT_EQ(facts->power, PowerState::off);
  EXPECT_EQ(content(root_ / "verb"), "describe\n");
  EXPECT_NE(content(root_ / "in").find(R"("verb":"describe")"), std::string::npos);
  EXPECT_NE(content(root_ / "in").find(R"("name":"os","path":"os.img")"), std::string::npos);
}

TEST_F(CommandDriver, ExitStatusesBecomeErrorsWithTheEndOfStderr) {
  auto refused = shell("cat >/dev/null; echo no guest tools >&2; exit 3")->shut_down(vm(), {1, false});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error(), make_error_code(ControlErrc::shutdown_refused));
  EXPECT_NE(refused.error().cause().find("no guest tools"), std::string::npos);
  EXPECT_EQ(shell("exit 4")->start(vm()).error().retry(), Retry::later);
  EXPECT_EQ(shell("exit 1")->start(vm()).error(), make_error_code(ControlErrc::driver_failed));
  EXPECT_EQ(shell("kill -9 $$")->start(vm()).error(), make_error_code(ControlErrc::driver_failed));
  EXPECT_EQ(make_command_driver({{"/no/such/driver"}, 5})->start(vm()).error(),
            make_error_code(ControlErrc::driver_failed));
}

TEST_F(CommandDriver, AnswersThatBreakTheContractAreNamed) {
  const auto wrong = make_error_code(ControlErrc::driver_protocol);
  for (const char* answer :
       {"", "[]", "{", R"({"power":"sleeping"})", R"({"power":5})", R"({"power":"off","disks":[{"name":"os"}]})"})
    EXPECT_EQ(shell(std::string("echo '") + answer + "'")->describe(vm()).error(), wrong) << answer;
  EXPECT_EQ(shell(R"(echo '{"id":"other","disks":[]}')")->snapshot(vm(), "mine").error(), wrong);
  EXPECT_EQ(shell(R"(echo '{"forced":true}')")->shut_down(vm(), {1, false}).error(), wrong);
  EXPECT_EQ(shell("head -c 9000000 /dev/zero")->describe(vm()).error(), wrong) << "more output than allowed";
}

TEST_F(CommandDriver, ATrackerThatFailsOrAnswersNonsenseIsNoErrorButUnknown) {
  for (const char* text : {"exit 1", "echo nonsense", R"(echo '{"extents":[[18446744073709551615,2]]}')",
                           R"(echo '{"extents":null,"why_unknown":"lost"}')"}) {
    auto changed = shell(text)->changed_extents(vm(), "os", "t", "s");
    ASSERT_TRUE(changed) << text;
    EXPECT_FALSE(changed->ranges);
    EXPECT_FALSE(changed->why_unknown.empty());
  }
  auto changed = shell(R"(echo '{"extents":[[0,4096],[8192,0],[65536,1]]}')")->changed_extents(vm(), "os", "t", "s");
  ASSERT_TRUE(changed);
  EXPECT_EQ(*changed->ranges, (std::vector<ByteRange>{{0, 4096}, {65536, 1}}));
}

TEST_F(CommandDriver, ADriverThatHangsIsKilledWithWhatItStarted) {
  const auto started = std::chrono::steady_clock::now();
  auto late = shell("sleep 100 & echo $! > " + (root_ / "pid").string() + "; wait", 1)->start(vm());
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error(), make_error_code(ControlErrc::driver_timeout));
  EXPECT_LT(std::chrono::steady_clock::now() - started, std::chrono::seconds(20));
  const int pid = std::stoi(content(root_ / "pid"));
  // Killed, which takes the kernel a moment on a busy machine; its new parent may not have reaped it yet.
  const auto gone = [&] {
    std::ifstream status("/proc/" + std::to_string(pid) + "/stat");
    const std::string text((std::istreambuf_iterator<char>(status)), {});
    return text.empty() || text.find(") Z") != std::string::npos || text.find(") X") != std::string::npos;
  };
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!gone() && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_TRUE(gone());
}

TEST_F(CommandDriver, ItsEnvironmentIsOursAndWhatTheConfigurationAdds) {
  ::setenv("BACKHAUL_TEST_OURS", "ours", 1);
  ::setenv("BACKHAUL_TEST_BOTH", "ours", 1);
  const auto path = (root_ / "environment").string();
  auto driver = make_command_driver(
      {{"/bin/sh", "-c", "echo $BACKHAUL_TEST_OURS $BACKHAUL_TEST_BOTH $BACKHAUL_TEST_ADDED > " + path + "; echo '{}'"},
       20,
       {{"BACKHAUL_TEST_BOTH", "added"}, {"BACKHAUL_TEST_ADDED", "added"}}});
  ASSERT_TRUE(driver->start(vm()));
  EXPECT_EQ(content(path), "ours added added\n");
}

TEST_F(CommandDriver, ADriverThatCannotBeStartedIsNamed) {
  auto failed = make_command_driver({{"/no/such/driver"}, 20})->start(vm());
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error(), make_error_code(ControlErrc::driver_failed));
  EXPECT_NE(failed.error().cause().find("/no/such/driver cannot be started: No such file"), std::string::npos);
}

TEST_F(CommandDriver, ABackgroundProcessThatKeepsTheOutputOpenIsNotWaitedFor) {
  const auto started = std::chrono::steady_clock::now();
  ASSERT_TRUE(shell("sleep 15 & echo '{}'", 60)->start(vm()));
  EXPECT_LT(std::chrono::steady_clock::now() - started, std::chrono::seconds(12));
}

TEST_F(CommandDriver, ALargeRequestThatTheDriverDoesNotReadIsNoProblem) {
  VmRef big = vm();
  big.settings["x"] = std::string(4 << 20, 'x');
  EXPECT_TRUE(shell("echo '{}'")->start(big));
}

TEST_F(CommandDriver, TheExampleDriverKeepsTheContract) {
  auto driver = example();
  for (const char* disk : {"os.img", "data.img"}) std::ofstream(root_ / disk) << std::string(200'000, 'a');
  EXPECT_EQ(driver->describe(vm())->power, PowerState::absent);
  ASSERT_TRUE(driver->create(vm(), {"web", 2, 1024, 1, "uefi", false, {}}));
  ASSERT_TRUE(driver->create(vm(), {"web", 2, 1024, 1, "uefi", false, {}})) << "twice is once";
  guest_writes("os", 0, "x", false);
  ASSERT_TRUE(driver->start(vm()));
  ASSERT_TRUE(driver->start(vm()));
  auto facts = driver->describe(vm());
  ASSERT_TRUE(facts) << facts.error().to_string();
  EXPECT_EQ(facts->power, PowerState::running);
  EXPECT_EQ(facts->disks[0].size_bytes, 200'000u);
  EXPECT_EQ(facts->vm->memory_mib, 1024u);
  EXPECT_TRUE(driver->health(vm())->healthy);
  EXPECT_TRUE(driver->preflight(vm(), {})->at(0).level == CheckLevel::ok);

  auto first = driver->snapshot(vm(), "s1");
  ASSERT_TRUE(first) << first.error().to_string();
  guest_writes("os", 70'000, "hello");
  EXPECT_EQ(content(first->disks[0].path), std::string(200'000, 'a')) << "a snapshot does not change";
  EXPECT_EQ(driver->snapshot(vm(), "s1")->token, first->token);
  EXPECT_EQ(content(driver->snapshot(vm(), "s1")->disks[0].path), std::string(200'000, 'a'));
  ASSERT_TRUE(driver->release_snapshot(vm(), "s1", true));
  EXPECT_EQ(driver->changed_bytes(vm(), first->token).value(), 65536u);
  auto second = driver->snapshot(vm(), "s2");
  auto changed = driver->changed_extents(vm(), "os", first->token, "s2");
  ASSERT_TRUE(changed && changed->ranges);
  EXPECT_EQ(*changed->ranges, (std::vector<ByteRange>{{65536, 65536}}));
  EXPECT_TRUE(driver->changed_extents(vm(), "data", first->token, "s2")->ranges->empty());
  EXPECT_FALSE(driver->changed_extents(vm(), "os", "never", "s2")->ranges);

  // Not accepted: its token is void, the older one still covers everything.
  ASSERT_TRUE(driver->release_snapshot(vm(), "s2", false));
  ASSERT_TRUE(driver->release_snapshot(vm(), "s2", false));
  EXPECT_FALSE(driver->changed_extents(vm(), "os", second->token, "x")->ranges);
  guest_writes("os", 0, "hello");
  EXPECT_EQ(driver->changed_extents(vm(), "os", first->token, "x")->ranges->size(), 2u);

  std::ofstream(root_ / "web" / "ignores-power-button");
  EXPECT_EQ(driver->shut_down(vm(), {0, false}).error(), make_error_code(ControlErrc::shutdown_refused));
  EXPECT_EQ(driver->describe(vm())->power, PowerState::running);
  EXPECT_TRUE(driver->shut_down(vm(), {0, true})->forced);
  EXPECT_EQ(driver->describe(vm())->power, PowerState::off);
  EXPECT_FALSE(driver->shut_down(vm(), {0, false})->forced);
  ASSERT_TRUE(driver->stop(vm()));
  ASSERT_TRUE(driver->remove(vm(), false));
  ASSERT_TRUE(driver->remove(vm(), false));
  EXPECT_TRUE(fs::exists(root_ / "os.img"));
  EXPECT_EQ(driver->describe(vm())->power, PowerState::absent);
  ASSERT_TRUE(driver->remove(vm(), true));
  EXPECT_FALSE(fs::exists(root_ / "os.img"));
}

TEST(PlanCommand, GetsItsContextAndItsFailureHasTheStderr) {
  PlanAction action{"dns", false, "", {"/bin/sh", "-c", "grep -q '\"group\":\"web\"'"}, 5};
  EXPECT_TRUE(run_plan_command(action, {{"group", "web"}}));
  action.command[2] = "echo broken >&2; exit 7";
  auto failed = run_plan_command(action, {});
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error(), make_error_code(ControlErrc::action_failed));
  EXPECT_NE(failed.error().cause().find("broken"), std::string::npos);
}

}  // namespace
}  // namespace backhaul
