#include "dataplane/nbd/nbd_connection.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>

#include "dataplane/nbd/nbd.h"

namespace backhaul {
namespace {

using SteadyClock = std::chrono::steady_clock;

// Sizes of servers that tell none: every server takes them (NBD's protocol document, "Block size constraints").
constexpr std::uint64_t kDefaultMinimum = 512, kDefaultMaximum = std::uint64_t{32} << 20;
constexpr std::uint64_t kLargestMinimum = 64 << 10;

// Bounded: another thread may change which events the socket waits for.
constexpr Clock::Duration kLongestPoll = std::chrono::seconds(1);
// A stream without a handle is asked again this often.
constexpr Clock::Duration kHandlelessPause = std::chrono::milliseconds(1);

std::string last_error() {
  const char* why = nbd_get_error();
  return why == nullptr ? "no reason given" : why;
}

struct Call {
  std::atomic<bool> done{false};
  int error = 0;
  NbdSignal signal;

  // libnbd may call back as late as when the handle is closed: it holds the Call with us.
  static nbd_completion_callback callback(const std::shared_ptr<Call>& self) {
    return {&Call::completed, new std::shared_ptr<Call>(self), &Call::let_go};
  }
  static void let_go(void* self) { delete static_cast<std::shared_ptr<Call>*>(self); }
  static int completed(void* self, int* error) {
    auto& call = **static_cast<std::shared_ptr<Call>*>(self);
    call.error = *error;
    call.done = true;
    call.signal.set();
    return 1;
  }
};

}  // namespace

Result<void> NbdSignal::open() {
  event_.reset(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!event_) return Error::from_errno(errno, "eventfd");
  return {};
}

void NbdSignal::set() const noexcept { static_cast<void>(::eventfd_write(event_.get(), 1)); }

void NbdSignal::clear() const noexcept {
  eventfd_t count = 0;
  static_cast<void>(::eventfd_read(event_.get(), &count));
}

Result<std::shared_ptr<NbdConnection>> NbdConnection::open(const std::string& uri, const NbdTimeouts& timeouts,
                                                           const std::string& context) {
  std::shared_ptr<NbdConnection> connection(new NbdConnection(uri, context, timeouts));
  BH_RETURN_IF_ERROR(connection->connect());
  BH_RETURN_IF_ERROR(connection->negotiate());
  BH_RETURN_IF_ERROR(connection->read_limits());
  return connection;
}

Result<void> NbdConnection::connect() {
  handle_.reset(nbd_create());
  auto* nbd = handle();
  if (nbd == nullptr || nbd_set_opt_mode(nbd, true) < 0 || nbd_set_uri_allow_tls(nbd, LIBNBD_TLS_DISABLE) < 0 ||
      nbd_set_uri_allow_transports(nbd, LIBNBD_ALLOW_TRANSPORT_TCP | LIBNBD_ALLOW_TRANSPORT_UNIX) < 0 ||
      nbd_add_meta_context(nbd, context_.c_str()) < 0 || nbd_aio_connect_uri(nbd, name_.c_str()) < 0)
    return make_error(NbdErrc::cannot_connect, name_ + ": " + last_error());
  NbdSignal none;
  BH_RETURN_IF_ERROR(none.open());
  const auto deadline = SteadyClock::now() + timeouts_.connect;
  while (nbd_aio_is_negotiating(nbd) != 1 && nbd_aio_is_ready(nbd) != 1) {
    if (dead()) return make_error(NbdErrc::cannot_connect, failure().cause());
    const auto left = deadline - SteadyClock::now();
    if (left <= Clock::Duration::zero())
      return make_error(NbdErrc::cannot_connect,
                        fmt::format("{}: no handshake in {} s", name_, timeouts_.connect.count()));
    drive(none, nullptr, left);
  }
  return {};
}

// A server of the old handshake has one export and is ready already.
Result<void> NbdConnection::negotiate() {
  auto* nbd = handle();
  if (nbd_aio_is_ready(nbd) == 1) return {};
  BH_TRY(const int error,
         run([nbd](nbd_completion_callback done) { return nbd_aio_opt_go(nbd, done); }, timeouts_.connect));
  if (error == 0 && nbd_aio_is_ready(nbd) == 1) return {};
  if (dead()) return make_error(NbdErrc::cannot_connect, failure().cause());
  const auto cause = name_ + ": " + std::generic_category().message(error);
  return make_error(error == ENOENT ? NbdErrc::no_export : NbdErrc::cannot_connect, cause);
}

Result<void> NbdConnection::read_limits() {
  auto* nbd = handle();
  const auto size = nbd_get_size(nbd);
  const auto minimum = nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM);
  const auto maximum = nbd_get_block_size(nbd, LIBNBD_SIZE_MAXIMUM);
  if (size < 0 || minimum < 0 || maximum < 0) return make_error(NbdErrc::bad_server, name_ + ": " + last_error());
  size_ = static_cast<std::uint64_t>(size);
  minimum_block_ = minimum == 0 ? kDefaultMinimum : static_cast<std::uint64_t>(minimum);
  const auto largest = maximum == 0 ? kDefaultMaximum : std::min(static_cast<std::uint64_t>(maximum), kDefaultMaximum);
  if ((minimum_block_ & (minimum_block_ - 1)) != 0 || minimum_block_ > kLargestMinimum || largest < minimum_block_)
    return make_error(NbdErrc::bad_server, fmt::format("{}: block sizes {} to {}", name_, minimum, maximum));
  maximum_block_ = align_down(largest, minimum_block_);
  tells_context_ = nbd_can_meta_context(nbd, context_.c_str()) == 1;
  several_clients_ = nbd_can_multi_conn(nbd) == 1;
  return {};
}

