// The host agent's side of protocol backhaul/1: serves one accepted stream at a time to its end, on the caller's
// thread. The first message says what the stream is: a control stream (open), a lane (join), or one verb on a disk
// (query, swap, release, cancel), or that the other end wants to be the target (offer).
#pragma once

#include <atomic>

#include "dataplane/protocol/offered_streams.h"
#include "dataplane/target/target_store.h"
#include "transport/frames/frame_io.h"

namespace backhaul {

class HostProtocol {
 public:
  // `offered` takes the streams of those who want to be the target; null: they are refused. All outlive this.
  HostProtocol(TargetStore& store, const std::atomic<bool>& stop, OfferedStreams* offered = nullptr)
      : store_(store), stop_(stop), offered_(offered) {}

  // Returns when the stream ended, or was handed over. Errors were told to the peer and are in the log.
  Result<void> serve(std::unique_ptr<ByteStream> stream);

 private:
  Result<void> serve_control(ControlChannel& channel, const boost::json::object& body);
  Result<void> serve_finish(ControlChannel& channel, SessionUse session, const boost::json::object& body);
  Result<void> serve_lane(ControlChannel& channel, const boost::json::object& body);
  Result<void> serve_verb(ControlChannel& channel, FrameType verb, const boost::json::object& body);
  Result<void> take_offer(ControlChannel& channel, const boost::json::object& body);
  Result<void> answer(ControlChannel& channel, FrameType type, const boost::json::object& body, std::uint64_t epoch);

  TargetStore& store_;
  const std::atomic<bool>& stop_;
  OfferedStreams* const offered_;
};

}  // namespace backhaul
