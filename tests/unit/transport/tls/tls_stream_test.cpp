#include "transport/tls/tls_stream.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <thread>

#include "transport/stream/transport_error.h"
#include "transport/tls/tls_internal.h"
#include "unit/transport/tls/tls_fixture.h"

namespace backhaul::test {
namespace {

using std::chrono::seconds;

class TlsStreamTest : public ::testing::TestWithParam<RecordsOfEnds> {
 protected:
  static void SetUpTestSuite() {
    directory_ = std::make_unique<TempDirectory>();
    ASSERT_TRUE(pki_init(directory_->path() / "pki"));
    ASSERT_TRUE(pki_init(directory_->path() / "other"));
  }
  static void TearDownTestSuite() { directory_.reset(); }

  static std::filesystem::path client() { return directory_->path() / "pki" / "appliance"; }
  static std::filesystem::path server() { return directory_->path() / "pki" / "host"; }
  static std::shared_ptr<TlsContext> client_context() {
    return *TlsContext::load(TlsRole::client, client(), GetParam().client);
  }
  static std::shared_ptr<TlsContext> server_context() {
    return *TlsContext::load(TlsRole::server, server(), GetParam().server);
  }

  static std::unique_ptr<TempDirectory> directory_;
};
std::unique_ptr<TempDirectory> TlsStreamTest::directory_;
INSTANTIATE_TEST_SUITE_P(Records, TlsStreamTest, ::testing::ValuesIn(kAllRecords), name_of);

std::vector<std::byte> random_bytes(std::size_t size, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i + 8 <= size; i += 8) {
    const auto value = random();
    std::memcpy(bytes.data() + i, &value, 8);
  }
  return bytes;
}

TEST_P(TlsStreamTest, carries_bytes_both_ways_and_ends_cleanly) {
  auto [c, s] = shake_hands(client(), server(), GetParam());
  ASSERT_TRUE(c) << c.error().to_string();
  ASSERT_TRUE(s) << s.error().to_string();
  EXPECT_EQ((*c)->alpn(), kAlpnBackhaul);
  EXPECT_EQ((*s)->alpn(), kAlpnBackhaul);
  EXPECT_EQ((*c)->record_layer(), layer_of(GetParam().client));
  EXPECT_EQ((*s)->record_layer(), layer_of(GetParam().server));
  EXPECT_EQ((*c)->peer_name(), "host");
  EXPECT_EQ((*s)->peer_name(), "appliance");

  const auto sent = random_bytes(100'000, 1);
  std::vector<std::byte> got(sent.size());
  ASSERT_TRUE(write_all(**c, sent));
  ASSERT_TRUE(read_all(**s, got));
  EXPECT_EQ(got, sent);
  EXPECT_GT((*c)->wire_bytes_sent(), sent.size());
  EXPECT_EQ((*c)->wire_bytes_sent(), (*s)->wire_bytes_received());

  (*c)->close();
  EXPECT_EQ(read_to_error(**s), make_error_code(TransportErrc::closed));
}

TEST_P(TlsStreamTest, a_wait_gathers_what_is_expected_and_the_end_wakes_it) {
  auto [c, s] = shake_hands(client(), server(), GetParam());
  ASSERT_TRUE(c && s);
  const auto sent = random_bytes(400'000, 6);
  std::vector<std::byte> got(sent.size());
  const auto send_part = [&, &stream = **c](std::size_t from, std::size_t to) {
    return write_all(stream, Bytes(sent).subspan(from, to - from));
  };
  // Whatever the ends said after the handshake is out of the way.
  ASSERT_TRUE(send_part(0, 1));
  ASSERT_TRUE(read_all(**s, MutableBytes(got).first(1)));

  (*s)->expect_input(sent.size() - 1);
  ASSERT_TRUE(send_part(1, 60'000));
  EXPECT_FALSE(*wait_stream(**s, false, std::chrono::milliseconds(50))) << "60 KB of 400 woke the reader";
  ASSERT_TRUE(send_part(60'000, sent.size()));
  ASSERT_TRUE(*wait_stream(**s, false, seconds(10)));
  ASSERT_TRUE(read_all(**s, MutableBytes(got).subspan(1)));
  EXPECT_TRUE(got == sent);

  // Nothing is known any more: one byte is enough. What is there can be read whatever was expected.
  (*s)->expect_input(0);
  ASSERT_TRUE(send_part(0, 1));
  EXPECT_TRUE(*wait_stream(**s, false, seconds(10)));
  EXPECT_EQ(*(*s)->read_some(got), 1U);
  (*s)->expect_input(300'000);
  ASSERT_TRUE(send_part(0, 1));
  EXPECT_FALSE(*wait_stream(**s, false, std::chrono::milliseconds(20)));
  EXPECT_EQ(*(*s)->read_some(got), 1U);
  ASSERT_TRUE(send_part(0, 1));
  EXPECT_TRUE(*wait_stream(**s, false, seconds(10))) << "the hint outlived what was read after it";
  EXPECT_EQ(*(*s)->read_some(got), 1U);
  (*s)->expect_input(300'000);
  (*c)->close();
  EXPECT_TRUE(*wait_stream(**s, false, seconds(10)));
  EXPECT_EQ(read_to_error(**s), make_error_code(TransportErrc::closed));
}

TEST_P(TlsStreamTest, serves_http_on_the_same_port) {
  auto [c, s] = shake_hands(client(), server(), GetParam(), "localhost", kAlpnHttp);
  ASSERT_TRUE(c) << c.error().to_string();
  ASSERT_TRUE(s) << s.error().to_string();
  EXPECT_EQ((*s)->alpn(), kAlpnHttp);
}

TEST_P(TlsStreamTest, moves_64_mib_both_ways_at_once) {
  auto [c, s] = shake_hands(client(), server(), GetParam());
  ASSERT_TRUE(c && s);
  const auto up = random_bytes(64 * kMiB, 2);
  const auto down = random_bytes(64 * kMiB, 3);
  // Each end in one thread that never waits for one direction only.
  const auto run = [](ByteStream& stream, Bytes out, MutableBytes in) -> Result<void> {
    bool flushed = false;
    while (!out.empty() || !in.empty() || !flushed) {
      BH_TRY(const std::size_t taken, stream.write_some(out.first(std::min<std::size_t>(out.size(), kMiB))));
      out = out.subspan(taken);
      BH_TRY(flushed, stream.flush());
      std::size_t got = 0;
      if (!in.empty()) {
        BH_TRY(got, stream.read_some(in.first(std::min<std::size_t>(in.size(), kMiB))));
        in = in.subspan(got);
      }
      if (taken == 0 && got == 0) {
        const bool for_write = in.empty();
        BH_TRY(const bool ready,
               wait_stream(stream, for_write, for_write ? seconds(10) : std::chrono::milliseconds(1)));
        if (!ready && for_write) return make_error(BaseErrc::timed_out);
      }
    }
    return {};
  };
  std::vector<std::byte> at_server(up.size()), at_client(down.size());
  auto other = std::async(std::launch::async, [&, &stream = **s] { return run(stream, down, at_server); });
  auto mine = run(**c, up, at_client);
  auto theirs = other.get();
  ASSERT_TRUE(mine) << mine.error().to_string();
  ASSERT_TRUE(theirs) << theirs.error().to_string();
  EXPECT_TRUE(at_server == up);
  EXPECT_TRUE(at_client == down);
}

TEST_P(TlsStreamTest, changes_its_key_on_the_way) {
  const auto client = client_context(), server = server_context();
  const auto wire_bytes = [&](std::uint64_t records_per_key) {
    client->impl().limits.due = records_per_key;
    auto [c, s] = shake_hands(*client, *server);
    EXPECT_TRUE(c && s);
    const auto handshake = (*c)->wire_bytes_sent();
    const auto sent = random_bytes(128 * kKiB, 4);
    std::vector<std::byte> got(sent.size());
    EXPECT_TRUE(write_all(**c, sent));
    EXPECT_TRUE(read_all(**s, got));
    EXPECT_TRUE(got == sent);
    return (*c)->wire_bytes_sent() - handshake;
  };
  // A key update is a record of 5 + 5 + 1 + 16 bytes; eight records of data have room for three of them.
  EXPECT_EQ(wire_bytes(2), wire_bytes(1000) + 3 * 27);
}

TEST_P(TlsStreamTest, carries_each_suite) {
  for (const char* suite : {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}) {
    const auto client = client_context(), server = server_context();
    ASSERT_EQ(SSL_CTX_set_ciphersuites(client->impl().context.get(), suite), 1);
    auto [c, s] = shake_hands(*client, *server);
    ASSERT_TRUE(c && s) << suite;
    const bool ours = std::string_view(suite).find("GCM") != std::string_view::npos;
    EXPECT_EQ((*c)->record_layer(), ours ? layer_of(GetParam().client) : "openssl") << suite;
    const auto sent = random_bytes(100'000, 5);
    std::vector<std::byte> got(sent.size());
    ASSERT_TRUE(write_all(**s, sent));
    ASSERT_TRUE(read_all(**c, got));
    EXPECT_TRUE(got == sent) << suite;
    (*s)->close();
    EXPECT_EQ(read_to_error(**c), make_error_code(TransportErrc::closed)) << suite;
  }
}

// Bytes behind the handshake's last flight, which the other end reads together with it.
TEST_P(TlsStreamTest, loses_nothing_that_comes_with_the_end_of_the_handshake) {
  for (const bool read_ahead : {false, true}) {  // true: OpenSSL itself has read them, and must keep the stream
    const auto client = client_context(), server = server_context();
    SSL_CTX_set_read_ahead(server->impl().context.get(), read_ahead ? 1 : 0);
    const auto sent = random_bytes(3000, 6);
    Listener front, back;
    auto accepted = std::async(std::launch::async, [&] { return tls_accept(*server, back.accept(), seconds(10)); });
    std::promise<void> written;
    std::thread relay([&, ready = written.get_future()] {
      const auto c = front.accept(), s = connect_plain(back.port());
      std::vector<std::byte> bytes(64 * kKiB);
      const auto pass = [&](const UniqueFd& from, const UniqueFd& to) {
        const auto count = ::recv(from.get(), bytes.data(), bytes.size(), 0);
        ASSERT_GT(count, 0);
        ASSERT_EQ(::send(to.get(), bytes.data(), static_cast<std::size_t>(count), MSG_NOSIGNAL), count);
      };
      pass(c, s);  // the client's hello
      // The server's flight, until the client has answered it and said more.
      std::jthread back_way([&] {
        std::vector<std::byte> down(64 * kKiB);
        while (true) {
          const auto count = ::recv(s.get(), down.data(), down.size(), 0);
          if (count <= 0) return;
          if (::send(c.get(), down.data(), static_cast<std::size_t>(count), MSG_NOSIGNAL) != count) return;
        }
      });
      ready.wait();
      pass(c, s);  // at once: its last flight, and data
      pass(c, s);  // the goodbye
    });
    auto c = tls_connect(*client, {"127.0.0.1", front.port()}, kAlpnBackhaul, seconds(10));
    ASSERT_TRUE(c) << c.error().to_string();
    ASSERT_TRUE(write_all(**c, sent));
    written.set_value();
    auto s = accepted.get();
    ASSERT_TRUE(s) << s.error().to_string();
    EXPECT_EQ((*s)->record_layer(), read_ahead ? "openssl" : layer_of(GetParam().server));
    std::vector<std::byte> got(sent.size());
    ASSERT_TRUE(read_all(**s, got));
    EXPECT_TRUE(got == sent);
    (*c)->close();
    EXPECT_EQ(read_to_error(**s), make_error_code(TransportErrc::closed));
    (*s)->close();
    relay.join();
  }
}

// What was read stays good, and what waits in the stream is said to wait.
TEST_P(TlsStreamTest, hands_out_a_record_in_pieces) {
  auto [c, s] = shake_hands(client(), server(), GetParam());
  ASSERT_TRUE(c && s);
  const auto sent = random_bytes(16 * kKiB, 7);
  ASSERT_TRUE(write_all(**c, sent));
  EXPECT_FALSE((*s)->has_buffered_input());
  std::vector<std::byte> got(sent.size());
  ASSERT_TRUE(read_all(**s, MutableBytes(got).first(1)));
  EXPECT_TRUE((*s)->has_buffered_input());
  ASSERT_TRUE(read_all(**s, MutableBytes(got).subspan(1, 5000)));
  EXPECT_TRUE((*s)->has_buffered_input());
  ASSERT_TRUE(read_all(**s, MutableBytes(got).subspan(5001)));
  EXPECT_FALSE((*s)->has_buffered_input());
  EXPECT_TRUE(got == sent);
}

}  // namespace
}  // namespace backhaul::test
