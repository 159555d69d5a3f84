// backhaul audit list, backhaul events
#include <fmt/format.h>

#include "apps/api_command.h"
#include "apps/api_view.h"
#include "control/store/store.h"

namespace backhaul {
namespace {

struct AuditOptions : ApiOptions {
  std::string object;
  std::uint64_t before = 0;
  std::uint32_t limit = 100;
};

Result<int> list_audit(ApiClient& client, const AuditOptions& options) {
  std::string path = fmt::format("/audit?limit={}", options.limit);
  if (options.before != 0) path += fmt::format("&before={}", options.before);
  if (!options.object.empty()) path += "&object=" + url_encode(options.object);
  BH_TRY(const auto answer, client.get(path));
  const auto& entries = array_part(answer, "/value");
  if (options.json) {
    print_json({{"value", entries}});
    return kExitOk;
  }
  std::vector<std::vector<std::string>> rows{{"TIME", "WHO", "WHAT", "OBJECT", "OUTCOME", "DETAIL"}};
  for (const auto& entry : entries)
    rows.push_back({text_part(entry, "/time"), text_part(entry, "/actor"), text_part(entry, "/action"),
                    text_part(entry, "/object"), text_part(entry, "/outcome"), text_part(entry, "/detail")});
  print_table(rows);
  return kExitOk;
}

Result<int> follow(ApiClient& client, const ApiOptions& options) {
  const auto& stop = stop_on_signals();
  BH_RETURN_IF_ERROR(client.events([&](std::string_view kind, std::string_view data) {
    boost::system::error_code failed;
    const auto event = boost::json::parse(data, failed);
    if (failed || !event.is_object()) return !stop;
    if (options.json)
      print_json(event.get_object());
    else
      fmt::print("{} {:<8} {:<12} {}\n", text_part(event, "/time"), kind, text_part(event, "/id"),
                 text_part(event, "/state"));
    std::fflush(stdout);
    return !stop;
  }));
  return kExitOk;
}

}  // namespace

void add_audit_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<AuditOptions>();
  auto* audit = app.add_subcommand("audit", "the audit log: who did what and when");
  audit->require_subcommand(1);
  auto* listed = audit->add_subcommand("list", "list entries, newest first");
  listed->add_option("--object", options->object, "entries of this object: item/web01, job/17, plan/shop, token/NAME");
  listed->add_option("--limit", options->limit, fmt::format("the most entries to list, 1 to {}", kMaxAuditEntries))
      ->check(CLI::Range(1U, kMaxAuditEntries))
      ->capture_default_str();
  listed->add_option("--before", options->before, "entries older than the one with this id");
  set_api_action(listed, options, action, list_audit);

  auto watched = std::make_shared<ApiOptions>();
  set_api_action(app.add_subcommand("events", "print events as they happen, until the appliance stops"), watched,
                 action, follow);
}

}  // namespace backhaul
