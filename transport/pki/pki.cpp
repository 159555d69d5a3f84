#include "transport/pki/pki.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>

#include "base/unique_fd.h"
#include "checksum/block_digest.h"
#include "transport/stream/transport_error.h"
#include "transport/tls/socket.h"
#include "transport/tls/tls_internal.h"

namespace backhaul {
namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t kCaDays = 3650;
constexpr std::uint32_t kDefaultDays = 825;
constexpr long kSecondsPerDay = 86400;
// Certificates begin in the past by this much: two sites' clocks are never equal.
constexpr long kClockSkewS = 3600;
constexpr std::size_t kMaxNameSize = 64;  // X.520's bound of a common name

using NamesPtr = std::unique_ptr<GENERAL_NAMES, OpensslFree<GENERAL_NAMES_free>>;
using ExtensionPtr = std::unique_ptr<X509_EXTENSION, OpensslFree<X509_EXTENSION_free>>;
using BioPtr = std::unique_ptr<BIO, OpensslFree<BIO_free_all>>;

Error openssl_error(std::string_view what) {
  return make_error(TransportErrc::tls_credentials, fmt::format("{}: {}", what, take_openssl_error()));
}

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const auto size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<std::size_t>(size)};
}

struct KeyAndCertificate {
  KeyPtr key;
  X509Ptr certificate;
};

bool add_extension(X509* certificate, X509V3_CTX& context, int nid, const char* value) {
  const ExtensionPtr extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value));
  return extension != nullptr && X509_add_ext(certificate, extension.get(), -1) == 1;
}

// Built from parts, never from a configuration text that a name could break out of.
bool add_alt_names(X509* certificate, const std::vector<std::string>& alt_names) {
  const NamesPtr names(GENERAL_NAMES_new());
  for (const auto& text : alt_names) {
    GENERAL_NAME* name = GENERAL_NAME_new();
    if (name == nullptr || sk_GENERAL_NAME_push(names.get(), name) == 0) return false;
    if (is_ip_address(text)) {
      GENERAL_NAME_set0_value(name, GEN_IPADD, a2i_IPADDRESS(text.c_str()));
    } else {
      ASN1_IA5STRING* string = ASN1_IA5STRING_new();
      ASN1_STRING_set(string, text.data(), static_cast<int>(text.size()));
      GENERAL_NAME_set0_value(name, GEN_DNS, string);
    }
  }
  return X509_add1_ext_i2d(certificate, NID_subject_alt_name, names.get(), 0, X509V3_ADD_DEFAULT) == 1;
}

bool set_serial(X509* certificate) {
  unsigned char bytes[16];
  if (RAND_bytes(bytes, sizeof bytes) != 1) return false;
  bytes[0] = static_cast<unsigned char>((bytes[0] & 0x7F) | 0x40);  // positive and of full length
  std::unique_ptr<BIGNUM, OpensslFree<BN_free>> number(BN_bin2bn(bytes, sizeof bytes, nullptr));
  return number != nullptr && BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr;
}

// A certificate with everything but extensions and signature.
Result<KeyAndCertificate> start_certificate(const std::string& name, std::uint32_t days) {
  KeyAndCertificate made{KeyPtr(EVP_EC_gen("P-256")), X509Ptr(X509_new())};
  X509* certificate = made.certificate.get();
  if (made.key == nullptr || certificate == nullptr || X509_set_version(certificate, X509_VERSION_3) != 1 ||
      !set_serial(certificate) || X509_set_pubkey(certificate, made.key.get()) != 1 ||
      X509_gmtime_adj(X509_getm_notBefore(certificate), -kClockSkewS) == nullptr ||
      X509_time_adj_ex(X509_getm_notAfter(certificate), static_cast<int>(days), 0, nullptr) == nullptr ||
      X509_NAME_add_entry_by_NID(X509_get_subject_name(certificate), NID_commonName, MBSTRING_UTF8,
                                 reinterpret_cast<const unsigned char*>(name.data()), static_cast<int>(name.size()), -1,
                                 0) != 1)
    return openssl_error("make a certificate");
  return made;
}

