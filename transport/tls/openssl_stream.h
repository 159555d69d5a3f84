// The handshake, by OpenSSL, and a TlsStream whose records are OpenSSL's too. Internal to the room (and pki/).
#pragma once

#include "transport/tls/socket.h"
#include "transport/tls/tls_internal.h"

namespace backhaul {

// Shakes hands on a connected socket. The stream's records are ours where the context's choice, the agreed suite and
// the CPU allow, else OpenSSL's. Blocks up to `deadline`.
Result<std::unique_ptr<TlsStream>> client_handshake(TlsContext& context, UniqueFd socket, const Endpoint& endpoint,
                                                    std::string_view alpn, SteadyTime deadline);
Result<std::unique_ptr<TlsStream>> server_handshake(TlsContext& context, UniqueFd socket, SteadyTime deadline);

}  // namespace backhaul
