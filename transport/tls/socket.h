// The TCP part of a stream: resolve, connect, options, poll. Internal to the room (and pki/).
#pragma once

#include <chrono>
#include <string>

#include "base/unique_fd.h"
#include "transport/tls/tls_stream.h"

namespace backhaul {

using SteadyTime = std::chrono::steady_clock::time_point;

bool is_ip_address(const std::string& host) noexcept;
// Of an address in network order, 4 or 16 bytes; "?" for another size.
std::string ip_address_text(const unsigned char* bytes, std::size_t size);
std::string endpoint_text(const Endpoint& endpoint);  // "host:port", IPv6 in brackets
std::string socket_peer_text(int socket);

// No delay (whole frames are sent at once), keepalive and user timeout (a dead peer is noticed in about 30 s),
// non-blocking.
Result<void> set_socket_options(int socket);

// Tries the host's addresses one after the other until `deadline`. Errors: resolve_failed, or the last attempt's.
Result<UniqueFd> connect_socket(const Endpoint& endpoint, SteadyTime deadline);

// True when readable (writable), or in an error state that the next call will report; false when `deadline` came. A
// handle of -1 is always ready, after a pause: the caller's loop must not starve the end that it waits for.
Result<bool> poll_socket(PollHandle handle, bool for_write, SteadyTime deadline);

}  // namespace backhaul
