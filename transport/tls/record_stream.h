// A TlsStream whose records are ours (record_channel.h): OpenSSL made the handshake and is gone. Internal to the room.
#pragma once

#include "transport/tls/cipher_socket.h"
#include "transport/tls/record_channel.h"
#include "transport/tls/tls_stream.h"

namespace backhaul {

// What the handshake agreed on.
struct StreamNames {
  std::string peer_name;  // the certificate's common name
  std::string alpn;
};

// `socket.in` may hold what the peer sent behind its last flight.
std::unique_ptr<TlsStream> make_record_stream(std::unique_ptr<CipherSocket> socket, StreamNames names,
                                              RecordChannel channel);

}  // namespace backhaul
