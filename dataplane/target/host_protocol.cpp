#include "dataplane/target/host_protocol.h"

#include <spdlog/spdlog.h>

#include "dataplane/protocol/engine_error.h"
#include "dataplane/protocol/messages.h"
#include "dataplane/target/target_lane.h"
#include "transport/stream/transport_error.h"
#include "transport/tls/tls_stream.h"

namespace backhaul {
namespace {

constexpr std::chrono::seconds kFirstMessage{30};
// A source that was killed is noticed at once on a live link; over a dead one TCP needs about 30 s, and the sender
// tries again.
constexpr std::chrono::seconds kOpenPatience{5};
constexpr std::chrono::milliseconds kProgressInterval{500};

bool stream_ended(const Error& error) {
  // By this end's own stream: a peer that reports the loss of another one is still there.
  return error.code() == TransportErrc::closed || error.code() == TransportErrc::lost || is_link_error(error);
}

// Lets the peer read what was sent last (an error) before the socket goes away: a close with unread input would reset
// the connection.
void linger(ByteStream& stream, Clock& clock) {
  std::array<std::byte, 16 * kKiB> sink;
  const auto deadline = clock.now() + std::chrono::seconds(2);
  while (clock.now() < deadline) {
    const auto flushed = stream.flush();
    if (!flushed) return;
    const auto got = stream.read_some(sink);
    if (!got) return;
    if (*got == 0 && !wait_stream(stream, !*flushed, std::chrono::milliseconds(100))) return;
  }
}

}  // namespace

Result<void> HostProtocol::serve(std::unique_ptr<ByteStream> stream) {
  const auto peer = stream->peer_name();
  ControlChannel channel(std::move(stream));
  const auto handle = [&]() -> Result<void> {
    BH_RETURN_IF_ERROR(exchange_hello(channel, kFirstMessage));
    BH_TRY(const auto message, channel.receive(kFirstMessage));
    switch (message.header.type) {
      case FrameType::open: return serve_control(channel, message.body);
      case FrameType::join: return serve_lane(channel, message.body);
      case FrameType::query:
      case FrameType::swap:
      case FrameType::release:
      case FrameType::cancel: return serve_verb(channel, message.header.type, message.body);
      case FrameType::offer: return take_offer(channel, message.body);
      default:
        return make_error(TransportErrc::unexpected_frame, std::string(to_string(message.header.type)) + " first");
    }
  };
  auto result = handle();
  if (result) return result;
  if (stream_ended(result.error())) {
    spdlog::info("{}: stream ended: {}", peer, result.error().to_string());
    return result;
  }
  if (result.error().from_peer()) {
    spdlog::info("{}: the other end gave up: {}", peer, result.error().to_string());
    channel.stream().close();
    return result;
  }
  // Who offers streams before they are expected tries again and again.
  const auto level = is_refused_offer(result.error()) ? spdlog::level::debug : spdlog::level::warn;
  spdlog::log(level, "{}: {}", peer, result.error().to_string());
  (void)channel.send(FrameType::error, error_to_json(result.error()), 0, kSendTimeout);
  linger(channel.stream(), *store_.parts().clock);
  channel.stream().close();
  return result;
}

Result<void> HostProtocol::take_offer(ControlChannel& channel, const boost::json::object& body) {
  BH_TRY(const auto offer, offer_from_json(body));
  const auto peer = channel.stream().peer_name();
  if (offered_ == nullptr) return make_error(EngineErrc::offer_unknown, "name " + offer.id);
  return offered_->offer(offer.id, peer, [&] { return channel.release(); });
}

Result<void> HostProtocol::serve_control(ControlChannel& channel, const boost::json::object& body) {
  BH_TRY(const auto request, open_request_from_json(body));
  OpenedSession opened;
  BH_TRY(auto session, store_.open(request, kOpenPatience, opened));
  if (opened.finished) {
    spdlog::info("disk {}: {} asks for the transfer that it finished under epoch {}", request.disk,
                 channel.stream().peer_name(), opened.epoch);
    return answer(channel, FrameType::opened, to_json(opened), opened.epoch);
  }
  spdlog::info("{}: disk {} opened by {}, {} bytes, {}, staging {}, epoch {}{}", opened.session, request.disk,
               channel.stream().peer_name(), opened.size, to_string(request.sync), to_string(opened.staging),
               opened.epoch, opened.resumed ? ", resumed" : "");
  BH_RETURN_IF_ERROR(channel.send(FrameType::opened, to_json(opened), opened.epoch, kSendTimeout));
  while (true) {
    if (session->revoked()) return session->revoked_error();
    if (stop_.load()) return make_error(TransportErrc::lost, "the host agent is stopping");
    auto message = channel.receive(kStopPollInterval);
    if (!message) {
      if (message.error().code() == BaseErrc::timed_out) continue;
      return std::move(message).error();
    }
    if (message->header.type != FrameType::finish)
      return make_error(TransportErrc::unexpected_frame,
                        std::string(to_string(message->header.type)) + " on a control stream");
    return serve_finish(channel, std::move(session), message->body);
  }
}

// The last message of a stream.
Result<void> HostProtocol::answer(ControlChannel& channel, FrameType type, const boost::json::object& body,
                                  std::uint64_t epoch) {
  BH_RETURN_IF_ERROR(channel.send(type, body, epoch, kSendTimeout));
  linger(channel.stream(), *store_.parts().clock);
  channel.stream().close();
  return {};
}

Result<void> HostProtocol::serve_finish(ControlChannel& channel, SessionUse use, const boost::json::object& body) {
  auto& session = *use;
  BH_TRY(const auto request, finish_from_json(body));
  auto& clock = *store_.parts().clock;
  auto last = clock.now();
  std::string last_step;
  const auto step = [&](std::string_view what, double fraction) -> Result<void> {
    if (what == last_step && clock.now() - last < kProgressInterval) return {};
    last = clock.now();
    last_step = what;
    return channel.send(FrameType::progress, {{"step", what}, {"fraction", fraction}}, session.epoch(), kSendTimeout);
  };
  BH_TRY(const auto result, store_.finish(session, request, step));
  spdlog::info("{}: disk {} {}, root digest {}", session.id(), session.request().disk,
               request.swap ? "swapped in" : "round ended", result.root_digest.empty() ? "-" : result.root_digest);
  const auto epoch = session.epoch();
  { const auto gone = std::move(use); }  // whoever takes the disk next need not wait for the goodbye
  return answer(channel, FrameType::finished, to_json(result), epoch);
}

Result<void> HostProtocol::serve_lane(ControlChannel& channel, const boost::json::object& body) {
  BH_TRY(const auto request, join_from_json(body));
  BH_TRY(auto joined, store_.join(request.session, request.epoch));
  std::optional<SessionUse> session(std::move(joined));
  BH_TRY(auto queue, store_.parts().make_queue());
  BH_TRY(auto hasher, (*session)->make_hasher(store_.parts()));
  BH_RETURN_IF_ERROR(channel.send(FrameType::joined, {}, (*session)->epoch(), kSendTimeout));
  auto& clock = *store_.parts().clock;
  {
    TargetLane lane(**session, channel.stream(), *queue, *hasher, clock);
    auto result = run_lane(lane, *queue, clock, stop_);
    if (!result) {
      // An agent that stops is to its peers a link that went away: they try again, and find it restarted.
      if (stop_.load() && result.error().is(BaseErrc::cancelled))
        result = make_error(TransportErrc::lost, "the host agent is stopping");
      if (!stream_ended(result.error())) {
        spdlog::warn("{}: lane {}: {}", request.session, request.lane, result.error().to_string());
        lane.send_error(result.error(), kSendTimeout);
      } else {
        spdlog::info("{}: lane {} ended: {}", request.session, request.lane, result.error().to_string());
        return {};
      }
    }
    queue.reset();  // nothing is in flight when the lane's memory goes
  }
  session.reset();  // whoever takes the disk away need not wait for the goodbye
  linger(channel.stream(), clock);
  channel.stream().close();
  return {};
}

Result<void> HostProtocol::serve_verb(ControlChannel& channel, FrameType verb, const boost::json::object& body) {
  BH_TRY(const auto request, verb_from_json(body));
  const auto peer = channel.stream().peer_name();
  switch (verb) {
    case FrameType::query: {
      BH_TRY(const auto status, store_.query(request.disk));
      return answer(channel, FrameType::status, to_json(status), 0);
    }
    case FrameType::swap:
      BH_RETURN_IF_ERROR(store_.swap(request.disk, request.epoch, kOpenPatience));
      spdlog::info("disk {}: swapped in by {}, the old disk is kept", request.disk, peer);
      return answer(channel, FrameType::swapped, {}, 0);
    case FrameType::release:
      BH_RETURN_IF_ERROR(store_.release(request.disk, request.epoch, kOpenPatience));
      spdlog::info("disk {}: released by {}", request.disk, peer);
      return answer(channel, FrameType::released, {}, 0);
    default: break;
  }
  BH_TRY(const bool had_session, store_.cancel(request.disk, request.epoch));
  spdlog::info("disk {}: cancelled by {}: {}", request.disk, peer,
               had_session ? "the old disk is back" : "there was nothing to undo");
  return answer(channel, FrameType::cancelled, {{"had_session", had_session}}, 0);
}

}  // namespace backhaul
