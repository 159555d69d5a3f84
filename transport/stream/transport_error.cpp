#include "transport/stream/transport_error.h"

#include <algorithm>
#include <cerrno>
#include <iterator>

namespace backhaul {
namespace {

constexpr std::string_view kGoesOn = "Check the network; the same command goes on where it stopped.";
constexpr std::string_view kSamePeer = "Check that address and port are a Backhaul node's, of a matching version.";
constexpr std::string_view kNewCertificate =
    "Issue a new certificate from the common CA (backhaul pki issue) and restart.";

// In the order of TransportErrc.
constexpr ErrorInfo kTable[] = {
    {"transport.closed", "the other end closed the connection", "See the log of the other end.", Retry::later},
    {"transport.lost", "the connection was lost", kGoesOn, Retry::later},
    {"transport.bad_magic", "the other end does not speak this protocol", kSamePeer, Retry::no},
    {"transport.bad_header_crc", "a frame header was damaged on the way", kGoesOn, Retry::later},
    {"transport.bad_payload_crc", "a frame payload was damaged on the way", kGoesOn, Retry::later},
    {"transport.bad_frame", "the other end sent a frame that contradicts the protocol", kSamePeer, Retry::no},
    {"transport.payload_too_large", "the other end announced a frame above the limit", kSamePeer, Retry::no},
    {"transport.unexpected_frame", "the other end sent a frame that is not allowed now", kSamePeer, Retry::no},
    {"transport.bad_message", "the other end sent a malformed control message", kSamePeer, Retry::no},
    {"transport.version_mismatch", "the two ends have no protocol version in common",
     "Bring both ends to the same release.", Retry::no},
    {"transport.alpn_mismatch", "the other end does not offer the protocol backhaul/1", kSamePeer, Retry::no},
    {"transport.decompress_failed", "a compressed payload does not decode to its announced size",
     "Run again with --compress off and report this.", Retry::no},
    {"transport.tls_handshake", "the TLS handshake failed", "Check that both ends are Backhaul nodes; see the cause.",
     Retry::no},
    {"transport.tls_protocol_version", "the two ends have no TLS version in common",
     "Use TLS 1.3: older versions are refused.", Retry::no},
    {"transport.tls_certificate_required", "the server wants a client certificate and got none",
     "Put node.crt and node.key into the --tls directory.", Retry::no},
    {"transport.tls_unknown_ca", "a certificate was not signed by the expected CA",
     "Use certificates and ca.crt of the same CA on both ends.", Retry::no},
    {"transport.tls_certificate_expired", "a certificate is not valid at this time",
     "Check both clocks, or issue a new certificate (backhaul pki issue) and restart.", Retry::no},
    {"transport.tls_certificate_revoked", "a certificate was revoked", kNewCertificate, Retry::no},
    {"transport.tls_wrong_host", "the server's certificate is for another name",
     "Dial a name that the certificate lists, or issue one with this name (backhaul pki issue).", Retry::no},
    {"transport.tls_bad_certificate", "a certificate cannot be used for this", kNewCertificate, Retry::no},
    {"transport.tls_credentials", "our own certificate, key or CA file cannot be used",
     "Correct the file named in the cause (backhaul pki show DIR tells what it is).", Retry::no},
    {"transport.tls_record_damaged", "bytes were changed on the way", kGoesOn, Retry::later},
    {"transport.resolve_failed", "the host name has no address", "Check the name and the DNS settings.", Retry::no},
};
static_assert(std::size(kTable) == static_cast<std::size_t>(TransportErrc::resolve_failed));

}  // namespace

const ErrorCategory& transport_category() noexcept {
  static const TableCategory category("transport", kTable);
  return category;
}

bool is_link_error(const Error& error) noexcept {
  constexpr int kNumbers[] = {ECONNREFUSED, ECONNRESET, EPIPE, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, EADDRINUSE};
  return !error.from_peer() && std::any_of(std::begin(kNumbers), std::end(kNumbers), [&](int number) {
    return error.is({number, std::generic_category()});
  });
}

}  // namespace backhaul
