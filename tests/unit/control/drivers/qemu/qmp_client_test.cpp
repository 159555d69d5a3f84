#include "control/drivers/qemu/qmp_client.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <boost/json.hpp>
#include <cstring>
#include <filesystem>
#include <thread>

#include "control/model/control_error.h"

namespace backhaul {
namespace {

using namespace std::chrono_literals;

constexpr const char* kGreeting = R"({"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": []}})";

// A QEMU that says what its script says: for each line that it reads it answers with the next text, whatever was asked.
// "ID" in a text becomes the id of that command. After the last text it closes the connection.
class FakeQemu {
 public:
  explicit FakeQemu(std::vector<std::string> script) : script_(std::move(script)) {
    char folder[] = "/tmp/backhaul-qmp-XXXXXX";
    folder_ = ::mkdtemp(folder);
    listener_ = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, path().c_str());
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listener_.get(), 1), 0);
    thread_ = std::thread([this] { serve(); });
  }
  ~FakeQemu() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
    std::filesystem::remove_all(folder_);
  }
  std::string path() const { return folder_ + "/q"; }
  std::vector<std::string> heard() {  // when the connection has ended
    ::shutdown(listener_.get(), SHUT_RDWR);
    if (thread_.joinable()) thread_.join();
    thread_ = std::thread([] {});
    return heard_;
  }

 private:
  void serve() {
    UniqueFd connection(::accept(listener_.get(), nullptr, nullptr));
    if (!connection) return;
    std::string input;
    for (std::size_t i = 0; i < script_.size(); ++i) {
      std::string text = script_[i];
      if (i > 0) {  // the greeting comes unasked
        const std::string line = read_line(connection.get(), input);
        if (line.empty()) return;
        heard_.push_back(line);
        const auto id = boost::json::serialize(boost::json::parse(line).at("id"));
        for (auto at = text.find("ID"); at != std::string::npos; at = text.find("ID")) text.replace(at, 2, id);
      }
      std::size_t sent = 0;
      while (sent < text.size()) {
        const auto now = ::send(connection.get(), text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
        if (now <= 0) return;
        sent += static_cast<std::size_t>(now);
      }
      if (text == "silence") read_line(connection.get(), input);  // until the client goes
    }
  }
  static std::string read_line(int fd, std::string& input) {
    for (;;) {
      if (const auto end = input.find('\n'); end != std::string::npos) {
        std::string line = input.substr(0, end);
        input.erase(0, end + 1);
        return line;
      }
      char chunk[4096];
      const auto got = ::recv(fd, chunk, sizeof chunk, 0);
      if (got <= 0) return {};
      input.append(chunk, static_cast<std::size_t>(got));
    }
  }

  std::vector<std::string> script_, heard_;
  std::string folder_;
  UniqueFd listener_;
  std::thread thread_;
};

std::string line(std::string text) { return text + "\n"; }
const std::string kReady = line(R"({"return": {}, "id": ID})");

TEST(QmpClient, ACommandGetsItsAnswerAndEventsAreKept) {
  FakeQemu qemu({line(kGreeting), kReady,
                 line(R"({"event": "STOP", "timestamp": {"seconds": 1}})") +
                     line(R"({"event": "JOB_STATUS_CHANGE", "data": {"id": "c0", "status": "ready"}})") +
                     line(R"({"return": {"status": "paused"}, "id": ID})")});
  auto client = QmpClient::connect(qemu.path(), 10s);
  ASSERT_TRUE(client) << client.error().to_string();
  const auto answer = (*client)->execute("query-status", {{"a", 1}});
  ASSERT_TRUE(answer) << answer.error().to_string();
  EXPECT_EQ(answer->at("status").as_string(), "paused");
  auto event = (*client)->next_event(0ms);
  ASSERT_TRUE(event && *event);
  EXPECT_EQ((*event)->name, "STOP");
  event = (*client)->next_event(0ms);
  ASSERT_TRUE(event && *event);
  EXPECT_EQ((*event)->data.at("status").as_string(), "ready");
  client->reset();
  const auto heard = qemu.heard();
  ASSERT_EQ(heard.size(), 2u);
  EXPECT_EQ(boost::json::parse(heard[0]).at("execute").as_string(), "qmp_capabilities");
  EXPECT_EQ(boost::json::parse(heard[1]).at("arguments").at("a").as_int64(), 1);
}

TEST(QmpClient, ARefusalNamesTheCommandAndItsReasonAndTheConnectionStays) {
  FakeQemu qemu({line(kGreeting), kReady,
                 line(R"({"error": {"class": "GenericError", "desc": "Bitmap is missing"}, "id": ID})"),
                 line(R"({"return": 7, "id": ID})")});
  auto client = QmpClient::connect(qemu.path(), 10s);
  ASSERT_TRUE(client);
  const auto refused = (*client)->execute("block-dirty-bitmap-remove");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error(), make_error_code(ControlErrc::driver_failed));
  EXPECT_EQ(refused.error().cause(), "block-dirty-bitmap-remove: GenericError: Bitmap is missing");
  EXPECT_FALSE((*client)->broken());
  EXPECT_EQ((*client)->execute("next").value().as_int64(), 7);
}

