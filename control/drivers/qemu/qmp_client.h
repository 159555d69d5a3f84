// A client of QEMU's monitor protocol (QMP: one JSON object a line) over a Unix socket. Blocking, one command at a
// time, for one thread; QEMU serves one client of a socket at a time, so connections are short: one for each call of a
// driver. What QEMU says is checked and bounded.
//
// A client that is killed, or gives up, may leave a command behind. QEMU carries out commands one after the other,
// drops what waits when its connection ends, and takes the next client only then: so once connect() has returned,
// nothing of an earlier client can happen any more, and what a look shows is the whole of what it did. Errors:
// ControlErrc::driver_failed (no one listens there; QEMU refuses a command: class and description are in the cause; the
// connection broke), driver_timeout, driver_protocol (not QMP). Format: QEMU's docs/interop/qmp-spec.txt.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/unique_fd.h"

namespace backhaul {

inline constexpr std::size_t kMaxQmpMessage = 16 * 1024 * 1024;  // a list of some ten thousand nodes
inline constexpr std::size_t kMaxQmpEvents = 256;                // kept until asked for; then the oldest go

struct QmpEvent {
  std::string name;
  boost::json::object data;
};

class QmpClient {
 public:
  // Connects, and waits until earlier clients' commands are done. `timeout`: of this, and of each command.
  static Result<std::unique_ptr<QmpClient>> connect(const std::string& socket, std::chrono::milliseconds timeout);

  // Sends one command and gives what it returns. Events that come meanwhile are kept.
  Result<boost::json::value> execute(std::string_view command, const boost::json::object& arguments = {});
  // The next event, waiting for one at most this long; nothing when there is none.
  Result<std::optional<QmpEvent>> next_event(std::chrono::milliseconds wait);
  // Whether the connection is of no use any more: QEMU ended, or what it said made no sense.
  bool broken() const noexcept { return !socket_; }

 private:
  using Deadline = std::chrono::steady_clock::time_point;

  QmpClient(UniqueFd socket, std::chrono::milliseconds timeout);
  Result<void> greet();
  Result<void> send(std::string_view text, Deadline deadline);
  // Nothing when the time is over.
  Result<std::optional<boost::json::object>> receive(Deadline deadline);
  Result<std::optional<std::string>> receive_line(Deadline deadline);
  void keep_event(const boost::json::object& message);
  Error breaks(std::error_code code, std::string cause);

  UniqueFd socket_;
  const std::chrono::milliseconds timeout_;
  std::string buffer_;
  std::size_t scanned_ = 0;  // of buffer_, without a line's end in it
  std::deque<QmpEvent> events_;
  std::uint64_t next_id_;    // no other client has these
  bool negotiated_ = false;  // from here on each answer is ours
};

}  // namespace backhaul
