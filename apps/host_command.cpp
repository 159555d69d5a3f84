// backhaul host: the host agent.
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <toml++/toml.h>

#include <cstdio>
#include <memory>

#include "apps/commands.h"
#include "dataplane/host_protocol.h"
#include "dataplane/linux_storage.h"
#include "transport/tls_server.h"

namespace backhaul {
namespace {

struct HostOptions {
  std::string config, listen, store, tls;
};

Error config_error(const std::string& file, const toml::source_region& where, const std::string& what) {
  return make_error(BaseErrc::invalid_argument, fmt::format("{}:{}: {}", file, where.begin.line, what));
}

// The configuration file fills what the command line left open.
Result<void> read_config(HostOptions& options) {
  if (options.config.empty()) return {};
  toml::table table;
  try {
    table = toml::parse_file(options.config);
  } catch (const toml::parse_error& error) {
    return config_error(options.config, error.source(), std::string(error.description()));
  }
  for (const auto& [key, value] : table) {
    std::string* place = key.str() == "listen"  ? &options.listen
                         : key.str() == "store" ? &options.store
                         : key.str() == "tls"   ? &options.tls
                                                : nullptr;
    if (place == nullptr)
      return config_error(options.config, key.source(),
                          fmt::format("unknown key '{}'; known: listen, store, tls", key.str()));
    const auto text = value.value<std::string>();
    if (!text) return config_error(options.config, value.source(), fmt::format("'{}' must be a string", key.str()));
    if (place->empty()) *place = *text;
  }
  return {};
}

Result<Endpoint> parse_listen(const std::string& text) {
  const auto colon = text.rfind(':');
  Endpoint endpoint;
  unsigned port = 70000;
  if (colon != std::string::npos && colon + 1 < text.size() && text.size() - colon <= 6 &&
      text.find_first_not_of("0123456789", colon + 1) == std::string::npos)
    port = static_cast<unsigned>(std::stoul(text.substr(colon + 1)));
  if (port > 65535) return make_error(BaseErrc::invalid_argument, "listen '" + text + "' is not ADDRESS:PORT");
  endpoint.host = text.substr(0, colon);
  if (endpoint.host.size() > 2 && endpoint.host.front() == '[' && endpoint.host.back() == ']')
    endpoint.host = endpoint.host.substr(1, endpoint.host.size() - 2);
  endpoint.port = static_cast<std::uint16_t>(port);
  return endpoint;
}

Result<void> run_host(HostOptions options) {
  BH_CHECK(read_config(options));
  if (options.listen.empty()) options.listen = "0.0.0.0:7443";
  if (options.store.empty())
    return make_error(BaseErrc::invalid_argument, "no store given (--store DIR or store = \"DIR\")");
  BH_TRY(const auto endpoint, parse_listen(options.listen));
  BH_TRY(auto parts, real_parts());
  BH_CHECK(parts.make_queue());  // says at once when io_uring is not to be had
  BH_TRY(auto storage, open_linux_storage(options.store));
  BH_TRY(auto tls, TlsContext::load(TlsRole::server, tls_directory(options.tls, "host")));
  for (const auto& warning : tls->warnings()) spdlog::warn("{}", warning);
  BH_TRY(auto server, TlsServer::listen(endpoint, tls));
  BH_TRY(const auto leftovers, recover_store(*storage));
  for (const auto& leftover : leftovers)
    spdlog::warn("unfinished transfer of {}: {}", leftover.disk,
                 leftover.action == "resumable" ? "run the same send again, or `backhaul cancel`" : leftover.action);

  std::atomic<bool> stopping{false};
  TargetStore store(*storage, parts);
  HostProtocol protocol(store, stopping);
  server->set_handler(kAlpnBackhaul, [&](std::unique_ptr<TlsStream> stream) { protocol.serve(std::move(stream)); });
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
  command->callback([options, &action] {
    action = [options] {
      spdlog::set_level(std::min(spdlog::get_level(), spdlog::level::info));
      const auto result = run_host(*options);
      return result ? static_cast<int>(kExitOk) : print_error(result.error(), false);
    };
  });
}

}  // namespace backhaul