TEST(QmpClient, AnAnswerToADeadClientsCommandIsLeftBehind) {
  FakeQemu qemu({line(kGreeting), line(R"({"return": "done", "id": 7})") + line(R"({"return": {}, "id": 1})") + kReady,
                 line(R"({"return": 7, "id": ID})")});
  auto client = QmpClient::connect(qemu.path(), 10s);
  ASSERT_TRUE(client) << client.error().to_string();
  EXPECT_EQ((*client)->execute("next").value().as_int64(), 7);
}

TEST(QmpClient, TheOldestEventsGoWhenNobodyAsks) {
  std::string many;
  for (std::size_t i = 0; i < kMaxQmpEvents + 10; ++i) many += line(R"({"event": "E)" + std::to_string(i) + "\"}");
  FakeQemu qemu({line(kGreeting), kReady, many + line(R"({"return": {}, "id": ID})")});
  auto client = QmpClient::connect(qemu.path(), 10s);
  ASSERT_TRUE(client);
  ASSERT_TRUE((*client)->execute("x"));
  std::size_t count = 0;
  auto event = (*client)->next_event(0ms);
  EXPECT_EQ((*event)->name, "E10");
  for (; event && *event; event = (*client)->next_event(0ms)) ++count;
  EXPECT_EQ(count, kMaxQmpEvents);
}

struct Damage {
  const char* name;
  std::vector<std::string> script;
  ControlErrc expected;
};
class QmpDamage : public ::testing::TestWithParam<Damage> {};

TEST_P(QmpDamage, EndsTheConnectionWithAReason) {
  FakeQemu qemu(GetParam().script);
  const bool silent = GetParam().expected == ControlErrc::driver_timeout;
  auto client = QmpClient::connect(qemu.path(), silent ? 200ms : 30s);
  if (!client) {
    EXPECT_EQ(client.error(), make_error_code(GetParam().expected)) << client.error().to_string();
    return;
  }
  const auto answer = (*client)->execute("query-status");
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error(), make_error_code(GetParam().expected)) << answer.error().to_string();
  EXPECT_TRUE((*client)->broken());
  EXPECT_FALSE((*client)->execute("query-status")) << "a broken connection stays broken";
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, QmpDamage,
    ::testing::Values(
        Damage{"SilentFromTheStart", {"silence"}, ControlErrc::driver_timeout},
        Damage{"SilentLater", {line(kGreeting), kReady, "silence"}, ControlErrc::driver_timeout},
        Damage{"AnotherProtocol", {line("SSH-2.0-OpenSSH_9.2")}, ControlErrc::driver_protocol},
        Damage{"AnotherGreeting", {line("{}")}, ControlErrc::driver_protocol},
        Damage{"ClosedAtOnce", {}, ControlErrc::driver_failed},
        Damage{"ClosedInACommand", {line(kGreeting), kReady}, ControlErrc::driver_failed},
        Damage{"ClosedInALine", {line(kGreeting), kReady, R"({"return": )"}, ControlErrc::driver_failed},
        Damage{"NoJson", {line(kGreeting), kReady, line(R"({"return": )")}, ControlErrc::driver_protocol},
        Damage{"NoObject", {line(kGreeting), kReady, line("[1]")}, ControlErrc::driver_protocol},
        Damage{"TooDeep", {line(kGreeting), kReady, line(std::string(100, '['))}, ControlErrc::driver_protocol},
        Damage{
            "AnothersId", {line(kGreeting), kReady, line(R"({"return": {}, "id": 77})")}, ControlErrc::driver_protocol},
        Damage{"NoId", {line(kGreeting), kReady, line(R"({"return": {}})")}, ControlErrc::driver_protocol},
        Damage{"IdOfAnotherType",
               {line(kGreeting), kReady, line(R"({"return": {}, "id": "x"})")},
               ControlErrc::driver_protocol},
        Damage{"NeitherAnswerNorError", {line(kGreeting), kReady, line(R"({"id": ID})")}, ControlErrc::driver_protocol},
        Damage{"ErrorThatIsNoObject",
               {line(kGreeting), kReady, line(R"({"error": 5, "id": ID})")},
               ControlErrc::driver_protocol},
        Damage{"LineWithoutEnd",
               {line(kGreeting), kReady, std::string(kMaxQmpMessage + 65536, 'x')},
               ControlErrc::driver_protocol}),
    [](const auto& test) { return test.param.name; });

TEST(QmpClient, NobodyThere) {
  const auto client = QmpClient::connect("/tmp/backhaul-no-such-socket", 100ms);
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error(), make_error_code(ControlErrc::driver_failed));
  EXPECT_FALSE(QmpClient::connect("/tmp/" + std::string(200, 'x'), 100ms));
}

}  // namespace
}  // namespace backhaul