Result<KeyAndCertificate> make_ca() {
  BH_TRY(auto ca, start_certificate("Backhaul CA", kCaDays));
  X509* certificate = ca.certificate.get();
  X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
  X509V3_CTX context;
  X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
  if (!add_extension(certificate, context, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
      !add_extension(certificate, context, NID_key_usage, "critical,keyCertSign,cRLSign") ||
      !add_extension(certificate, context, NID_subject_key_identifier, "hash") ||
      X509_sign(certificate, ca.key.get(), EVP_sha256()) == 0)
    return openssl_error("make the CA certificate");
  return ca;
}

Result<KeyAndCertificate> make_node(const KeyAndCertificate& ca, const NodeCertificate& request) {
  BH_TRY(auto node, start_certificate(request.name, request.days));
  X509* certificate = node.certificate.get();
  X509_set_issuer_name(certificate, X509_get_subject_name(ca.certificate.get()));
  X509V3_CTX context;
  X509V3_set_ctx(&context, ca.certificate.get(), certificate, nullptr, nullptr, 0);
  if (!add_extension(certificate, context, NID_basic_constraints, "critical,CA:FALSE") ||
      !add_extension(certificate, context, NID_key_usage, "critical,digitalSignature") ||
      !add_extension(certificate, context, NID_ext_key_usage, "serverAuth,clientAuth") ||
      !add_extension(certificate, context, NID_subject_key_identifier, "hash") ||
      !add_extension(certificate, context, NID_authority_key_identifier, "keyid:always") ||
      !add_alt_names(certificate, request.alt_names) || X509_sign(certificate, ca.key.get(), EVP_sha256()) == 0)
    return openssl_error("make the certificate of " + request.name);
  return node;
}

Result<std::string> certificate_pem(X509* certificate) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_X509(bio.get(), certificate) != 1) return openssl_error("write a certificate");
  return text_of(bio.get());
}

Result<std::string> key_pem(EVP_PKEY* key) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_PKCS8PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1)
    return openssl_error("write a key");
  return text_of(bio.get());
}

Result<void> write_new_file(const fs::path& path, std::string_view text, mode_t mode) {
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!file) return Error::from_errno(errno, "create " + path.string());
  while (!text.empty()) {
    const auto count = ::write(file.get(), text.data(), text.size());
    if (count < 0 && errno != EINTR) return Error::from_errno(errno, "write " + path.string());
    if (count > 0) text.remove_prefix(static_cast<std::size_t>(count));
  }
  if (::fsync(file.get()) != 0) return Error::from_errno(errno, "write " + path.string());
  return {};
}

Result<void> sync_directory(const fs::path& path) {
  const UniqueFd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || ::fsync(directory.get()) != 0) return Error::from_errno(errno, "sync " + path.string());
  return {};
}

// A directory beside the files to be made; each is made in it, then gets its name.
class Workshop {
 public:
  static Result<Workshop> open(const fs::path& directory) {
    std::string pattern = (directory / ".pki-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) return Error::from_errno(errno, "write into " + directory.string());
    return Workshop(directory, pattern);
  }
  Workshop(Workshop&& other) noexcept
      : directory_(std::move(other.directory_)), path_(std::exchange(other.path_, {})) {}
  ~Workshop() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  const fs::path& path() const noexcept { return path_; }
  // Gives the file or directory its name, which must be free.
  Result<void> publish(const std::string& name) {
    const auto to = directory_ / name;
    if (::renameat2(AT_FDCWD, (path_ / name).c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) != 0)
      return Error::from_errno(errno, "create " + to.string());
    return sync_directory(directory_);
  }

 private:
  Workshop(fs::path directory, fs::path path) : directory_(std::move(directory)), path_(std::move(path)) {}
  fs::path directory_, path_;
};

Result<void> write_node(const fs::path& directory, const KeyAndCertificate& ca, const NodeCertificate& request) {
  BH_TRY(const auto node, make_node(ca, request));
  BH_TRY(const auto ca_text, certificate_pem(ca.certificate.get()));
  BH_TRY(const auto certificate_text, certificate_pem(node.certificate.get()));
  BH_TRY(const auto key_text, key_pem(node.key.get()));
  if (::mkdir(directory.c_str(), 0755) != 0) return Error::from_errno(errno, "create " + directory.string());
  BH_RETURN_IF_ERROR(write_new_file(directory / "ca.crt", ca_text, 0644));
  BH_RETURN_IF_ERROR(write_new_file(directory / "node.crt", certificate_text, 0644));
  BH_RETURN_IF_ERROR(write_new_file(directory / "node.key", key_text, 0600));
  return sync_directory(directory);
}

bool is_dns_name(const std::string& name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
           c == '_';
  };
  const auto rest = name.rfind("*.", 0) == 0 ? name.substr(2) : name;
  return !rest.empty() && rest.size() <= 253 && rest.front() != '.' && rest.front() != '-' &&
         std::all_of(rest.begin(), rest.end(), allowed);
}

