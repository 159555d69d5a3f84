// Translates OpenSSL's failures to the list of transport_error.h.
#include <openssl/err.h>

#include <fmt/format.h>

#include "transport/tls/tls_internal.h"

namespace backhaul {
namespace {

// Alerts: RFC 8446, section 6. A damaged handshake shows as one of several; those that a correct peer never causes
// count as damage.
TransportErrc errc_of_alert(int alert) {
  switch (alert) {
    case SSL3_AD_BAD_CERTIFICATE:
    case SSL3_AD_UNSUPPORTED_CERTIFICATE:
    case SSL3_AD_CERTIFICATE_UNKNOWN: return TransportErrc::tls_bad_certificate;
    case SSL3_AD_CERTIFICATE_REVOKED: return TransportErrc::tls_certificate_revoked;
    case SSL3_AD_CERTIFICATE_EXPIRED: return TransportErrc::tls_certificate_expired;
    case TLS1_AD_UNKNOWN_CA: return TransportErrc::tls_unknown_ca;
    case TLS1_AD_PROTOCOL_VERSION: return TransportErrc::tls_protocol_version;
    case TLS13_AD_CERTIFICATE_REQUIRED: return TransportErrc::tls_certificate_required;
    case TLS1_AD_NO_APPLICATION_PROTOCOL: return TransportErrc::alpn_mismatch;
    case SSL3_AD_BAD_RECORD_MAC:
    case SSL3_AD_UNEXPECTED_MESSAGE:
    case SSL3_AD_ILLEGAL_PARAMETER:
    case TLS1_AD_RECORD_OVERFLOW:
    case TLS1_AD_DECODE_ERROR:
    case TLS1_AD_DECRYPT_ERROR: return TransportErrc::tls_record_damaged;
    default: return TransportErrc::tls_handshake;
  }
}

TransportErrc errc_of_verification(long result) {
  switch (result) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID: return TransportErrc::tls_certificate_expired;
    case X509_V_ERR_CERT_REVOKED: return TransportErrc::tls_certificate_revoked;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH: return TransportErrc::tls_wrong_host;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
    case X509_V_ERR_CERT_UNTRUSTED: return TransportErrc::tls_unknown_ca;
    case X509_V_ERR_UNABLE_TO_GET_CRL:
    case X509_V_ERR_CRL_HAS_EXPIRED:
    case X509_V_ERR_CRL_NOT_YET_VALID:
    case X509_V_ERR_CRL_SIGNATURE_FAILURE: return TransportErrc::tls_credentials;
    default: return TransportErrc::tls_bad_certificate;
  }
}

TransportErrc errc_of_reason(int reason) {
  switch (reason) {
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE: return TransportErrc::tls_certificate_required;
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_WRONG_SSL_VERSION:
    case SSL_R_NO_PROTOCOLS_AVAILABLE: return TransportErrc::tls_protocol_version;
    case SSL_R_NO_APPLICATION_PROTOCOL: return TransportErrc::alpn_mismatch;
    case SSL_R_UNEXPECTED_EOF_WHILE_READING: return TransportErrc::lost;
    case SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC:
    case SSL_R_BAD_RECORD_TYPE:
    case SSL_R_BAD_SIGNATURE:
    case SSL_R_DIGEST_CHECK_FAILED:
    case SSL_R_ENCRYPTED_LENGTH_TOO_LONG:
    case SSL_R_LENGTH_MISMATCH:
    case SSL_R_BAD_EXTENSION:
    case SSL_R_BAD_LENGTH: return TransportErrc::tls_record_damaged;
    default: return TransportErrc::tls_handshake;
  }
}

}  // namespace

Error alert_failure(int alert, const std::string& peer) {
  const auto errc = errc_of_alert(alert);
  const bool ours = errc >= TransportErrc::tls_certificate_required && errc <= TransportErrc::tls_bad_certificate;
  const std::string name = SSL_alert_desc_string_long(alert);
  return make_error(errc, ours ? fmt::format("{} refused our certificate: {}", peer, name)
                               : fmt::format("{} sent the alert {} ({})", peer, alert, name));
}

Error tls_failure(SSL* ssl, bool established, const std::string& peer) {
  const auto code = ERR_peek_error();  // the oldest: later ones are its consequences
  const int reason = ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0;
  const char* const text = code == 0 ? nullptr : ERR_reason_error_string(code);
  const std::string why = text == nullptr ? "unknown reason" : text;
  ERR_clear_error();

  // The library numbers the alerts that it received from SSL_AD_REASON_OFFSET on.
  if (reason > SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256) {
    return alert_failure(reason - SSL_AD_REASON_OFFSET, peer);
  }
  if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
    const long result = SSL_get_verify_result(ssl);
    return make_error(errc_of_verification(result),
                      fmt::format("we refused the certificate of {}: {}", peer, X509_verify_cert_error_string(result)));
  }
  auto errc = errc_of_reason(reason);
  // Once both ends agreed on keys, bytes that the library cannot read were changed on the way.
  if (established && errc != TransportErrc::lost) errc = TransportErrc::tls_record_damaged;
  return make_error(errc, fmt::format("{}: {}", peer, why));
}

}  // namespace backhaul
