#include "transport/tls/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <fmt/format.h>
#include <algorithm>
#include <cerrno>
#include <thread>

#include "transport/stream/transport_error.h"

namespace backhaul {
namespace {

constexpr int kUserTimeoutMs = 30'000;
constexpr int kKeepIdleS = 10;
constexpr int kKeepIntervalS = 5;
constexpr int kKeepCount = 4;
constexpr std::chrono::microseconds kPauseWithoutHandle{50};

struct FreeAddresses {
  void operator()(addrinfo* list) const noexcept { ::freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

Result<Addresses> resolve(const Endpoint& endpoint) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* list = nullptr;
  const int failed = ::getaddrinfo(endpoint.host.c_str(), std::to_string(endpoint.port).c_str(), &hints, &list);
  if (failed == EAI_AGAIN)
    return Error::from_errno(EHOSTUNREACH, "resolve " + endpoint.host + " (no name server answers)");
  if (failed != 0)
    return make_error(TransportErrc::resolve_failed, fmt::format("{}: {}", endpoint.host, ::gai_strerror(failed)));
  return Addresses(list);
}

Result<UniqueFd> connect_one(const addrinfo& address, const std::string& what, SteadyTime deadline) {
  UniqueFd socket(::socket(address.ai_family, address.ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address.ai_protocol));
  if (!socket) return Error::from_errno(errno, what);
  BH_RETURN_IF_ERROR(set_socket_options(socket.get()));
  if (::connect(socket.get(), address.ai_addr, address.ai_addrlen) != 0) {
    if (errno != EINPROGRESS) return Error::from_errno(errno, what);
    BH_TRY(const bool ready, poll_socket(socket.get(), true, deadline));
    if (!ready) return Error::from_errno(ETIMEDOUT, what);
    int number = 0;
    socklen_t size = sizeof number;
    ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &number, &size);
    if (number != 0) return Error::from_errno(number, what);
  }
  return socket;
}

}  // namespace

bool is_ip_address(const std::string& host) noexcept {
  in6_addr any{};
  return ::inet_pton(AF_INET, host.c_str(), &any) == 1 || ::inet_pton(AF_INET6, host.c_str(), &any) == 1;
}

std::string ip_address_text(const unsigned char* bytes, std::size_t size) {
  char text[INET6_ADDRSTRLEN];
  if ((size != 4 && size != 16) || ::inet_ntop(size == 4 ? AF_INET : AF_INET6, bytes, text, sizeof text) == nullptr)
    return "?";
  return text;
}

std::string endpoint_text(const Endpoint& endpoint) {
  const bool v6 = endpoint.host.find(':') != std::string::npos;
  return v6 ? fmt::format("[{}]:{}", endpoint.host, endpoint.port) : fmt::format("{}:{}", endpoint.host, endpoint.port);
}

std::string peer_address(const ByteStream& stream) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  char host[NI_MAXHOST];
  if (stream.poll_handle() < 0 ||
      ::getpeername(static_cast<int>(stream.poll_handle()), reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
      ::getnameinfo(reinterpret_cast<sockaddr*>(&address), size, host, sizeof host, nullptr, 0, NI_NUMERICHOST) != 0)
    return {};
  return host;
}

std::string socket_peer_text(int socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (::getpeername(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
      ::getnameinfo(reinterpret_cast<sockaddr*>(&address), size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return "a peer";
  return std::string(host).find(':') != std::string::npos ? fmt::format("[{}]:{}", host, port)
                                                          : fmt::format("{}:{}", host, port);
}

Result<void> set_socket_options(int socket) {
  const int flags = ::fcntl(socket, F_GETFL);
  if (flags < 0 || ::fcntl(socket, F_SETFL, flags | O_NONBLOCK) != 0)
    return Error::from_errno(errno, "set up a socket");
  const auto set = [&](int level, int name, int value) {
    return ::setsockopt(socket, level, name, &value, sizeof value);
  };
  // These fail on what is not TCP (tests use socket pairs), where they are not needed.
  if (set(IPPROTO_TCP, TCP_NODELAY, 1) != 0) return {};
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, kUserTimeoutMs);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, kKeepIdleS);
  set(IPPROTO_TCP, TCP_KEEPINTVL, kKeepIntervalS);
  set(IPPROTO_TCP, TCP_KEEPCNT, kKeepCount);
  return {};
}

Result<UniqueFd> connect_socket(const Endpoint& endpoint, SteadyTime deadline) {
  BH_TRY(const auto addresses, resolve(endpoint));
  const auto what = "connect to " + endpoint_text(endpoint);
  Result<UniqueFd> last = make_error(TransportErrc::resolve_failed, endpoint.host);
  for (const addrinfo* address = addresses.get(); address != nullptr; address = address->ai_next) {
    last = connect_one(*address, what, deadline);
    if (last) break;
  }
  return last;
}

Result<bool> poll_socket(PollHandle handle, bool for_write, SteadyTime deadline) {
  if (handle < 0) {
    std::this_thread::sleep_for(kPauseWithoutHandle);
    return true;
  }
  pollfd entry{static_cast<int>(handle), static_cast<short>(for_write ? POLLOUT : POLLIN), 0};
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
    const int ready = ::poll(&entry, 1, static_cast<int>(std::clamp<std::int64_t>(left, 0, 3'600'000)));
    if (ready > 0) return true;
    if (ready == 0 && left <= 3'600'000) return false;
    if (ready < 0 && errno != EINTR) return Error::from_errno(errno, "poll a socket");
  }
}

}  // namespace backhaul
