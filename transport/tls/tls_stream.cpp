#include "transport/tls/tls_stream.h"

#include "transport/tls/openssl_stream.h"
#include "transport/tls/socket.h"

namespace backhaul {

std::optional<TlsRecords> parse_tls_records(std::string_view text) noexcept {
  if (text == "auto") return TlsRecords::automatic;
  if (text == "openssl") return TlsRecords::openssl;
  return std::nullopt;
}

Result<std::unique_ptr<TlsStream>> tls_connect(TlsContext& context, const Endpoint& endpoint, std::string_view alpn,
                                               std::chrono::milliseconds timeout) {
  if (alpn.empty() || alpn.size() > 255) return make_error(BaseErrc::invalid_argument, "ALPN of 1 to 255 bytes");
  const auto deadline = SteadyTime::clock::now() + timeout;
  BH_TRY(auto socket, connect_socket(endpoint, deadline));
  return client_handshake(context, std::move(socket), endpoint, alpn, deadline);
}

Result<std::unique_ptr<TlsStream>> tls_accept(TlsContext& context, UniqueFd socket, std::chrono::milliseconds timeout) {
  const auto deadline = SteadyTime::clock::now() + timeout;
  BH_RETURN_IF_ERROR(set_socket_options(socket.get()));
  return server_handshake(context, std::move(socket), deadline);
}

Result<bool> wait_stream(ByteStream& stream, bool for_write, std::chrono::milliseconds timeout) {
  if (!for_write && stream.has_buffered_input()) return true;
  return poll_socket(stream.poll_handle(), for_write, SteadyTime::clock::now() + timeout);
}

}  // namespace backhaul
