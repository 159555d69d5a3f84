// A server that takes requests and answers none: each way of waiting for it ends, says so, and leaves nothing in
// flight.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/unique_fd.h"
#include "dataplane/nbd/nbd.h"
#include "dataplane/nbd/nbd_connection.h"

namespace backhaul {
namespace {

constexpr NbdTimeouts kShort{std::chrono::seconds(60), std::chrono::seconds(1)};
constexpr std::uint64_t kSize = 1 << 20;

void append_big_endian(std::string& text, std::uint64_t value, int bytes) {
  for (int i = bytes - 1; i >= 0; --i) text += static_cast<char>(value >> (8 * i));
}

// The old handshake of NBD's protocol document: all that a server says before the first request.
std::string greeting() {
  std::string text = "NBDMAGIC";
  append_big_endian(text, 0x00420281861253, 8);
  append_big_endian(text, kSize, 8);
  append_big_endian(text, 0x0003, 4);  // has flags, read-only
  return text + std::string(124, '\0');
}

// Takes one client, greets it when told to, and then only reads, until the client is gone.
class SilentServer {
 public:
  explicit SilentServer(bool greets) {
    std::string name = (std::filesystem::temp_directory_path() / "bh-nbd-XXXXXX").string();
    folder_ = mkdtemp(name.data());
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    socket().copy(address.sun_path, sizeof address.sun_path - 1);
    listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listener_.get(), 1), 0);
    thread_ = std::thread([this, greets] {
      const UniqueFd client(::accept(listener_.get(), nullptr, nullptr));
      const auto text = greeting();
      if (greets && ::send(client.get(), text.data(), text.size(), MSG_NOSIGNAL) < 0) return;
      char ignored[256];
      while (::read(client.get(), ignored, sizeof ignored) > 0) {
      }
    });
  }
  ~SilentServer() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
    std::filesystem::remove_all(folder_);
  }
  SilentServer(const SilentServer&) = delete;
  SilentServer& operator=(const SilentServer&) = delete;

  std::string uri() const { return "nbd+unix:///?socket=" + socket(); }

 private:
  std::string socket() const { return (folder_ / "socket").string(); }

  std::filesystem::path folder_;
  UniqueFd listener_;
  std::thread thread_;
};

TEST(NbdSilence, OneRequestEndsInTime) {
  SilentServer server(true);
  auto connection = NbdConnection::open(server.uri(), kShort);
  ASSERT_TRUE(connection) << connection.error().to_string();
  EXPECT_EQ((*connection)->size(), kSize);
  char into[512];
  const auto read = [&](nbd_completion_callback done) {
    return nbd_aio_pread((*connection)->handle(), into, sizeof into, 0, done, 0);
  };
  const auto answer = (*connection)->run(read, kShort.reply);
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error(), NbdErrc::silent) << answer.error().to_string();
  EXPECT_EQ(answer.error().retry(), Retry::later);
  EXPECT_TRUE((*connection)->dead());
  EXPECT_EQ(nbd_aio_in_flight((*connection)->handle()), 0) << "nothing writes to our memory any more";
}

TEST(NbdSilence, ALanesQueueEndsInTime) {
  SilentServer server(true);
  auto connection = NbdConnection::open(server.uri(), kShort);
  ASSERT_TRUE(connection) << connection.error().to_string();
  const auto file = make_nbd_file(*connection);
  auto queue = make_nbd_queue(*connection);
  ASSERT_TRUE(queue);
  std::vector<std::byte> memory(2 * 4096);
  for (std::uint64_t i : {0, 1}) (*queue)->read(*file, i * 4096, std::span(memory).subspan(i * 4096, 4096), i);
  for (;;) {
    const auto answer = (*queue)->wait(nullptr, std::chrono::milliseconds(100));
    if (answer) {
      ASSERT_TRUE(answer->empty());
      continue;
    }
    EXPECT_EQ(answer.error(), NbdErrc::silent) << answer.error().to_string();
    break;
  }
  EXPECT_EQ((*queue)->in_flight(), 0U);
  EXPECT_EQ(file->read_at(0, std::span(memory).first(512)).error(), NbdErrc::server_gone) << "and so it stays";
}

TEST(NbdSilence, AHandshakeEndsInTime) {
  SilentServer server(false);
  const auto connection = NbdConnection::open(server.uri(), {std::chrono::seconds(1), std::chrono::seconds(1)});
  ASSERT_FALSE(connection);
  EXPECT_EQ(connection.error(), NbdErrc::cannot_connect);
  EXPECT_NE(connection.error().cause().find("no handshake in 1 s"), std::string::npos) << connection.error().cause();
}

}  // namespace
}  // namespace backhaul
