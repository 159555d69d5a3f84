// The source's side of everything that is one exchange with a target: query, swap, release, cancel; and target URLs.
#include "dataplane/protocol/engine_error.h"
#include "dataplane/protocol/messages.h"
#include "dataplane/source/send.h"
#include "transport/frames/frame_io.h"

namespace backhaul {
namespace {

// Giving a disk back, or removing a big file, may take long; the link's own timeouts notice a dead peer.
constexpr std::chrono::minutes kVerbTimeout{30};

Result<boost::json::object> call(const DialStream& dial, FrameType verb, const VerbRequest& request, FrameType answer) {
  if (request.disk.size() > kMaxDiskNameLength)
    return make_error(EngineErrc::bad_disk_name, "a name of " + std::to_string(request.disk.size()) + " bytes");
  BH_TRY(auto stream, dial(kConnectTimeout));
  ControlChannel channel(std::move(stream));
  BH_RETURN_IF_ERROR(exchange_hello(channel, kConnectTimeout));
  BH_RETURN_IF_ERROR(channel.send(verb, to_json(request), 0, kSendTimeout));
  BH_TRY(auto message, channel.expect(answer, kVerbTimeout));
  channel.stream().close();
  return std::move(message.body);
}

}  // namespace

DialStream tls_dialler(TlsContext& tls, const Endpoint& endpoint) {
  return [&tls, endpoint](std::chrono::milliseconds timeout) -> Result<std::unique_ptr<ByteStream>> {
    BH_TRY(auto stream, tls_connect(tls, endpoint, kAlpnBackhaul, timeout));
    return std::unique_ptr<ByteStream>(std::move(stream));
  };
}

Result<TargetStatus> query_target(const std::string& disk, const DialStream& dial) {
  BH_TRY(const auto body, call(dial, FrameType::query, {disk, 0}, FrameType::status));
  return status_from_json(body);
}

Result<void> swap_target(const std::string& disk, std::uint64_t epoch, const DialStream& dial) {
  BH_RETURN_IF_ERROR(call(dial, FrameType::swap, {disk, epoch}, FrameType::swapped));
  return {};
}

Result<void> release_target(const std::string& disk, std::uint64_t epoch, const DialStream& dial) {
  BH_RETURN_IF_ERROR(call(dial, FrameType::release, {disk, epoch}, FrameType::released));
  return {};
}

Result<bool> cancel_transfer(const std::string& disk, const DialStream& dial, std::uint64_t epoch) {
  BH_TRY(const auto body, call(dial, FrameType::cancel, {disk, epoch}, FrameType::cancelled));
  return bool_field(body, "had_session");
}

Result<TargetStatus> query_target(const TargetUrl& target, TlsContext& tls) {
  return query_target(target.disk, tls_dialler(tls, target.endpoint));
}

Result<void> swap_target(const TargetUrl& target, std::uint64_t epoch, TlsContext& tls) {
  return swap_target(target.disk, epoch, tls_dialler(tls, target.endpoint));
}

Result<void> release_target(const TargetUrl& target, std::uint64_t epoch, TlsContext& tls) {
  return release_target(target.disk, epoch, tls_dialler(tls, target.endpoint));
}

Result<bool> cancel_transfer(const TargetUrl& target, TlsContext& tls, std::uint64_t epoch) {
  return cancel_transfer(target.disk, tls_dialler(tls, target.endpoint), epoch);
}

Result<TargetUrl> parse_target_url(std::string_view url) {
  const auto bad = [&](std::string_view why) {
    return make_error(EngineErrc::bad_target_url, "'" + std::string(url.substr(0, 300)) + "': " + std::string(why));
  };
  constexpr std::string_view kScheme = "backhaul://";
  if (!url.starts_with(kScheme)) return bad("does not start with backhaul://");
  auto rest = url.substr(kScheme.size());
  const auto slash = rest.find('/');
  if (slash == std::string_view::npos || slash + 1 == rest.size()) return bad("no disk");
  auto authority = rest.substr(0, slash);
  TargetUrl target;
  target.disk = std::string(rest.substr(slash + 1));
  if (target.disk.size() > kMaxDiskNameLength)
    return make_error(EngineErrc::bad_disk_name, "a name of " + std::to_string(target.disk.size()) + " bytes; " +
                                                     std::to_string(kMaxDiskNameLength) + " are allowed");
  const auto colon = authority.rfind(':');
  if (colon == std::string_view::npos) return bad("no port");
  auto host = authority.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  if (host.empty()) return bad("no host");
  target.endpoint.host = std::string(host);
  const auto digits = authority.substr(colon + 1);
  unsigned port = 0;
  for (const char c : digits) {
    if (c < '0' || c > '9' || port > 65535) return bad("the port is no number");
    port = port * 10 + static_cast<unsigned>(c - '0');
  }
  if (digits.empty() || port == 0 || port > 65535) return bad("the port is not in 1 to 65535");
  target.endpoint.port = static_cast<std::uint16_t>(port);
  return target;
}

}  // namespace backhaul
