#include "transport/tls_stream.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <random>
#include <thread>

#include "transport/tls_internal.h"
#include "transport/transport_error.h"
#include "unit/transport/tls_fixture.h"

namespace backhaul::test {
namespace {

using std::chrono::seconds;

class TlsStreamTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ = std::make_unique<TempDirectory>();
    ASSERT_TRUE(pki_init(directory_->path() / "pki"));
    ASSERT_TRUE(pki_init(directory_->path() / "other"));
  }
  static void TearDownTestSuite() { directory_.reset(); }

  static std::filesystem::path client() { return directory_->path() / "pki" / "appliance"; }
  static std::filesystem::path server() { return directory_->path() / "pki" / "host"; }

  static std::unique_ptr<TempDirectory> directory_;
};
std::unique_ptr<TempDirectory> TlsStreamTest::directory_;

std::vector<std::byte> random_bytes(std::size_t size, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i + 8 <= size; i += 8) {
    const auto value = random();
    std::memcpy(bytes.data() + i, &value, 8);
  }
  return bytes;
}

TEST_F(TlsStreamTest, carries_bytes_both_ways_and_ends_cleanly) {
  auto [c, s] = shake_hands(client(), server());
  ASSERT_TRUE(c) << c.error().to_string();
  ASSERT_TRUE(s) << s.error().to_string();
  EXPECT_EQ((*c)->alpn(), kAlpnBackhaul);
  EXPECT_EQ((*s)->alpn(), kAlpnBackhaul);
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

TEST_F(TlsStreamTest, serves_http_on_the_same_port) {
  auto [c, s] = shake_hands(client(), server(), "localhost", kAlpnHttp);
  ASSERT_TRUE(c) << c.error().to_string();
  ASSERT_TRUE(s) << s.error().to_string();
  EXPECT_EQ((*s)->alpn(), kAlpnHttp);
}

TEST_F(TlsStreamTest, moves_64_mib_both_ways_at_once) {
  auto [c, s] = shake_hands(client(), server());
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

TEST_F(TlsStreamTest, changes_its_key_on_the_way) {
  auto client_context = *TlsContext::load(TlsRole::client, client());
  auto server_context = *TlsContext::load(TlsRole::server, server());
  const auto wire_bytes = [&](std::uint64_t records_per_key) {
    client_context->impl().records_per_key = records_per_key;
    Listener listener;
    auto accepted =
        std::async(std::launch::async, [&] { return tls_accept(*server_context, listener.accept(), seconds(10)); });
    auto c = tls_connect(*client_context, {"127.0.0.1", listener.port()}, kAlpnBackhaul, seconds(10));
    auto s = accepted.get();
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

}  // namespace
}  // namespace backhaul::test
