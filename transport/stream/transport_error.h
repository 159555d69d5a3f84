// What can go wrong between two nodes.
#pragma once

#include "base/error.h"

namespace backhaul {

enum class TransportErrc {
  closed = 1,                // the peer closed its stream cleanly
  lost,                      // the connection broke without a goodbye
  bad_magic,                 // a frame does not start with the magic: the peer speaks something else
  bad_header_crc,            // a frame header is damaged
  bad_payload_crc,           // a frame payload is damaged
  bad_frame,                 // a frame's fields contradict each other or their limits
  payload_too_large,         // a frame announces more than the limit
  unexpected_frame,          // a well-formed frame that this state does not allow
  bad_message,               // a control message's JSON is malformed or lacks a field
  version_mismatch,          // no protocol version in common
  alpn_mismatch,             // the peer does not speak backhaul/1
  decompress_failed,         // a compressed payload does not decode to its announced size
  tls_handshake,             // the handshake failed for a reason not listed below
  tls_protocol_version,      // the peer wants a TLS version below 1.3
  tls_certificate_required,  // the peer wants a client certificate and got none
  tls_unknown_ca,            // a certificate was not signed by the expected CA
  tls_certificate_expired,   // a certificate is past its end (or not yet valid)
  tls_certificate_revoked,   // a certificate is on the revocation list
  tls_wrong_host,            // the certificate is for another name
  tls_bad_certificate,       // a certificate is unusable for another reason (usage, signature)
  tls_credentials,           // our own certificate, key or CA file is missing or unusable
  tls_record_damaged,        // a record failed authentication: bytes were changed on the way
  resolve_failed,            // the host name has no address
};
const ErrorCategory& transport_category() noexcept;
inline std::error_code make_error_code(TransportErrc value) { return {static_cast<int>(value), transport_category()}; }

// Whether a socket of this end failed: the connection was refused, cannot be made, or broke.
bool is_link_error(const Error& error) noexcept;

}  // namespace backhaul

template <>
struct std::is_error_code_enum<backhaul::TransportErrc> : std::true_type {};
