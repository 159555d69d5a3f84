#include <openssl/err.h>
#include <openssl/pem.h>
#include <sys/stat.h>

#include <fmt/format.h>
#include <cerrno>

#include "transport/tls/tls_internal.h"

namespace backhaul {
namespace {

constexpr int kVerifyDepth = 4;
constexpr int kWarnDaysLeft = 14;
constexpr const char* kSuites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
constexpr const char* kGroups = "X25519:P-256";
// "backhaul/1" and "http/1.1" in wire form, best first.
constexpr unsigned char kOffered[] =
    "\x0a"
    "backhaul/1"
    "\x08"
    "http/1.1";
constexpr unsigned char kOfferedByApi[] =
    "\x08"
    "http/1.1";

bool accepts(TlsRole role) { return role == TlsRole::server || role == TlsRole::api_server; }

Error credentials(const std::filesystem::path& file, std::string_view why) {
  return make_error(TransportErrc::tls_credentials, fmt::format("{}: {}", file.string(), why));
}

Result<void> check_file(const std::filesystem::path& file) {
  if (std::FILE* opened = std::fopen(file.c_str(), "re"); opened != nullptr) {
    std::fclose(opened);
    return {};
  }
  return credentials(file, std::error_code(errno, std::generic_category()).message());
}

std::string time_text(const ASN1_TIME* time) {
  std::unique_ptr<BIO, OpensslFree<BIO_free_all>> out(BIO_new(BIO_s_mem()));
  ASN1_TIME_print(out.get(), time);
  char* data = nullptr;
  const auto size = BIO_get_mem_data(out.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

// OpenSSL's purpose check accepts a certificate without extended key usage; we require it.
int verify_peer(int ok, X509_STORE_CTX* store) {
  if (ok != 1 || X509_STORE_CTX_get_error_depth(store) != 0) return ok;
  if ((X509_get_extension_flags(X509_STORE_CTX_get_current_cert(store)) & EXFLAG_XKUSAGE) != 0) return 1;
  X509_STORE_CTX_set_error(store, X509_V_ERR_INVALID_PURPOSE);
  return 0;
}

int select_alpn(SSL*, const unsigned char** out, unsigned char* out_size, const unsigned char* in, unsigned in_size,
                void* argument) {
  const bool api = *static_cast<const TlsRole*>(argument) == TlsRole::api_server;
  unsigned char* selected = nullptr;
  if (SSL_select_next_proto(&selected, out_size, api ? kOfferedByApi : kOffered,
                            static_cast<unsigned>(api ? sizeof kOfferedByApi : sizeof kOffered) - 1, in,
                            in_size) != OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  *out = selected;
  return SSL_TLSEXT_ERR_OK;
}

// `role` lives as long as the context: the ALPN callback reads it.
Result<void> set_policy(SSL_CTX* context, TlsRole& role) {
  SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
  SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION);
  if (SSL_CTX_set_ciphersuites(context, kSuites) != 1 || SSL_CTX_set1_groups_list(context, kGroups) != 1)
    return make_error(TransportErrc::tls_credentials, "OpenSSL lacks the cipher suites: " + take_openssl_error());
  SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_num_tickets(context, 0);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_verify(context,
                     role == TlsRole::api_server ? SSL_VERIFY_NONE : SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                     verify_peer);
  SSL_CTX_set_verify_depth(context, kVerifyDepth);
  X509_VERIFY_PARAM_set_purpose(SSL_CTX_get0_param(context),
                                accepts(role) ? X509_PURPOSE_SSL_CLIENT : X509_PURPOSE_SSL_SERVER);
  if (accepts(role)) SSL_CTX_set_alpn_select_cb(context, select_alpn, &role);
  offer_secrets(context);
  return {};
}

// OpenSSL parses a certificate's extensions at first use and caches them in the certificate, which all handshakes
// share. Parsed here, before any handshake, so that no two threads do it at once.
void parse_extensions(X509_STORE* store) {
  const STACK_OF(X509_OBJECT)* objects = X509_STORE_get0_objects(store);
  for (int i = 0; i < sk_X509_OBJECT_num(objects); ++i)
    if (X509* certificate = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(objects, i)); certificate != nullptr)
      X509_check_purpose(certificate, -1, 0);
}

Result<void> load_trust(SSL_CTX* context, TlsRole role, const std::filesystem::path& ca) {
  BH_RETURN_IF_ERROR(check_file(ca));
  if (SSL_CTX_load_verify_file(context, ca.c_str()) != 1) return credentials(ca, take_openssl_error());
  if (role == TlsRole::server) SSL_CTX_set_client_CA_list(context, SSL_load_client_CA_file(ca.c_str()));

  parse_extensions(SSL_CTX_get_cert_store(context));
  const auto crl = ca.parent_path() / "crl.pem";
  std::error_code ignored;
  if (!std::filesystem::exists(crl, ignored)) return {};
  BH_RETURN_IF_ERROR(check_file(crl));
  X509_STORE* store = SSL_CTX_get_cert_store(context);
  X509_LOOKUP* lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());
  if (lookup == nullptr || X509_load_crl_file(lookup, crl.c_str(), X509_FILETYPE_PEM) < 1)
    return credentials(crl, take_openssl_error());
  X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
  return {};
}

Result<void> check_own_certificate(TlsContext::Impl& impl, const std::filesystem::path& file) {
  const X509* own = SSL_CTX_get0_certificate(impl.context.get());
  if (X509_cmp_current_time(X509_get0_notBefore(own)) > 0)
    return credentials(file, "is not valid before " + time_text(X509_get0_notBefore(own)));
  if (X509_cmp_current_time(X509_get0_notAfter(own)) < 0)
    return credentials(file, "expired on " + time_text(X509_get0_notAfter(own)));
  int days = 0, seconds = 0;
  if (ASN1_TIME_diff(&days, &seconds, nullptr, X509_get0_notAfter(own)) == 1 && days < kWarnDaysLeft)
    impl.warnings.push_back(fmt::format("{}: expires in {} days", file.string(), days));
  return {};
}

Result<void> load_own(TlsContext::Impl& impl, const std::filesystem::path& directory) {
  SSL_CTX* context = impl.context.get();
  const auto certificate = directory / "node.crt";
  const auto key = directory / "node.key";
  BH_RETURN_IF_ERROR(check_file(certificate));
  BH_RETURN_IF_ERROR(check_file(key));
  if (SSL_CTX_use_certificate_chain_file(context, certificate.c_str()) != 1)
    return credentials(certificate, take_openssl_error());
  BH_RETURN_IF_ERROR(check_own_certificate(impl, certificate));
  if (SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM) != 1) {
    const bool mismatch = ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH ||
                          ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_TYPE_MISMATCH;
    const auto why = take_openssl_error();
    return credentials(key, mismatch ? "does not belong to node.crt" : why);
  }
  if (SSL_CTX_check_private_key(context) != 1) {
    take_openssl_error();
    return credentials(key, "does not belong to node.crt");
  }
  struct stat facts {};
  if (::stat(key.c_str(), &facts) == 0 && (facts.st_mode & (S_IRWXG | S_IRWXO)) != 0)
    impl.warnings.push_back(
        fmt::format("{}: mode {:o}, others than its owner may use it", key.string(), facts.st_mode & 07777));
  return {};
}

// All but the node's own credentials.
Result<std::unique_ptr<TlsContext::Impl>> new_context(TlsRole role, const std::filesystem::path& ca) {
  ERR_clear_error();
  auto impl = std::make_unique<TlsContext::Impl>();
  impl->role = role;
  impl->context.reset(SSL_CTX_new(accepts(role) ? TLS_server_method() : TLS_client_method()));
  if (impl->context == nullptr) return make_error(TransportErrc::tls_credentials, "OpenSSL: " + take_openssl_error());
  BH_RETURN_IF_ERROR(set_policy(impl->context.get(), impl->role));
  BH_RETURN_IF_ERROR(load_trust(impl->context.get(), role, ca));
  return impl;
}

}  // namespace

