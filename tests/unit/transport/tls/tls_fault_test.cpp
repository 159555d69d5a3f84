// Faults on the wire below TLS, made by a proxy between two ends of ours: a flipped bit, an end without a goodbye, a
// reset.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <limits>
#include <thread>

#include "transport/stream/transport_error.h"
#include "unit/transport/tls/tls_fixture.h"

namespace backhaul::test {
namespace {

using std::chrono::seconds;
constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();

// Offsets count what goes from the client to the server.
struct WireFault {
  std::uint64_t flip_at = kNever;
  std::uint64_t cut_at = kNever;
  bool reset = false;  // the cut is a reset instead of an end of file
};

// Relays one connection until either side ends or the fault says so.
class Proxy {
 public:
  Proxy(std::uint16_t to, WireFault fault)
      : fault_(fault), thread_([this, to] { run(listener_.accept(), connect_plain(to)); }) {}
  ~Proxy() { thread_.join(); }
  std::uint16_t port() const noexcept { return listener_.port(); }

 private:
  void run(UniqueFd client, UniqueFd server) {
    pollfd entries[2] = {{client.get(), POLLIN, 0}, {server.get(), POLLIN, 0}};
    std::uint64_t passed = 0;
    while (::poll(entries, 2, 10'000) > 0) {
      for (int side = 0; side < 2; ++side) {
        if (entries[side].revents == 0) continue;
        char bytes[4096];
        auto count = ::recv(entries[side].fd, bytes, sizeof bytes, 0);
        if (count <= 0) return;
        if (side == 0) {
          const auto size = static_cast<std::uint64_t>(count);
          if (fault_.flip_at >= passed && fault_.flip_at < passed + size) bytes[fault_.flip_at - passed] ^= 0x20;
          if (fault_.cut_at < passed + size) {
            const linger now{1, 0};
            if (fault_.reset)
              for (const auto& entry : entries) ::setsockopt(entry.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
            return;
          }
          passed += size;
        }
        if (::send(entries[1 - side].fd, bytes, static_cast<std::size_t>(count), MSG_NOSIGNAL) != count) return;
      }
    }
  }

  Listener listener_;
  WireFault fault_;
  std::thread thread_;
};

class TlsFaultTest : public ::testing::TestWithParam<RecordsOfEnds> {
 protected:
  static void SetUpTestSuite() {
    directory_ = std::make_unique<TempDirectory>();
    ASSERT_TRUE(pki_init(directory_->path()));
  }
  static void TearDownTestSuite() { directory_.reset(); }
  void SetUp() override {
    client_ = *TlsContext::load(TlsRole::client, directory_->path() / "appliance", GetParam().client);
    server_ = *TlsContext::load(TlsRole::server, directory_->path() / "host", GetParam().server);
  }

  struct Outcome {
    Error client = make_error(BaseErrc::internal, "no error"), server = client;
    bool established = false;
    std::size_t received = 0;
    bool content_right = true;
  };
  // The client sends 256 KiB of a known pattern through the proxy; both ends go on until they get an error.
  Outcome run(WireFault fault) {
    Outcome outcome;
    Listener listener;
    std::thread server([&] {
      auto stream = tls_accept(*server_, listener.accept(), seconds(10));
      if (!stream) {
        outcome.server = stream.error();
        return;
      }
      std::vector<std::byte> scratch(10'000);
      while (true) {
        auto got = (*stream)->read_some(scratch);
        if (!got) {
          outcome.server = got.error();
          return;
        }
        for (std::size_t i = 0; i < *got; ++i)
          outcome.content_right &= scratch[i] == static_cast<std::byte>((outcome.received + i) % 251);
        outcome.received += *got;
        if (*got == 0 && !*wait_stream(**stream, false, seconds(10))) return;
      }
    });
    {
      Proxy proxy(listener.port(), fault);
      auto stream = tls_connect(*client_, {"127.0.0.1", proxy.port()}, kAlpnBackhaul, seconds(10));
      if (stream) {
        outcome.established = true;
        std::vector<std::byte> bytes(256 * kKiB);
        for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i % 251);
        auto written = write_all(**stream, bytes);
        outcome.client = written ? read_to_error(**stream) : written.error();
      } else {
        outcome.client = stream.error();
      }
    }
    server.join();
    return outcome;
  }

  static std::unique_ptr<TempDirectory> directory_;
  std::shared_ptr<TlsContext> client_, server_;
};
std::unique_ptr<TempDirectory> TlsFaultTest::directory_;
INSTANTIATE_TEST_SUITE_P(Records, TlsFaultTest, ::testing::ValuesIn(kAllRecords), name_of);

TEST_P(TlsFaultTest, a_flipped_bit_in_the_data_is_noticed_and_worth_a_retry) {
  for (const std::uint64_t at : {5'000, 70'000, 200'000}) {
    const auto outcome = run({.flip_at = at});
    EXPECT_TRUE(outcome.established);
    EXPECT_EQ(outcome.server, make_error_code(TransportErrc::tls_record_damaged)) << outcome.server.to_string();
    EXPECT_EQ(outcome.server.retry(), Retry::later);
    EXPECT_LT(outcome.received, at);
    EXPECT_TRUE(outcome.content_right);
    EXPECT_EQ(outcome.client.retry(), Retry::later)
        << "the server's alert, or the lost connection: " << outcome.client.to_string();
  }
}

TEST_P(TlsFaultTest, a_flipped_bit_in_the_handshake_gives_no_stream) {
  for (std::uint64_t at = 0; at < 600; at += 41) {
    const auto outcome = run({.flip_at = at});
    EXPECT_EQ(outcome.server.code().category(), transport_category()) << at << ": " << outcome.server.to_string();
    EXPECT_EQ(outcome.received, 0U) << at;
    EXPECT_NE(outcome.client, make_error_code(BaseErrc::timed_out)) << at;
  }
}

TEST_P(TlsFaultTest, an_end_without_a_goodbye_is_a_lost_connection) {
  for (const bool reset : {false, true}) {
    const auto outcome = run({.cut_at = 100'000, .reset = reset});
    EXPECT_TRUE(outcome.established);
    EXPECT_EQ(outcome.server, make_error_code(TransportErrc::lost)) << outcome.server.to_string();
    EXPECT_EQ(outcome.client, make_error_code(TransportErrc::lost)) << outcome.client.to_string();
    EXPECT_EQ(outcome.server.retry(), Retry::later);
    EXPECT_LT(outcome.received, 100'000U);
    EXPECT_TRUE(outcome.content_right);
  }
}

TEST_P(TlsFaultTest, a_cut_in_the_handshake_is_a_lost_connection) {
  for (const std::uint64_t at : {0, 100, 600}) {
    const auto outcome = run({.cut_at = at});
    EXPECT_EQ(outcome.server, make_error_code(TransportErrc::lost)) << at << ": " << outcome.server.to_string();
    EXPECT_EQ(outcome.client, make_error_code(TransportErrc::lost)) << at << ": " << outcome.client.to_string();
  }
}

}  // namespace
}  // namespace backhaul::test
