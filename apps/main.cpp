// The program: parses the command line and runs the command.
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <csignal>
#include <string>

#include "apps/commands.h"
#include "base/version.h"

int main(int argc, char** argv) {
  using namespace backhaul;
  std::signal(SIGPIPE, SIG_IGN);
  spdlog::set_default_logger(spdlog::stderr_color_mt("backhaul"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %^%l%$ %v");
  spdlog::set_level(spdlog::level::warn);

  CLI::App app{"Backhaul brings virtual machines home."};
  app.set_version_flag("--version", std::string("backhaul ") + kVersion);
  app.require_subcommand(1);
  bool verbose = false;
  app.add_flag("-v,--verbose", verbose, "log more, on stderr");
  Action action;
  add_pki_command(app, action);
  add_host_command(app, action);
  add_send_command(app, action);
  add_cancel_command(app, action);
  add_digest_command(app, action);
  add_appliance_command(app, action);
  add_item_command(app, action);
  add_job_command(app, action);
  add_plan_command(app, action);
  add_token_command(app, action);
  add_audit_command(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  if (verbose) spdlog::set_level(spdlog::level::debug);
  return action ? action() : kExitUsage;
}
