// A certificate authority and node certificates for a lab or a small site, by OpenSSL: EC P-256 keys, a CA with
// pathlen 0, node certificates that may serve both roles. Not a replacement for an organisation's own PKI.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"

namespace backhaul {

// Creates DIR/ca.crt, DIR/ca.key and node directories DIR/appliance and DIR/host, each with ca.crt, node.crt, node.key
// (keys mode 0600; names localhost, 127.0.0.1, ::1 and this machine's host name). Refuses to overwrite anything.
Result<void> pki_init(const std::filesystem::path& directory);

inline constexpr std::uint32_t kMaxNodeDays = 3650;  // no longer than the CA's own

struct NodeCertificate {
  std::string name;                    // common name and file directory
  std::vector<std::string> alt_names;  // DNS names and IP addresses; told apart by syntax
  std::uint32_t days = 825;
};
// Issues DIR/<name>/ from the CA in DIR.
Result<void> pki_issue(const std::filesystem::path& directory, const NodeCertificate& request);

struct CertificateInfo {
  std::string path, subject, issuer, not_before, not_after, fingerprint_sha256;
  std::vector<std::string> alt_names;
  std::int64_t days_left = 0;
  std::int64_t seconds_left = 0;  // negative: it ended
  bool is_ca = false;
};
// The facts of a certificate file, or of every *.crt below a directory.
Result<std::vector<CertificateInfo>> pki_show(const std::filesystem::path& path);

}  // namespace backhaul
