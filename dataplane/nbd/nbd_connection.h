// One connection to an NBD export, and the waiting for its replies; internal to its room. Threads may share a
// connection: whichever waits serves the socket (libnbd locks the handle), and a reply for another thread wakes that
// one through its signal.
#pragma once

#include <libnbd.h>
#include <poll.h>

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "base/unique_fd.h"
#include "dataplane/disk/io.h"

namespace backhaul {

// The longest wait for the handshake, and for any reply while something is in flight.
struct NbdTimeouts {
  std::chrono::seconds connect{15}, reply{120};
};

// Wakes one thread that polls; any thread sets it.
class NbdSignal {
 public:
  Result<void> open();
  void set() const noexcept;
  void clear() const noexcept;
  int fd() const noexcept { return event_.get(); }

 private:
  UniqueFd event_;
};

class NbdConnection {
 public:
  // REQUIRES: check_nbd_uri(uri). Errors: those of NbdErrc.
  static Result<std::shared_ptr<NbdConnection>> open(const std::string& uri, const NbdTimeouts& timeouts = {},
                                                     const std::string& context = LIBNBD_CONTEXT_BASE_ALLOCATION);

  const std::string& name() const noexcept { return name_; }
  const NbdTimeouts& timeouts() const noexcept { return timeouts_; }
  nbd_handle* handle() const noexcept { return handle_.get(); }
  std::uint64_t size() const noexcept { return size_; }
  std::uint64_t minimum_block() const noexcept { return minimum_block_; }  // a power of two
  std::uint64_t maximum_block() const noexcept { return maximum_block_; }  // a multiple of it
  // The metadata context that block status requests are about, and whether the server has it.
  const std::string& context() const noexcept { return context_; }
  bool tells_context() const noexcept { return tells_context_; }
  bool takes_several_clients() const noexcept { return several_clients_; }

  bool dead() const noexcept;
  // Why it is dead: what libnbd said first.
  Error failure() const;

  struct Wake {
    bool moved = false;  // the socket was ready, and was served once
    bool poll = false;
  };
  // Waits until the socket, `signal` or `poll` (optional) is ready, or the timeout passed; may return sooner.
  Wake drive(const NbdSignal& signal, const PollRequest* poll, Clock::Duration timeout);

  // Runs one asynchronous call and waits for its reply: `issue` makes the call with the completion that it is given,
  // and returns -1 when it failed at once. Gives the errno of the reply, 0 for success. After a timeout the connection
  // is dead and nothing is in flight.
  Result<int> run(const std::function<std::int64_t(nbd_completion_callback)>& issue, std::chrono::seconds timeout);

  // Ends the connection; every request in flight completes with an error before this returns.
  void end() noexcept;

 private:
  struct Close {
    void operator()(nbd_handle* handle) const noexcept { nbd_close(handle); }
  };

  NbdConnection(std::string name, std::string context, const NbdTimeouts& timeouts)
      : name_(std::move(name)), context_(std::move(context)), timeouts_(timeouts) {}
  Result<void> connect();
  Result<void> negotiate();
  Result<void> read_limits();
  void note_failure();
  pollfd socket_poll() const noexcept;
  void serve();

  const std::string name_, context_;
  const NbdTimeouts timeouts_;
  std::unique_ptr<nbd_handle, Close> handle_;
  std::uint64_t size_ = 0, minimum_block_ = 1, maximum_block_ = 0;
  bool tells_context_ = false, several_clients_ = false;
  std::mutex serve_mutex_;
  mutable std::mutex failure_mutex_;
  std::string failure_;
};

// The export as a file; open_nbd_file() without the opening.
std::unique_ptr<File> make_nbd_file(std::shared_ptr<NbdConnection> connection);

// One lane's queue over a connection. Requests are cut to the server's block sizes; an unaligned one is read with what
// is around it, and copied.
Result<std::unique_ptr<IoQueue>> make_nbd_queue(std::shared_ptr<NbdConnection> connection);

}  // namespace backhaul