Result<void> check_request(const NodeCertificate& request) {
  const auto refuse = [](std::string why) { return make_error(BaseErrc::invalid_argument, std::move(why)); };
  // The name becomes a directory.
  if (request.name.size() > kMaxNameSize || !is_dns_name(request.name) || request.name.front() == '*')
    return refuse(fmt::format("node name '{}': 1 to {} letters, digits, '-', '_' and '.'", request.name, kMaxNameSize));
  if (request.alt_names.empty()) return refuse("a certificate needs at least one name or address that others dial");
  for (const auto& name : request.alt_names)
    if (!is_ip_address(name) && !is_dns_name(name)) return refuse(fmt::format("'{}' is no host name or address", name));
  if (request.days == 0 || request.days > kMaxNodeDays) return refuse(fmt::format("days: 1 to {}", kMaxNodeDays));
  return {};
}

Result<void> require_absent(const fs::path& path) {
  std::error_code ignored;
  if (fs::symlink_status(path, ignored).type() != fs::file_type::not_found)
    return Error::from_errno(EEXIST, "create " + path.string());
  return {};
}

Result<BioPtr> open_pem(const fs::path& path) {
  BioPtr bio(BIO_new_file(path.c_str(), "re"));
  if (bio != nullptr) return bio;
  const int number = errno;
  ERR_clear_error();
  return Error::from_errno(number, "read " + path.string());
}

Result<X509Ptr> read_certificate(const fs::path& path) {
  BH_TRY(const auto bio, open_pem(path));
  X509Ptr certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  if (certificate == nullptr) return openssl_error(path.string());
  return certificate;
}

Result<KeyAndCertificate> load_ca(const fs::path& directory) {
  KeyAndCertificate ca;
  BH_TRY(ca.certificate, read_certificate(directory / "ca.crt"));
  BH_TRY(const auto bio, open_pem(directory / "ca.key"));
  ca.key.reset(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  if (ca.key == nullptr) return openssl_error((directory / "ca.key").string());
  if (X509_check_private_key(ca.certificate.get(), ca.key.get()) != 1) {
    take_openssl_error();
    return make_error(TransportErrc::tls_credentials, (directory / "ca.key").string() + ": does not belong to ca.crt");
  }
  if (X509_cmp_current_time(X509_get0_notAfter(ca.certificate.get())) < 0)
    return make_error(TransportErrc::tls_credentials, (directory / "ca.crt").string() + ": has expired");
  return ca;
}

std::string machine_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 && is_dns_name(name) ? name : "localhost";
}

std::string name_text(const X509_NAME* name) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(bio.get(), name, 0, XN_FLAG_RFC2253 | ASN1_STRFLGS_ESC_CTRL);
  return text_of(bio.get());
}

std::string utc_text(const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return {};
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday,
                     parts.tm_hour, parts.tm_min, parts.tm_sec);
}

