#include "control/agents/node_config.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <set>

#include "control/model/control_error.h"
#include "control/model/fields.h"
#include "control/model/model.h"
#include "control/model/toml_json.h"
#include "dataplane/protocol/transfer.h"

namespace backhaul {
namespace {

constexpr Within kUpToADay_s{1, 24 * 3600}, kUpToADay_ms{1, 24 * 3600 * 1000};
constexpr Within kLanes{1, kMaxLanes};

// A text that must be HOST:PORT when it is there.
void read_endpoint(FieldReader& r, std::string_view key, std::string& text, Endpoint* into, Need need) {
  const auto before = text;
  r(key, text, need);
  if (text.empty() || text == before) return;
  const auto endpoint = parse_endpoint(text);
  if (!endpoint) return r.mistake(key, fmt::format("'{}' is not HOST:PORT", text));
  if (into == nullptr) return;
  if (endpoint->host.empty() || endpoint->port == 0)
    return r.mistake(key, fmt::format("'{}' must name a host and a port to dial", text));
  *into = *endpoint;
}

// An id that refers to one entry of a list.
void read_name(FieldReader& r, std::string_view key, std::string& name) {
  r(key, name, Need::required);
  if (!name.empty() && !is_valid_id(name))
    r.mistake(key, "must be 1 to 63 letters, digits, '.', '_' or '-', and begin with a letter or digit");
}

template <class T>
void require_unique(FieldReader& r, std::string_view list, const std::vector<T>& entries, std::string_view key,
                    std::string T::*name) {
  std::set<std::string> seen;
  for (std::size_t i = 0; i < entries.size(); ++i)
    if (const auto& text = entries[i].*name; !text.empty() && !seen.insert(text).second)
      r.mistake(fmt::format("{}[{}].{}", list, i, key), fmt::format("'{}' is there twice", text));
}

void read_command_driver(FieldReader& r, DriverConfig& driver) {
  r("command", driver.command), r("timeout_s", driver.timeout_s, kUpToADay_s), r("env", driver.env);
  if (driver.command.empty() || driver.command[0].empty()) {
    r.mistake("command", "must be a list of the executable and its arguments");
  } else if (driver.command[0].find('/') != std::string::npos && ::access(driver.command[0].c_str(), X_OK) != 0) {
    r.mistake("command", fmt::format("{} cannot be run: {}", driver.command[0], std::strerror(errno)));
  }
}

void read_qemu_driver(FieldReader& r, QemuDriverOptions& qemu) {
  r("state", qemu.state, Need::required), r("disks", qemu.disks), r("attach", qemu.attach);
  r("networks", qemu.networks), r("binary", qemu.binary), r("image_tool", qemu.image_tool);
  r("accel", qemu.accel, OneOf{"tcg, kvm"}), r("machine", qemu.machine, OneOf{kQemuMachines});
  r("disk_bus", qemu.disk_bus, OneOf{kQemuDiskBuses});
  r("nic_model", qemu.nic_model, OneOf{kQemuNicModels});
  r("firmware_code", qemu.firmware_code), r("firmware_vars", qemu.firmware_vars), r("arguments", qemu.arguments);
  r("reserve_bytes", qemu.reserve_bytes), r("timeout_s", qemu.timeout_s, kUpToADay_s);
}

// What both daemons say.
template <class Config>
void read_node(FieldReader& r, Config& config, Need need) {
  std::string records = "auto";
  read_endpoint(r, "listen", config.listen, nullptr, Need::optional);
  r("store", config.store, need), r("tls", config.tls, need), r("tls_records", records, OneOf{"auto, openssl"});
  config.tls_records = parse_tls_records(records).value_or(config.tls_records);
  r("sources", config.sources), r("drivers", config.drivers);
  require_unique(r, "drivers", config.drivers, "name", &DriverConfig::name);
  r("networks", config.networks), r("generations", config.generations, Within{1, 2});
}

}  // namespace

static void fields(FieldReader& r, DriverConfig& driver) {
  read_name(r, "name", driver.name);
  r("kind", driver.kind, OneOf{"command, qemu"});
  driver.kind == "qemu" ? read_qemu_driver(r, driver.qemu) : read_command_driver(r, driver);
}
static void fields(FieldReader& r, HostAddress& host) {
  read_name(r, "id", host.id);
  std::string address;
  read_endpoint(r, "address", address, &host.address, Need::required);
}
static void fields(FieldReader& r, TransferConfig& transfer) {
  r("lanes", transfer.lanes, kLanes), r("max_lanes", transfer.max_lanes, kLanes);
  r("limit_bytes_per_s", transfer.limit_bytes_per_s);
  if (transfer.lanes > transfer.max_lanes) r.mistake("lanes", "must not exceed max_lanes");
}
static void fields(FieldReader& r, Pace& pace) {
  r("poll_ms", pace.poll, kUpToADay_ms), r("look_ms", pace.look, kUpToADay_ms);
  r("delta_interval_ms", pace.delta_interval, kUpToADay_ms), r("delta_least_ms", pace.delta_least, kUpToADay_ms);
  r("delta_bytes", pace.delta_bytes, Within{1}), r("retry_first_ms", pace.retry_first, kUpToADay_ms);
  r("retry_last_ms", pace.retry_last, kUpToADay_ms), r("attempts", pace.attempts, Within{1, 1000});
  r("tell_progress_ms", pace.tell_progress, kUpToADay_ms), r("minute_s", pace.minute, Within{1, 60});
}
static void fields(FieldReader& r, HostConfig& config) { read_node(r, config, Need::optional); }
static void fields(FieldReader& r, ApplianceConfig& config) {
  read_node(r, config, Need::required);
  r("vault", config.vault), r("state", config.state, Need::required), r("hosts", config.hosts);
  if (!is_valid_id(config.vault)) r.mistake("vault", "must be 1 to 63 letters, digits, '.', '_' or '-'");
  require_unique(r, "hosts", config.hosts, "id", &HostAddress::id);
  r("transfer", config.transfer), r("pace", config.pace);
  r("limits", [&](FieldReader& l) {
    auto& limits = config.limits;
    l("threads", limits.threads, Within{1, 256}), l("items", limits.max_items, Within{1, 100'000});
    l("plans", limits.max_plans, Within{1, 100'000}), l("kept_jobs", limits.kept_jobs, Within{1, 1'000'000});
    l("kept_events", limits.kept_events, Within{1, 1'000'000});
    auto& http = config.http;
    l("request_bytes", http.body_bytes, Within{1024, 64 * 1024 * 1024});
    l("header_bytes", http.header_bytes, Within{1024, 1024 * 1024}), l("request_s", http.request, Within{1, 3600});
    l("idle_s", http.idle, Within{1, 3600}), l("write_s", http.write, Within{1, 3600});
  });
}

namespace {

template <class Config>
Result<Config> parse(std::string_view text, std::string_view name) {
  Mistakes mistakes(From::people, std::string(name));
  Config config;
  const auto file = parse_toml(text, mistakes);
  if (!file) return mistakes.to_error(ControlErrc::bad_file);
  BH_RETURN_IF_ERROR(read_fields(*file, config, mistakes, ControlErrc::bad_file));
  return config;
}

Result<std::string> read_text(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::string text;
  if (in) text.assign(std::istreambuf_iterator<char>(in), {});
  if (!in) return make_error(BaseErrc::invalid_argument, file.string() + " cannot be read: " + std::strerror(errno));
  return text;
}

}  // namespace

Result<HostConfig> parse_host_config(std::string_view text, std::string_view name) {
  return parse<HostConfig>(text, name);
}
Result<ApplianceConfig> parse_appliance_config(std::string_view text, std::string_view name) {
  return parse<ApplianceConfig>(text, name);
}
Result<HostConfig> load_host_config(const std::filesystem::path& file) {
  BH_TRY(const auto text, read_text(file));
  return parse_host_config(text, file.string());
}
Result<ApplianceConfig> load_appliance_config(const std::filesystem::path& file) {
  BH_TRY(const auto text, read_text(file));
  return parse_appliance_config(text, file.string());
}

Result<Endpoint> parse_endpoint(std::string_view text) {
  const auto bad = [&] {
    return make_error(BaseErrc::invalid_argument, fmt::format("'{}' is not ADDRESS:PORT", text));
  };
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos || colon + 1 == text.size() || text.size() - colon > 6) return bad();
  const auto digits = text.substr(colon + 1);
  if (digits.find_first_not_of("0123456789") != std::string_view::npos) return bad();
  unsigned port = 0;
  for (char digit : digits) port = 10 * port + static_cast<unsigned>(digit - '0');
  std::string_view host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  else if (host.find(':') != std::string_view::npos)
    return bad();  // IPv6 without brackets: where does the port begin?
  if (port > 65535 || host.find_first_of(" /@[]") != std::string_view::npos) return bad();
  return Endpoint{std::string(host), static_cast<std::uint16_t>(port)};
}

}  // namespace backhaul
