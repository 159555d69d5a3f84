#include "unit/transport/tls/tls_fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <chrono>
#include <cstdlib>
#include <future>
#include <stdexcept>

#include "transport/tls/aead.h"

namespace backhaul::test {
namespace {

using std::chrono::seconds;

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

StreamResult failed(const Error& error) { return error; }

}  // namespace

TempDirectory::TempDirectory() {
  std::string pattern = (std::filesystem::temp_directory_path() / "backhaul-test-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp");
  path_ = pattern;
}

TempDirectory::~TempDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

Listener::Listener() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  auto address = loopback(0);
  socklen_t size = sizeof address;
  if (::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(socket_.get(), 16) != 0 ||
      ::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0)
    throw std::runtime_error("listen");
  port_ = ntohs(address.sin_port);
}

UniqueFd Listener::accept() { return UniqueFd(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC)); }

UniqueFd connect_plain(std::uint16_t port) {
  UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto address = loopback(port);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    throw std::runtime_error("connect");
  return socket;
}

std::string name_of(const ::testing::TestParamInfo<RecordsOfEnds>& info) {
  const auto name = [](TlsRecords records) { return records == TlsRecords::automatic ? "own" : "openssl"; };
  return std::string(name(info.param.client)) + "_to_" + name(info.param.server);
}

std::string_view layer_of(TlsRecords records) {
  return records == TlsRecords::automatic && AesGcm::available() ? "libipsec-mb" : "openssl";
}

Ends shake_hands(const std::filesystem::path& client_directory, const std::filesystem::path& server_directory,
                 RecordsOfEnds records, const std::string& host, std::string_view alpn) {
  auto client_context = TlsContext::load(TlsRole::client, client_directory, records.client);
  if (!client_context) return {failed(client_context.error()), failed(client_context.error())};
  auto server_context = TlsContext::load(TlsRole::server, server_directory, records.server);
  if (!server_context) return {failed(server_context.error()), failed(server_context.error())};
  Listener listener;
  auto server = std::async(std::launch::async, [&]() -> StreamResult {
    return tls_accept(**server_context, listener.accept(), seconds(10));
  });
  auto client = tls_connect(**client_context, {host, listener.port()}, alpn, seconds(10));
  return {std::move(client), server.get()};
}

Ends shake_hands(TlsContext& client, TlsContext& server) {
  Listener listener;
  auto accepted = std::async(std::launch::async, [&] { return tls_accept(server, listener.accept(), seconds(10)); });
  auto connected = tls_connect(client, {"127.0.0.1", listener.port()}, kAlpnBackhaul, seconds(10));
  return {std::move(connected), accepted.get()};
}

Error read_to_error(ByteStream& stream) {
  std::byte scratch[4096];
  while (true) {
    auto got = stream.read_some(scratch);
    if (!got) return got.error();
    if (*got > 0) continue;
    auto ready = wait_stream(stream, false, seconds(10));
    if (!ready) return ready.error();
    if (!*ready) return make_error(BaseErrc::timed_out);
  }
}

Result<void> write_all(ByteStream& stream, Bytes bytes) {
  while (true) {
    BH_TRY(const std::size_t taken, stream.write_some(bytes));
    bytes = bytes.subspan(taken);
    BH_TRY(const bool out, stream.flush());
    if (bytes.empty() && out) return {};
    if (out && taken > 0) continue;
    BH_TRY(const bool ready, wait_stream(stream, true, seconds(10)));
    if (!ready) return make_error(BaseErrc::timed_out);
  }
}

Result<void> read_all(ByteStream& stream, MutableBytes into) {
  while (!into.empty()) {
    BH_TRY(const std::size_t got, stream.read_some(into));
    into = into.subspan(got);
    if (got > 0) continue;
    BH_TRY(const bool ready, wait_stream(stream, false, seconds(10)));
    if (!ready) return make_error(BaseErrc::timed_out);
  }
  return {};
}

}  // namespace backhaul::test
