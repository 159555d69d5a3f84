// backhaul host: the host agent.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <memory>

#include "apps/commands.h"
#include "control/agents/driver_set.h"
#include "control/agents/host_services.h"
#include "control/agents/node_config.h"
#include "dataplane/linux/linux_storage.h"
#include "dataplane/target/host_protocol.h"
#include "transport/tls/tls_server.h"

namespace backhaul {
namespace {

struct HostOptions {
  std::string config, listen, store, tls, tls_records;
};

// Flags override the file.
Result<HostConfig> read_config(const HostOptions& options) {
  HostConfig config;
  if (!options.config.empty()) {
    BH_TRY(config, load_host_config(options.config));
  }
  if (!options.listen.empty()) config.listen = options.listen;
  if (!options.store.empty()) config.store = options.store;
  if (!options.tls.empty()) config.tls = options.tls;
  if (!options.tls_records.empty()) {
    BH_TRY(config.tls_records, read_tls_records(options.tls_records));
  }
  if (config.listen.empty()) config.listen = "0.0.0.0:7443";
  if (config.store.empty())
    return make_error(BaseErrc::invalid_argument, "no store given (--store DIR or store = \"DIR\")");
  return config;
}

Result<void> run_host(const HostOptions& options) {
  BH_TRY(const auto config, read_config(options));
  BH_TRY(const auto endpoint, parse_endpoint(config.listen));
  BH_TRY(auto parts, real_parts());
  BH_RETURN_IF_ERROR(parts.make_queue());  // fails at once when io_uring is not available
  BH_TRY(auto storage, open_linux_storage(config.store));
  BH_TRY(const auto paths, SourcePaths::make(config.store, {config.sources.begin(), config.sources.end()}));
  const HostClients no_hosts;
  BH_TRY(auto drivers, DriverSet::make(config.drivers, no_hosts, config.store, config.sources));
  const auto tls_files = tls_directory(config.tls, "host");
  BH_TRY(auto tls, TlsContext::load(TlsRole::server, tls_files, config.tls_records));
  for (const auto& warning : tls->warnings()) spdlog::warn("{}", warning);
  BH_TRY(auto server, TlsServer::listen(endpoint, tls));
  BH_TRY(const auto leftovers, recover_store(*storage));
  for (const auto& leftover : leftovers)
    spdlog::warn("unfinished transfer of {}: {}", leftover.disk,
                 leftover.recovery == Recovery::resumable ? "run the same send again, or `backhaul cancel`"
                                                          : leftover.to_string());

  std::atomic<bool> stopping{false};
  TargetStore store(*storage, parts);
  OfferedStreams offers;
  HostProtocol protocol(store, stopping, &offers);
  const LocalNode node{store, paths, parts, tls_files, config.networks, config.generations};
  HostServices services(node, offers, drivers->local());
  server->set_handler(kAlpnBackhaul,
                      [&](std::unique_ptr<TlsStream> stream) { (void)protocol.serve(std::move(stream)); });
  server->set_handler(kAlpnHttp, [&](std::unique_ptr<TlsStream> stream) {
    serve_http(
        std::move(stream), [&](const HttpRequest& request) { return services.handle(request); }, HostServices::refuse,
        *parts.clock, stopping, kHostHttpLimits);
  });
  const bool v6 = endpoint.host.find(':') != std::string::npos;
  fmt::print("listening on {}{}{}:{}\n", v6 ? "[" : "", endpoint.host, v6 ? "]" : "", server->port());
  std::fflush(stdout);
  server->run(stopping);
  spdlog::info("stopped");
  return {};
}

}  // namespace

void add_host_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<HostOptions>();
  auto* command = app.add_subcommand("host", "the host agent: writes target disks");
  command->add_option("--config", options->config, "TOML file with listen, store, tls");
  command->add_option("--listen", options->listen, "ADDRESS:PORT (port 0: the system chooses; printed when ready)");
  command->add_option("--store", options->store, "directory of the target disks; nothing outside is ever touched");
  command->add_option("--tls", options->tls, "directory with ca.crt, node.crt, node.key");
  command->add_option("--tls-records", options->tls_records, "auto or openssl: whose code makes TLS records");
  command->callback([options, &action] {
    action = [options] {
      spdlog::set_level(std::min(spdlog::get_level(), spdlog::level::info));
      const auto result = run_host(*options);
      return result ? static_cast<int>(kExitOk) : print_error(result.error(), false);
    };
  });
}

}  // namespace backhaul