std::string take_openssl_error() {
  const auto code = ERR_peek_last_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  ERR_clear_error();
  return reason == nullptr ? "unknown reason" : reason;
}

std::string common_name(const X509* certificate) {
  const X509_NAME* subject = X509_get_subject_name(certificate);
  const int index = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (index < 0) return {};
  unsigned char* text = nullptr;
  const int size = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, index)));
  if (size < 0) return {};
  std::string name(reinterpret_cast<char*>(text), static_cast<std::size_t>(size));
  OPENSSL_free(text);
  for (auto& c : name)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  return name;
}

TlsContext::TlsContext(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TlsContext::~TlsContext() = default;
const std::vector<std::string>& TlsContext::warnings() const noexcept { return impl_->warnings; }

Result<std::shared_ptr<TlsContext>> TlsContext::load(TlsRole role, const std::filesystem::path& directory,
                                                     TlsRecords records) {
  BH_TRY(auto impl, new_context(role, directory / "ca.crt"));
  impl->records = records;
  BH_RETURN_IF_ERROR(load_own(*impl, directory));
  return std::shared_ptr<TlsContext>(new TlsContext(std::move(impl)));
}

Result<std::shared_ptr<TlsContext>> TlsContext::load_ca(const std::filesystem::path& ca) {
  BH_TRY(auto impl, new_context(TlsRole::client, ca));
  return std::shared_ptr<TlsContext>(new TlsContext(std::move(impl)));
}

}  // namespace backhaul
