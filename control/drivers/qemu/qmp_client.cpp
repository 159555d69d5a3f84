#include "control/drivers/qemu/qmp_client.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <cstring>

#include "base/world.h"
#include "control/model/control_error.h"

namespace backhaul {
namespace {

using SteadyClock = std::chrono::steady_clock;

// Milliseconds for poll(), rounded up, so that a wait never spins.
int left_ms(SteadyClock::time_point deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - SteadyClock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 3'600'000));
}

// One poll; whether the socket is ready. A signal counts as not ready.
bool wait_for(int fd, short what, SteadyClock::time_point deadline) {
  pollfd poll_fd{fd, what, 0};
  return ::poll(&poll_fd, 1, left_ms(deadline)) > 0;
}

std::string text_of(const boost::json::object& object, std::string_view key) {
  const auto* value = object.if_contains(key);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

}  // namespace

QmpClient::QmpClient(UniqueFd socket, std::chrono::milliseconds timeout)
    : socket_(std::move(socket)), timeout_(timeout), next_id_(system_random().next() >> 12) {}

Result<std::unique_ptr<QmpClient>> QmpClient::connect(const std::string& socket, std::chrono::milliseconds timeout) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket.size() >= sizeof address.sun_path)
    return make_error(ControlErrc::driver_failed, fmt::format("QMP socket {}: the path is longer than {} bytes", socket,
                                                              sizeof address.sun_path - 1));
  std::memcpy(address.sun_path, socket.c_str(), socket.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return Error::from_errno(errno, "socket");
  // A full backlog gives EAGAIN at once: somebody else holds the monitor.
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return make_error(ControlErrc::driver_failed, fmt::format("QMP socket {}: {}", socket, std::strerror(errno)));
  std::unique_ptr<QmpClient> client(new QmpClient(std::move(fd), timeout));
  if (auto greeted = client->greet(); !greeted) return std::move(greeted).error().with_context("QMP socket " + socket);
  return client;
}

Error QmpClient::breaks(std::error_code code, std::string cause) {
  socket_.reset();
  return make_error(code, std::move(cause));
}

Result<void> QmpClient::greet() {
  BH_TRY(const auto greeting, receive(SteadyClock::now() + timeout_));
  if (!greeting)
    return breaks(ControlErrc::driver_timeout, "no greeting: another client may be connected to this monitor");
  if (!greeting->contains("QMP")) return breaks(ControlErrc::driver_protocol, "the greeting is not QMP's");
  BH_RETURN_IF_ERROR(execute("qmp_capabilities"));
  negotiated_ = true;
  return {};
}

Result<boost::json::value> QmpClient::execute(std::string_view command, const boost::json::object& arguments) {
  if (!socket_) return make_error(ControlErrc::driver_failed, fmt::format("{}: the connection is broken", command));
  const std::uint64_t id = next_id_++;
  boost::json::object request{{"execute", command}, {"id", id}};
  if (!arguments.empty()) request["arguments"] = arguments;
  const auto deadline = SteadyClock::now() + timeout_;
  if (auto sent = send(boost::json::serialize(request) + "\n", deadline); !sent)
    return std::move(sent).error().with_context(command);
  for (;;) {
    auto message = receive(deadline);
    if (!message) return std::move(message).error().with_context(command);
    if (!*message)
      return breaks(ControlErrc::driver_timeout, fmt::format("{}: no answer in {} ms", command, timeout_.count()));
    if ((*message)->contains("event")) {
      keep_event(**message);
      continue;
    }
    const auto* answered = (*message)->if_contains("id");
    boost::system::error_code failed;
    // A message that cannot be parsed is refused without an id; with one command at a time, it is ours.
    if (answered != nullptr && (answered->to_number<std::uint64_t>(failed) != id || failed)) {
      if (!negotiated_) continue;  // QEMU was in the middle of a command when its client ended, and tells us instead
      return breaks(ControlErrc::driver_protocol, fmt::format("{}: the answer has another command's id", command));
    }
    if (const auto* returned = (*message)->if_contains("return"); returned != nullptr && answered != nullptr)
      return *returned;
    const auto* refused = (*message)->if_contains("error");
    if (refused == nullptr || !refused->is_object())
      return breaks(ControlErrc::driver_protocol, fmt::format("{}: neither an answer nor an error", command));
    return make_error(ControlErrc::driver_failed,
                      fmt::format("{}: {}: {}", command, text_of(refused->get_object(), "class"),
                                  text_of(refused->get_object(), "desc")));
  }
}

Result<std::optional<QmpEvent>> QmpClient::next_event(std::chrono::milliseconds wait) {
  const auto deadline = SteadyClock::now() + wait;
  while (events_.empty()) {
    if (!socket_) return make_error(ControlErrc::driver_failed, "the connection is broken");
    BH_TRY(const auto message, receive(deadline));
    if (!message) return std::optional<QmpEvent>();
    if (message->contains("event")) keep_event(*message);  // a late answer of a command that was given up is dropped
  }
  std::optional<QmpEvent> event(std::move(events_.front()));
  events_.pop_front();
  return event;
}

void QmpClient::keep_event(const boost::json::object& message) {
  QmpEvent event{text_of(message, "event"), {}};
  if (const auto* data = message.if_contains("data"); data != nullptr && data->is_object())
    event.data = data->get_object();
  if (events_.size() == kMaxQmpEvents) events_.pop_front();
  events_.push_back(std::move(event));
}

Result<void> QmpClient::send(std::string_view text, Deadline deadline) {
  while (!text.empty()) {
    const auto sent = ::send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      text.remove_prefix(static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN || errno == EINTR) {
      if (SteadyClock::now() >= deadline) return breaks(ControlErrc::driver_timeout, "QEMU does not read its monitor");
      wait_for(socket_.get(), POLLOUT, deadline);
    } else {
      return breaks(ControlErrc::driver_failed, fmt::format("the connection broke: {}", std::strerror(errno)));
    }
  }
  return {};
}

Result<std::optional<std::string>> QmpClient::receive_line(Deadline deadline) {
  for (;;) {
    if (const auto end = buffer_.find('\n', scanned_); end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      scanned_ = 0;
      return std::optional(std::move(line));
    }
    scanned_ = buffer_.size();
    if (buffer_.size() > kMaxQmpMessage)
      return breaks(ControlErrc::driver_protocol, fmt::format("a message of more than {} bytes", kMaxQmpMessage));
    char chunk[16384];
    const auto got = ::recv(socket_.get(), chunk, sizeof chunk, 0);
    if (got > 0) {
      buffer_.append(chunk, static_cast<std::size_t>(got));
    } else if (got == 0) {
      return breaks(ControlErrc::driver_failed, "the connection was closed: QEMU ended, or another client took it");
    } else if (errno != EAGAIN && errno != EINTR) {
      return breaks(ControlErrc::driver_failed, fmt::format("the connection broke: {}", std::strerror(errno)));
    } else {
      if (SteadyClock::now() >= deadline) return std::optional<std::string>();
      wait_for(socket_.get(), POLLIN, deadline);
    }
  }
}

Result<std::optional<boost::json::object>> QmpClient::receive(Deadline deadline) {
  BH_TRY(const auto line, receive_line(deadline));
  if (!line) return std::optional<boost::json::object>();
  boost::system::error_code failed;
  auto message = boost::json::parse(*line, failed);  // bounded in depth by the parser (32)
  if (failed || !message.is_object()) return breaks(ControlErrc::driver_protocol, "a message is no JSON object");
  return std::optional(std::move(message.get_object()));
}

}  // namespace backhaul
