#include "control/agents/node_config.h"

#include <gtest/gtest.h>

#include "control/model/control_error.h"

namespace backhaul {
namespace {

constexpr const char* kAppliance = R"(
listen = "[::1]:8443"
tls = "tls"
tls_records = "openssl"
vault = "lab"
state = "state"
store = "disks"
sources = ["vms"]
networks = ["LAN", "DMZ"]
generations = [2]

[[hosts]]
id = "hv01"
address = "10.0.0.1:7443"

[[hosts]]
id = "hv02"
address = "[fd00::2]:7443"

[[drivers]]
name = "files"
command = ["/bin/true", "-x"]
timeout_s = 5
env = { ROOT = "vms" }

[transfer]
lanes = 4
limit_bytes_per_s = 1000

[limits]
threads = 3
request_bytes = 2048
request_s = 2

[pace]
look_ms = 50
minute_s = 1
)";

TEST(NodeConfig, AnApplianceSaysAllThatItNeeds) {
  const auto config = parse_appliance_config(kAppliance, "appliance.toml");
  ASSERT_TRUE(config) << config.error().cause();
  EXPECT_EQ(config->listen, "[::1]:8443");
  EXPECT_EQ(config->tls_records, TlsRecords::openssl);
  EXPECT_EQ(config->vault, "lab");
  EXPECT_EQ(config->sources, std::vector<std::string>{"vms"});
  ASSERT_EQ(config->hosts.size(), 2u);
  EXPECT_EQ(config->hosts[1].id, "hv02");
  EXPECT_EQ(config->hosts[1].address.host, "fd00::2");
  EXPECT_EQ(config->hosts[1].address.port, 7443);
  ASSERT_EQ(config->drivers.size(), 1u);
  EXPECT_EQ(config->drivers[0].command, (std::vector<std::string>{"/bin/true", "-x"}));
  EXPECT_EQ(config->drivers[0].timeout_s, 5u);
  EXPECT_EQ(config->drivers[0].env.at("ROOT"), "vms");
  EXPECT_EQ(config->networks, (std::vector<std::string>{"LAN", "DMZ"}));
  EXPECT_EQ(config->generations, std::vector<std::uint32_t>{2});
  EXPECT_EQ(config->transfer.lanes, 4u);
  EXPECT_EQ(config->limits.threads, 3u);
  EXPECT_EQ(config->http.body_bytes, 2048u);
  EXPECT_EQ(config->http.request, std::chrono::seconds(2));
  EXPECT_EQ(config->pace.look, std::chrono::milliseconds(50));
  EXPECT_EQ(config->pace.minute, std::chrono::seconds(1));
  EXPECT_EQ(config->pace.poll, Pace().poll) << "what is not given keeps its default";
}

TEST(NodeConfig, AQemuDriverHasKeysOfItsOwn) {
  const auto config = parse_host_config(R"([[drivers]]
name = "vms"
kind = "qemu"
state = "vms"
disks = ["disks", "more"]
networks = { LAN = "user" }
disk_bus = "scsi"
)",
                                        "host.toml");
  ASSERT_TRUE(config) << config.error().cause();
  const auto& qemu = config->drivers.at(0).qemu;
  EXPECT_EQ(qemu.disks, (std::vector<std::string>{"disks", "more"}));
  EXPECT_EQ(qemu.networks.at("LAN"), "user");
  EXPECT_EQ(qemu.disk_bus, "scsi");
  EXPECT_EQ(qemu.accel, "tcg");

  const auto wrong = parse_host_config(R"(store = "disks"
[[drivers]]
name = "vms"
kind = "qemu"
command = ["/bin/true"]
machine = "sun"
)",
                                       "host.toml");
  ASSERT_FALSE(wrong);
  for (const char* mistake : {"drivers[0].state", "host.toml:5: drivers[0].command", "host.toml:6: drivers[0].machine"})
    EXPECT_NE(wrong.error().cause().find(mistake), std::string::npos) << mistake << " in\n" << wrong.error().cause();
}

TEST(NodeConfig, EveryMistakeHasItsLineAndKey) {
  const auto config = parse_appliance_config(R"(listen = "nowhere"
vault = "a vault"
state = 5
store = "disks"
colour = "red"
[[hosts]]
id = "hv01"
address = "10.0.0.1"
[[hosts]]
id = "hv01"
address = "10.0.0.1:0"
[[hosts]]
id = "-"
[[drivers]]
name = "files"
kind = "hyperv"
command = ["./no-such-driver"]
[[drivers]]
name = "other"
timeout_s = 0
env = { A = 5 }
[transfer]
lanes = 9
max_lanes = 4
[limits]
request_s = 0
)",
                                             "a.toml");
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error(), make_error_code(ControlErrc::bad_file));
  const std::string cause = config.error().cause();
  for (const char* expected :
       {"a.toml:1: listen: 'nowhere' is not HOST:PORT", "a.toml:1: tls: is missing", "a.toml:2: vault: must be 1 to 63",
        "a.toml:3: state: must be a text", "a.toml:5: colour: is no known key; known are drivers, generations, hosts",
        "a.toml:8: hosts[0].address: '10.0.0.1' is not HOST:PORT", "a.toml:10: hosts[1].id: 'hv01' is there twice",
        "a.toml:11: hosts[1].address: '10.0.0.1:0' must name", "a.toml:12: hosts[2].address: is missing",
        "a.toml:13: hosts[2].id: must be", "a.toml:16: drivers[0].kind: must be one of command",
        "a.toml:17: drivers[0].command: ./no-such-driver cannot be run", "drivers[1].command: must be a list",
        "a.toml:20: drivers[1].timeout_s: must be a whole number from 1", "a.toml:21: drivers[1].env: 'A' must be",
        "a.toml:23: transfer.lanes: must not exceed", "a.toml:26: limits.request_s: must be"})
    EXPECT_NE(cause.find(expected), std::string::npos) << expected << "\n in \n" << cause;
  EXPECT_LT(cause.find("a.toml:1:"), cause.find("a.toml:5:")) << "by line";
}

TEST(NodeConfig, AHostAgentMayLeaveMuchToTheCommandLine) {
  const auto config = parse_host_config("store = \"disks\"\nnetworks = [\"LAN\"]\n", "host.toml");
  ASSERT_TRUE(config) << config.error().cause();
  EXPECT_EQ(config->store, "disks");
  EXPECT_TRUE(config->listen.empty());
  EXPECT_EQ(config->generations, (std::vector<std::uint32_t>{1, 2}));
  EXPECT_FALSE(parse_host_config("generations = [1, 3]", "host.toml"));
  EXPECT_FALSE(parse_host_config("hosts = []", "host.toml"));
}

TEST(NodeConfig, AFileThatIsNotThereIsNamed) {
  const auto config = load_host_config("no/such/file.toml");
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error(), make_error_code(BaseErrc::invalid_argument));
  EXPECT_NE(config.error().cause().find("no/such/file.toml"), std::string::npos);
}

TEST(NodeConfig, Endpoints) {
  EXPECT_EQ(parse_endpoint("h:1")->host, "h");
  EXPECT_EQ(parse_endpoint("[::]:0")->host, "::");
  EXPECT_EQ(parse_endpoint("0.0.0.0:65535")->port, 65535);
  for (const char* bad :
       {"", ":", "h:", "h", "h:65536", "h:x", "h:-1", "::1:80", "h:123456", "a b:1", "[::1]80", "u@h:1"})
    EXPECT_FALSE(parse_endpoint(bad)) << bad;
}

}  // namespace
}  // namespace backhaul
