#include "apps/failover_options.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

namespace backhaul {
namespace {

constexpr std::size_t kMostDeclaration = 1024 * 1024;

Result<boost::json::value> complete_body(const FailoverOptions& options) {
  const auto needs = [](const char* what) {
    return make_error(BaseErrc::invalid_argument, std::string("--complete ") + what);
  };
  std::string mode = options.complete;
  if (mode.empty()) {
    if (!options.at.empty())
      mode = "scheduled";
    else if (!options.window_start.empty() || !options.window_end.empty())
      mode = "window";
    else if (options.budget_s > 0)
      mode = "automatic";
  }
  if (mode.empty()) return boost::json::value(nullptr);
  boost::json::object complete{{"mode", mode}};
  if (mode == "automatic" && options.budget_s == 0) return needs("automatic needs --downtime-budget SECONDS");
  if (mode == "scheduled" && options.at.empty()) return needs("scheduled needs --at TIME");
  if (mode == "window" && (options.window_start.empty() || options.window_end.empty()))
    return needs("window needs --window-start TIME and --window-end TIME");
  if (options.budget_s > 0) complete["downtimeBudgetSeconds"] = options.budget_s;
  if (!options.at.empty()) complete["at"] = options.at;
  if (!options.window_start.empty()) complete["windowStart"] = options.window_start;
  if (!options.window_end.empty()) complete["windowEnd"] = options.window_end;
  return boost::json::value(std::move(complete));
}

}  // namespace

void add_failover_options(CLI::App& command, FailoverOptions& options, bool plan) {
  command.add_option("--sync", options.sync, "ForDownTime (default) or ForSynchronization");
  command.add_option("--direction", options.direction,
                     "RecoveryToPrimary or PrimaryToRecovery; must fit the item's state");
  if (!plan) {
    command.add_option("--host", options.host, "alternate location: another host agent's id");
    command.add_flag("--create-vm", options.create_vm, "create the VM where it does not exist (CreateVmIfNotFound)");
  }
  command.add_option("--complete", options.complete,
                     "who says Complete Failover, and when: manual (default), automatic, scheduled or window");
  command.add_option("--downtime-budget", options.budget_s,
                     "automatic: complete once the projected downtime is below so many seconds");
  command.add_option("--at", options.at, "scheduled: the time, as 2026-01-31T22:00:00Z");
  command.add_option("--window-start", options.window_start, "window: from");
  command.add_option("--window-end", options.window_end, "window: until");
  auto* force =
      command.add_flag("--allow-force", options.allow_force, "power off a guest that does not shut down in time");
  command.add_flag("--never-force", options.never_force, "never power off; overrides the item")->excludes(force);
}

Result<boost::json::value> failover_body(const FailoverOptions& options, bool plan) {
  boost::json::object properties, details{{"instanceType", "HyperVReplicaAzureFailback"}}, own;
  if (!options.direction.empty()) {
    properties["failoverDirection"] = options.direction;
    if (options.direction == "PrimaryToRecovery") details["instanceType"] = "HyperVReplicaAzure";
  }
  if (!options.sync.empty()) details["dataSyncOption"] = options.sync;
  if (options.create_vm) details["recoveryVmCreationOption"] = "CreateVmIfNotFound";
  if (!options.host.empty()) details["providerIdForAlternateRecovery"] = options.host;
  if (details.size() > 1) {
    if (plan)
      properties["providerSpecificDetails"] = boost::json::array{std::move(details)};
    else
      properties["providerSpecificDetails"] = std::move(details);
  }
  BH_TRY(auto complete, complete_body(options));
  if (!complete.is_null()) own["complete"] = std::move(complete);
  if (options.allow_force) own["allowForcedShutdown"] = true;
  if (options.never_force) own["allowForcedShutdown"] = false;
  if (!own.empty()) properties["backhaul"] = std::move(own);
  return boost::json::value(boost::json::object{{"properties", std::move(properties)}});
}

Result<std::string> read_declaration(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text;
  if (in) text.assign(std::istreambuf_iterator<char>(in), {});
  if (!in) return make_error(BaseErrc::invalid_argument, path + " cannot be read: " + std::strerror(errno));
  if (text.size() > kMostDeclaration) return make_error(BaseErrc::invalid_argument, path + " is larger than 1 MiB");
  return text;
}

}  // namespace backhaul