bool NbdConnection::dead() const noexcept { return nbd_aio_is_dead(handle()) == 1 || nbd_aio_is_closed(handle()) == 1; }

void NbdConnection::note_failure() {
  const std::lock_guard lock(failure_mutex_);
  if (failure_.empty()) failure_ = last_error();
}

Error NbdConnection::failure() const {
  const std::lock_guard lock(failure_mutex_);
  return make_error(NbdErrc::server_gone, name_ + ": " + (failure_.empty() ? "the connection ended" : failure_));
}

pollfd NbdConnection::socket_poll() const noexcept {
  const auto direction = nbd_aio_get_direction(handle());
  short events = 0;
  if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0) events |= POLLIN;
  if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0) events |= POLLOUT;
  return {nbd_aio_get_fd(handle()), events, 0};
}

// libnbd, told to read when nothing is there, waits for a reply and sends no requests meanwhile; if another thread took
// that reply, it never comes. So this looks again under serve_mutex_.
void NbdConnection::serve() {
  const std::lock_guard lock(serve_mutex_);
  auto socket = socket_poll();
  if (::poll(&socket, 1, 0) <= 0) return;
  constexpr short kEnded = POLLHUP | POLLERR;
  int served = 0;
  if ((socket.events & POLLIN) != 0 && (socket.revents & (POLLIN | kEnded)) != 0)
    served = nbd_aio_notify_read(handle());
  else if ((socket.events & POLLOUT) != 0 && (socket.revents & (POLLOUT | kEnded)) != 0)
    served = nbd_aio_notify_write(handle());
  if (served < 0 && dead()) note_failure();
}

NbdConnection::Wake NbdConnection::drive(const NbdSignal& signal, const PollRequest* poll, Clock::Duration timeout) {
  const bool polling = poll != nullptr && (poll->readable || poll->writable);
  auto limit = std::clamp(timeout, Clock::Duration::zero(), kLongestPoll);
  if (polling && poll->handle < 0) limit = std::min(limit, kHandlelessPause);
  pollfd fds[3] = {socket_poll(), {signal.fd(), POLLIN, 0}, {polling ? static_cast<int>(poll->handle) : -1, 0, 0}};
  if (polling) fds[2].events = static_cast<short>((poll->readable ? POLLIN : 0) | (poll->writable ? POLLOUT : 0));
  const auto wait_ms = std::chrono::ceil<std::chrono::milliseconds>(limit).count();
  if (::poll(fds, 3, static_cast<int>(wait_ms)) <= 0) return {};
  if (fds[0].revents != 0) serve();
  return {fds[0].revents != 0, fds[2].revents != 0};
}

Result<int> NbdConnection::run(const std::function<std::int64_t(nbd_completion_callback)>& issue,
                               std::chrono::seconds timeout) {
  const auto call = std::make_shared<Call>();
  BH_RETURN_IF_ERROR(call->signal.open());
  if (issue(Call::callback(call)) < 0)
    return dead() ? failure() : make_error(NbdErrc::bad_server, name_ + ": " + last_error());
  const auto deadline = SteadyClock::now() + timeout;
  while (!call->done && !dead()) {
    const auto left = deadline - SteadyClock::now();
    if (left <= Clock::Duration::zero()) {
      end();
      return make_error(NbdErrc::silent, fmt::format("{}: no answer in {} s", name_, timeout.count()));
    }
    drive(call->signal, nullptr, left);
  }
  if (dead()) return failure();
  return call->error;
}

void NbdConnection::end() noexcept {
  const int fd = nbd_aio_get_fd(handle());
  if (fd < 0) return;
  ::shutdown(fd, SHUT_RDWR);
  const std::lock_guard lock(serve_mutex_);
  // At the end of the stream libnbd goes to its last state and completes everything.
  while (!dead())
    if (nbd_aio_notify_read(handle()) < 0 && !dead() && nbd_aio_notify_write(handle()) < 0) break;
}

}  // namespace backhaul
