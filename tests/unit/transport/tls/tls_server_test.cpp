// The port of a server: taken for good it is refused by name; a killed daemon's, which a program that it was about to
// start still holds for a moment, is waited for.
#include "transport/tls/tls_server.h"

#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <thread>

#include "transport/stream/transport_error.h"
#include "unit/transport/tls/tls_fixture.h"

namespace backhaul::test {
namespace {

class TlsServerPort : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(pki_init(directory_.path() / "pki"));
    context_ = TlsContext::load(TlsRole::server, directory_.path() / "pki" / "host").value();
  }

  TempDirectory directory_;
  std::shared_ptr<TlsContext> context_;
};

TEST_F(TlsServerPort, ThatSomebodyHasIsRefusedByName) {
  const Listener holder;
  const auto refused = TlsServer::listen({"127.0.0.1", holder.port()}, context_);
  ASSERT_FALSE(refused);
  EXPECT_TRUE(refused.error().is(std::make_error_code(std::errc::address_in_use))) << refused.error().to_string();
  EXPECT_NE(refused.error().cause().find(std::to_string(holder.port())), std::string::npos);
}

TEST_F(TlsServerPort, ThatBecomesFreeIsTaken) {
  std::optional<Listener> holder(std::in_place);
  const auto port = holder->port();
  std::thread frees([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    holder.reset();
  });
  const auto server = TlsServer::listen({"127.0.0.1", port}, context_);
  frees.join();
  ASSERT_TRUE(server) << server.error().to_string();
  EXPECT_EQ((*server)->port(), port);
}

}  // namespace
}  // namespace backhaul::test
