// backhaul pki init|issue|show
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <boost/json/array.hpp>
#include <memory>

#include "apps/commands.h"
#include "transport/pki/pki.h"

namespace backhaul {
namespace {

struct PkiOptions {
  std::string directory, path, name;
  std::vector<std::string> alt_names;
  std::uint32_t days = 825;
  bool json = false;
};

boost::json::object to_json(const CertificateInfo& info) {
  boost::json::array names;
  for (const auto& name : info.alt_names) names.emplace_back(name);
  return {{"path", info.path},
          {"subject", info.subject},
          {"issuer", info.issuer},
          {"not_before", info.not_before},
          {"not_after", info.not_after},
          {"days_left", info.days_left},
          {"alt_names", std::move(names)},
          {"fingerprint_sha256", info.fingerprint_sha256},
          {"is_ca", info.is_ca}};
}

int show(const PkiOptions& options) {
  const auto found = pki_show(options.path);
  if (!found) return print_error(found.error(), options.json);
  boost::json::array list;
  for (const auto& info : *found) {
    if (options.json) {
      list.emplace_back(to_json(info));
      continue;
    }
    fmt::print("{}\n  subject {}{}\n  issuer {}\n  valid {} to {} ({} days left)\n  names {}\n  sha256 {}\n", info.path,
               info.subject, info.is_ca ? " (CA)" : "", info.issuer, info.not_before, info.not_after, info.days_left,
               fmt::join(info.alt_names, ", "), info.fingerprint_sha256);
  }
  if (options.json) print_json({{"certificates", std::move(list)}});
  return kExitOk;
}

int done(const Result<void>& result, const PkiOptions& options, const std::string& directory) {
  if (!result) return print_error(result.error(), options.json);
  if (options.json)
    print_json({{"directory", directory}});
  else
    fmt::print("{}\n", directory);
  return kExitOk;
}

}  // namespace

void add_pki_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<PkiOptions>();
  auto* pki = app.add_subcommand("pki", "certificates for a lab or a small site");
  pki->require_subcommand(1);
  auto* init = pki->add_subcommand("init", "make a CA and the certificates of an appliance and a host agent");
  init->add_option("DIR", options->directory, "a new directory")->required();
  auto* issue = pki->add_subcommand("issue", "make one more node certificate, in DIR/NAME");
  issue->add_option("DIR", options->directory, "the directory of `pki init`")->required();
  issue->add_option("NAME", options->name, "the node's name")->required();
  issue->add_option("--alt-name,--san", options->alt_names,
                    "DNS name or address by which others dial the node, instead of NAME; may be repeated");
  issue->add_option("--days", options->days, "days of validity")->check(CLI::Range(1U, kMaxNodeDays));
  auto* show_command = pki->add_subcommand("show", "show certificates");
  show_command->add_option("PATH", options->path, "a certificate, or a directory with some")->required();
  for (auto* command : {init, issue, show_command}) command->add_flag("--json", options->json, "print JSON");
  init->callback([options, &action] {
    action = [options] { return done(pki_init(options->directory), *options, options->directory); };
  });
  issue->callback([options, &action] {
    action = [options] {
      if (options->alt_names.empty()) options->alt_names = {options->name};
      const NodeCertificate request{options->name, options->alt_names, options->days};
      return done(pki_issue(options->directory, request), *options, options->directory + "/" + options->name);
    };
  });
  show_command->callback([options, &action] { action = [options] { return show(*options); }; });
}

}  // namespace backhaul
