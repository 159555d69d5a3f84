// A whole send: attempts until one succeeds, or no other can help.
#include "dataplane/source/send.h"

#include <algorithm>

#include "dataplane/protocol/engine_error.h"
#include "dataplane/source/send_attempt.h"
#include "transport/stream/transport_error.h"

namespace backhaul {
namespace {

// Retries of a connection that never worked: about a second.
constexpr std::uint32_t kFirstAttempts = 3;

// Handshakes in a row that look wrong before we believe it.
constexpr unsigned kDoubtfulHandshakes = 2;

// A bit that flips in the clear part of a handshake makes a good peer look like one of another kind; a peer that is of
// another kind looks the same again.
bool may_be_damaged_handshake(const Error& error) {
  return error == make_error_code(TransportErrc::tls_handshake) ||
         error == make_error_code(TransportErrc::tls_protocol_version) ||
         error == make_error_code(TransportErrc::alpn_mismatch);
}

void pause(const SendState& send, Clock::Duration delay) {
  const auto until = send.clock.now() + delay;
  while (!send.stopped() && send.clock.now() < until)
    send.clock.sleep_for(std::min<Clock::Duration>(kStopPollInterval, until - send.clock.now()));
}

}  // namespace

Result<SendResult> send_disk(const SendRequest& request, const DialStream& dial, const DataplaneParts& parts) {
  SendState send(request, dial, parts);
  BH_RETURN_IF_ERROR(send.open_source(0));
  send.source_size = send.disk->size();
  Backoff backoff(request.retry, *parts.random);
  std::uint64_t done_before = 0;
  unsigned doubtful_handshakes = 0;
  while (true) {
    auto result = attempt_send(send);
    if (result) {
      result->stats.wire_bytes = send.wire_bytes;  // every stream of every attempt is closed
      return result;
    }
    const auto& error = result.error();
    if (send.stopped()) return make_error(BaseErrc::cancelled, "stopped; the transfer can be resumed or cancelled");
    const bool doubtful = may_be_damaged_handshake(error) && doubtful_handshakes++ < kDoubtfulHandshakes;
    if ((error.retry() != Retry::later && !doubtful) || lost_the_source(error)) return result;
    if (error == make_error_code(EngineErrc::session_incomplete) || error.symbol() == "session.incomplete")
      send.session.reset();
    const auto done = send.session ? send.session->counters().bytes_done.load() : 0;
    if (done > done_before) {
      backoff.progress();
      doubtful_handshakes = 0;
    }
    done_before = done;
    Clock::Duration delay{};
    if (!backoff.next(delay)) return result;
    // Nothing was ever reached: more likely a wrong address than a passing fault.
    if (!send.opened_once && error.symbol().starts_with("link.") && backoff.attempts() > kFirstAttempts) return result;
    ++send.retries;
    send.report("retry", 0, 0, error.to_string());
    pause(send, delay);
  }
}

Result<SendResult> send_disk(const SendRequest& request, TlsContext& tls, const DataplaneParts& parts) {
  return send_disk(request, tls_dialler(tls, request.target.endpoint), parts);
}

}  // namespace backhaul
