#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "dataplane/nbd/nbd.h"

namespace backhaul {
namespace {

constexpr ErrorInfo kNbd[] = {
    {"nbd.bad_uri", "the source is no NBD URI that can be read",
     "Give nbd+unix:///EXPORT?socket=PATH or nbd://localhost:PORT/EXPORT; a password does not belong there.",
     Retry::no},
    {"nbd.tls", "NBD over TLS is not spoken",
     "Export the disk on a Unix socket or on the loopback, or bring it there through a tunnel.", Retry::no},
    {"nbd.not_loopback", "NBD to another machine would go over the network in the clear",
     "Bring the export to a Unix socket or the loopback of this machine through a tunnel (ssh -L).", Retry::no},
    {"nbd.cannot_connect", "the NBD server cannot be reached",
     "Check that it runs, listens at that socket and takes another client.", Retry::later},
    {"nbd.no_export", "the NBD server has no such export",
     "Ask it for its exports with `nbdinfo --list` and correct the name.", Retry::no},
    {"nbd.server_gone", "the NBD server went away while the source was read",
     "Export the same, unchanged disk again; then the same command goes on where it stopped.", Retry::later},
    {"nbd.silent", "the NBD server does not answer",
     "Check the server and its storage; then the same command goes on where it stopped.", Retry::later},
    {"nbd.bad_server", "the NBD server's answer makes no sense", "Use another NBD server for this disk.", Retry::no},
    {"nbd.read_only", "an NBD export is only read", "Give this disk a path below the store of its site.", Retry::no},
    {"nbd.broken", "the NBD server refuses to tell what its disk holds",
     "See its log. A snapshot whose room is full breaks like this: take it anew, then run the same command.",
     Retry::later},
};

constexpr std::string_view kTcp = "nbd://", kUnix = "nbd+unix://", kTls = "nbds://", kTlsUnix = "nbds+unix://";
constexpr std::string_view kSocket = "socket=";

bool is_control(unsigned char c) { return c < 0x20 || c == 0x7f; }

// 127.0.0.0/8 in digits: a name that only begins like that is some other machine.
bool is_loopback(std::string_view host) {
  const bool digits = std::all_of(host.begin(), host.end(), [](char c) { return (c >= '0' && c <= '9') || c == '.'; });
  return host == "localhost" || host == "[::1]" || (digits && host.starts_with("127."));
}

Result<void> check_tcp(std::string_view authority, std::string_view query) {
  if (!query.empty()) return make_error(NbdErrc::bad_uri, "nbd:// takes no parameters");
  const auto host_end =
      authority.starts_with('[') ? std::min(authority.find(']'), authority.size() - 1) + 1 : authority.find(':');
  if (is_loopback(authority.substr(0, host_end))) return {};
  return make_error(NbdErrc::not_loopback, "only localhost, 127.0.0.1 and [::1] are read");
}

Result<void> check_unix(std::string_view authority, std::string_view query) {
  if (!authority.empty()) return make_error(NbdErrc::bad_uri, "nbd+unix:// takes no host: write nbd+unix:///EXPORT");
  if (!query.starts_with(kSocket) || query.size() == kSocket.size() || query.find_first_of("&;") != query.npos)
    return make_error(NbdErrc::bad_uri, "nbd+unix:// takes exactly one parameter, socket=PATH");
  return {};
}

std::size_t socket_at(std::string_view uri) { return uri.find('?') + 1 + kSocket.size(); }

Result<std::string> decoded(std::string_view text) {
  std::string plain;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '%') {
      plain += text[at];
      continue;
    }
    const auto digits = text.substr(at + 1, 2);
    unsigned char byte = 0;
    const auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
    if (digits.size() != 2 || failed != std::errc() || end != digits.data() + digits.size() || is_control(byte))
      return make_error(NbdErrc::bad_uri,
                        "a % in the socket's path is followed by no two hexadecimal digits of a name");
    plain += static_cast<char>(byte);
    at += 2;
  }
  return plain;
}

// Everything but what needs no code anywhere in a URI (RFC 3986, 2.3), so that no reader of it can differ.
std::string encoded(std::string_view path) {
  std::string text;
  for (const char c : path) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
                       c == '.' || c == '_' || c == '~' || c == '/';
    text += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return text;
}

}  // namespace

const ErrorCategory& nbd_category() noexcept {
  static const TableCategory category("nbd", kNbd);
  return category;
}

bool is_nbd_uri(std::string_view source) noexcept {
  return source.starts_with(kTcp) || source.starts_with(kUnix) || source.starts_with(kTls) ||
         source.starts_with(kTlsUnix);
}

Result<void> check_nbd_uri(std::string_view uri) {
  if (uri.starts_with(kTls) || uri.starts_with(kTlsUnix)) return make_error(NbdErrc::tls, "nbds");
  const bool is_unix = uri.starts_with(kUnix);
  if (!is_unix && !uri.starts_with(kTcp)) return make_error(NbdErrc::bad_uri, "no nbd scheme");
  const auto unfit = [](char c) { return c == ' ' || is_control(static_cast<unsigned char>(c)); };
  if (std::any_of(uri.begin(), uri.end(), unfit)) return make_error(NbdErrc::bad_uri, "a space or control character");
  if (uri.find('#') != uri.npos) return make_error(NbdErrc::bad_uri, "a fragment (write # in a name as %23)");
  const auto rest = uri.substr((is_unix ? kUnix : kTcp).size());
  const auto question = rest.find('?');
  const auto query = question == rest.npos ? std::string_view() : rest.substr(question + 1);
  const auto authority = rest.substr(0, rest.find_first_of("/?"));
  if (authority.find('@') != authority.npos) return make_error(NbdErrc::bad_uri, "a user or password");
  return is_unix ? check_unix(authority, query) : check_tcp(authority, query);
}

Result<std::string> nbd_socket_of(std::string_view uri) {
  BH_RETURN_IF_ERROR(check_nbd_uri(uri));
  if (!uri.starts_with(kUnix)) return std::string();
  return decoded(uri.substr(socket_at(uri)));
}

std::string with_nbd_socket(std::string_view uri, std::string_view socket) {
  return std::string(uri.substr(0, socket_at(uri))) + encoded(socket);
}

}  // namespace backhaul
