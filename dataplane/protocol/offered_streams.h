// Streams that the other end dialled to be the target of a send (docs/wire_protocol.md, section 10). The host protocol
// puts them here, a sender takes them as if it had dialled. Thread-safe; outlives the protocols and senders that use
// it. A stream belongs to one of them at a time.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "dataplane/protocol/transfer.h"
#include "transport/stream/stream.h"

namespace backhaul {

// Streams that wait for one name at most: a control stream, the lanes, and one for a verb between runs. Each costs its
// TLS buffers and a descriptor, no thread.
inline constexpr std::size_t kMaxOfferedStreams = kMaxLanes + 2;

// What offer() says to a stream that it does not take; its other end tries again.
bool is_refused_offer(const Error& error) noexcept;

class OfferedStreams {
 public:
  // From now on streams of this name are taken; with `peer`, only from the node of that certificate name. Again: only
  // the peer changes.
  void expect(const std::string& id, const std::string& peer = {});
  // The name is unknown again, streams that wait are closed, and who waits in dial() gets offer_withdrawn.
  void withdraw(const std::string& id);

  // The oldest stream that waits; if there is none, waits for one. Streams whose other end went away, or said something
  // unasked, are closed and skipped. Errors: EngineErrc::offer_none after the timeout; offer_withdrawn when nobody
  // expects the name.
  Result<std::unique_ptr<ByteStream>> dial(const std::string& id, std::chrono::milliseconds timeout);

  // A stream comes: `take` gives it, and is called only when it is wanted. Errors: EngineErrc::offer_unknown,
  // offer_full.
  Result<void> offer(const std::string& id, const std::string& peer,
                     const std::function<std::unique_ptr<ByteStream>()>& take);

 private:
  struct Name {
    std::string peer;
    std::deque<std::unique_ptr<ByteStream>> waiting;
  };
  using Dropped = std::deque<std::unique_ptr<ByteStream>>;
  static void drop_dead(Name& name, Dropped& dropped);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, Name> names_;
};

}  // namespace backhaul
