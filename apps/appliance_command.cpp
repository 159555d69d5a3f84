// backhaul appliance: jobs and the control API.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <memory>

#include "apps/appliance_parts.h"
#include "apps/appliance_state.h"
#include "apps/commands.h"
#include "base/version.h"
#include "control/agents/node_config.h"
#include "control/api/api.h"
#include "control/drivers/child_process.h"
#include "control/http/http.h"
#include "control/jobs/runner.h"
#include "transport/tls/tls_server.h"

namespace backhaul {
namespace {

// Serves the API until a signal comes; jobs run beside it.
Result<void> serve(const ApplianceConfig& config, Service& service) {
  BH_TRY(const auto endpoint, parse_endpoint(config.listen));
  BH_TRY(auto tls, TlsContext::load(TlsRole::api_server, tls_directory(config.tls, "appliance"), config.tls_records));
  for (const auto& warning : tls->warnings()) spdlog::warn("{}", warning);
  BH_TRY(auto server, TlsServer::listen(endpoint, tls));
  std::atomic<bool> stopping{false};
  Api api(service, {config.vault, kVersion}, system_clock(), system_random());
  server->set_handler(kAlpnHttp, [&](std::unique_ptr<TlsStream> stream) {
    serve_http(
        std::move(stream), [&](const HttpRequest& request) { return api.handle(request); },
        [&](unsigned status, std::string_view why) { return api.refuse(status, why); }, system_clock(), stopping,
        config.http);
  });
  service.start();
  const bool v6 = endpoint.host.find(':') != std::string::npos;
  fmt::print("listening on {}{}{}:{}\n", v6 ? "[" : "", endpoint.host, v6 ? "]" : "", server->port());
  std::fflush(stdout);
  server->run(stopping);
  return {};
}

Result<void> run_appliance(const std::string& file) {
  BH_TRY(const auto config, load_appliance_config(file));
  BH_TRY(auto state, open_appliance_state(config.state));
  BH_TRY(auto parts, make_appliance_parts(config));
  BH_TRY(const auto token_file, make_first_token(*state.store, config.state));
  if (!token_file.empty())
    spdlog::warn("first start: an Admin token is in {}; remove the file when it is in a safe place",
                 token_file.string());
  BH_TRY(auto service, Service::create(*state.store, parts->data_plane(), parts->drivers(), system_clock(),
                                       system_random(), state.owner, config.limits, config.pace, run_plan_command));
  if (const auto unfinished = service->runner().unfinished(); unfinished != 0)
    spdlog::info("takes up {} unfinished jobs", unfinished);
  auto served = serve(config, *service);
  service->stop();
  spdlog::info("stopped");
  return served;
}

}  // namespace

void add_appliance_command(CLI::App& app, Action& action) {
  auto file = std::make_shared<std::string>();
  auto* command = app.add_subcommand("appliance", "the appliance: jobs and the control API");
  command->add_option("--config", *file, "TOML file (docs/OPERATIONS.md)")->required();
  command->callback([file, &action] {
    action = [file] {
      spdlog::set_level(std::min(spdlog::get_level(), spdlog::level::info));
      const auto result = run_appliance(*file);
      return result ? static_cast<int>(kExitOk) : print_error(result.error(), false);
    };
  });
}

}  // namespace backhaul
