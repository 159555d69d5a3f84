// A disk source that a hypervisor exports: an NBD server's export, read by libnbd. A File whose reads go over sockets
// (dataplane/disk/io.h), so that formats and the sync engine work on it unchanged. The format of NBD's URIs: doc/uri in
// NetworkBlockDevice/nbd.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/disk/io.h"

namespace backhaul {

enum class NbdErrc {
  bad_uri = 1,     // not a URI of the two forms that are read
  tls,             // nbds: TLS of NBD is not spoken
  not_loopback,    // nbd:// to another machine would be in the clear
  cannot_connect,  // the socket or the handshake failed
  no_export,       // the server has no such export
  server_gone,     // the connection ended while it was used
  silent,          // the server did not answer in time
  bad_server,      // the server's answers contradict the protocol
  read_only,       // meant as a target: an export is only read
  broken,          // the server is there and refuses to tell of the export
};
const ErrorCategory& nbd_category() noexcept;
inline std::error_code make_error_code(NbdErrc value) { return {static_cast<int>(value), nbd_category()}; }

// Whether a source is meant as NBD: nbd://, nbd+unix://, nbds://, nbds+unix://. Everything else is a path.
bool is_nbd_uri(std::string_view source) noexcept;
// What may be opened: nbd+unix:///EXPORT?socket=PATH, or nbd://HOST[:PORT]/EXPORT with a host of the loopback. No user,
// no other parameter: a refused URI is not repeated in the error, since it may hold a secret.
Result<void> check_nbd_uri(std::string_view uri);
// The path of the Unix socket, decoded; empty for nbd://. Errors: those of check_nbd_uri, and bad_uri for a path that
// cannot be decoded.
Result<std::string> nbd_socket_of(std::string_view uri);
// The same export of a server at another socket. REQUIRES: nbd_socket_of(uri) is a path.
std::string with_nbd_socket(std::string_view uri, std::string_view socket);

// Connects and asks for the export. It counts as a device: its content belongs to a guest, so that it is always raw,
// and nothing proves that it did not change (FileIdentity's times are 0). own_queue() gives a lane a connection of its
// own where the server allows several (multi-conn), and else shares the first one: many servers take one client only.
Result<std::unique_ptr<File>> open_nbd_file(const std::string& uri);

// The ranges of the first `size_bytes` that a dirty bitmap, exported as metadata context `context`, marks (bit 0):
// ascending, not adjacent. Nothing when there are more than `max_ranges`. `timeout` is for each answer.
Result<std::optional<std::vector<ByteRange>>> read_nbd_bitmap(const std::string& uri, const std::string& context,
                                                              std::uint64_t size_bytes, std::size_t max_ranges,
                                                              std::chrono::seconds timeout);

}  // namespace backhaul

template <>
struct std::is_error_code_enum<backhaul::NbdErrc> : std::true_type {};