std::vector<std::string> alt_names_of(const X509* certificate) {
  std::vector<std::string> out;
  const NamesPtr names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    int type = 0;
    const auto* value =
        static_cast<const ASN1_STRING*>(GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names.get(), i), &type));
    if (type != GEN_DNS && type != GEN_IPADD) continue;
    const auto* data = ASN1_STRING_get0_data(value);
    const auto size = static_cast<std::size_t>(ASN1_STRING_length(value));
    out.push_back(type == GEN_DNS ? std::string(reinterpret_cast<const char*>(data), size)
                                  : ip_address_text(data, size));
  }
  return out;
}

Result<CertificateInfo> describe(const fs::path& path) {
  BH_TRY(const auto certificate, read_certificate(path));
  CertificateInfo info;
  info.path = path.string();
  info.subject = name_text(X509_get_subject_name(certificate.get()));
  info.issuer = name_text(X509_get_issuer_name(certificate.get()));
  info.not_before = utc_text(X509_get0_notBefore(certificate.get()));
  info.not_after = utc_text(X509_get0_notAfter(certificate.get()));
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (X509_digest(certificate.get(), EVP_sha256(), digest, &size) == 1)
    info.fingerprint_sha256 = to_hex(as_bytes(digest, size));
  info.alt_names = alt_names_of(certificate.get());
  int days = 0, seconds = 0;
  if (ASN1_TIME_diff(&days, &seconds, nullptr, X509_get0_notAfter(certificate.get())) == 1) {
    info.days_left = days;
    info.seconds_left = std::int64_t{days} * 86400 + seconds;
  }
  info.is_ca = X509_check_ca(certificate.get()) != 0;
  ERR_clear_error();
  return info;
}

}  // namespace

Result<void> pki_init(const fs::path& directory) {
  std::error_code failed;
  fs::create_directories(directory, failed);
  if (failed) return Error::from_errno(failed.value(), "create " + directory.string());
  const char* const kMade[] = {"appliance", "host", "ca.key", "ca.crt"};
  for (const auto* name : kMade) BH_RETURN_IF_ERROR(require_absent(directory / name));

  BH_TRY(const auto ca, make_ca());
  BH_TRY(const auto certificate_text, certificate_pem(ca.certificate.get()));
  BH_TRY(const auto key_text, key_pem(ca.key.get()));
  BH_TRY(auto workshop, Workshop::open(directory));
  BH_RETURN_IF_ERROR(write_new_file(workshop.path() / "ca.key", key_text, 0600));
  BH_RETURN_IF_ERROR(write_new_file(workshop.path() / "ca.crt", certificate_text, 0644));
  std::vector<std::string> names{"localhost", "127.0.0.1", "::1"};
  if (auto own = machine_name(); own != "localhost") names.push_back(std::move(own));
  for (const auto* name : {"appliance", "host"})
    BH_RETURN_IF_ERROR(write_node(workshop.path() / name, ca, {name, names, kDefaultDays}));
  for (const auto* name : kMade) BH_RETURN_IF_ERROR(workshop.publish(name));
  return {};
}

Result<void> pki_issue(const fs::path& directory, const NodeCertificate& request) {
  BH_RETURN_IF_ERROR(check_request(request));
  BH_RETURN_IF_ERROR(require_absent(directory / request.name));
  BH_TRY(const auto ca, load_ca(directory));
  BH_TRY(auto workshop, Workshop::open(directory));
  BH_RETURN_IF_ERROR(write_node(workshop.path() / request.name, ca, request));
  return workshop.publish(request.name);
}

Result<std::vector<CertificateInfo>> pki_show(const fs::path& path) {
  std::vector<fs::path> files;
  std::error_code failed;
  if (fs::is_directory(path, failed)) {
    for (fs::recursive_directory_iterator it(path, failed), end; !failed && it != end; it.increment(failed))
      if (it->path().extension() == ".crt" && it->is_regular_file(failed)) files.push_back(it->path());
    if (failed) return Error::from_errno(failed.value(), "list " + path.string());
    std::sort(files.begin(), files.end());
  } else {
    files.push_back(path);
  }
  std::vector<CertificateInfo> all;
  for (const auto& file : files) {
    BH_TRY(auto info, describe(file));
    all.push_back(std::move(info));
  }
  return all;
}

}  // namespace backhaul
