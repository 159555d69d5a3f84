// The host agent's side of protocol backhaul/1: serves one accepted stream at a time to its end, on the caller's
// thread. The first message says what the stream is: a control stream (open), a lane (join), or one verb on a disk
// (query, swap, release, cancel).
#pragma once

#include <atomic>

#include "dataplane/target_session.h"
#include "transport/frame_io.h"

namespace backhaul {

class HostProtocol {
 public:
  HostProtocol(TargetStore& store, const std::atomic<bool>& stop) : store_(store), stop_(stop) {}

  // Returns when the stream ended. Errors were told to the peer and are in the log.
  void serve(std::unique_ptr<ByteStream> stream);

 private:
  Result<void> serve_control(ControlChannel& channel, const boost::json::object& body);
  Result<void> serve_finish(ControlChannel& channel, SessionUse session, const boost::json::object& body);
  Result<void> serve_lane(ControlChannel& channel, const boost::json::object& body);
  Result<void> serve_verb(ControlChannel& channel, FrameType verb, const boost::json::object& body);
  Result<void> answer(ControlChannel& channel, FrameType type, const boost::json::object& body, std::uint64_t epoch);

  TargetStore& store_;
  const std::atomic<bool>& stop_;
};

}  // namespace backhaul
