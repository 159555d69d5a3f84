#include "control/agents/node_config.h"

#include <fmt/format.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>

#include "control/model/model.h"
#include "control/model/toml_reader.h"

namespace backhaul {
namespace {

using Need = TableReader::Need;

constexpr std::uint32_t kDay_s = 24 * 3600;
constexpr std::uint32_t kMostLanes = 16;  // of one transfer (dataplane/protocol/lane.h)

// A text that must be HOST:PORT when it is there.
void read_endpoint(TableReader& t, std::string_view key, std::string& text, Endpoint* into, Need need) {
  const auto before = text;
  t.text(key, text, need);
  if (text.empty() || text == before) return;
  const auto endpoint = parse_endpoint(text);
  if (!endpoint) return t.mistake(key, fmt::format("'{}' is not HOST:PORT", text));
  if (into == nullptr) return;
  if (endpoint->host.empty() || endpoint->port == 0)
    return t.mistake(key, fmt::format("'{}' must name a host and a port to dial", text));
  *into = *endpoint;
}

// A table of texts by name.
void read_texts_by_name(TableReader& t, std::string_view key, std::map<std::string, std::string>& texts) {
  boost::json::object entries;
  t.object(key, entries);
  for (const auto& [name, value] : entries) {
    if (!value.is_string() || std::string_view(name).find('=') != std::string_view::npos || name.empty())
      t.mistake(key, fmt::format("'{}' must be a name with a text", std::string_view(name)));
    else
      texts[std::string(name)] = value.get_string();
  }
}

// One entry of a list whose entries have unique names.
void read_name(TableReader& t, std::string_view key, std::string& name, std::set<std::string>& seen) {
  t.text(key, name, Need::required);
  if (name.empty()) return;
  if (!is_valid_id(name))
    t.mistake(key, "must be 1 to 63 letters, digits, '.', '_' or '-', and begin with a letter or digit");
  else if (!seen.insert(name).second)
    t.mistake(key, fmt::format("'{}' is there twice", name));
}

void read_command_driver(TableReader& d, DriverConfig& driver) {
  d.texts("command", driver.command);
  d.number("timeout_s", driver.timeout_s, 1, kDay_s);
  read_texts_by_name(d, "env", driver.env);
  if (driver.command.empty() || driver.command[0].empty()) {
    d.mistake("command", "must be a list of the executable and its arguments");
  } else if (driver.command[0].find('/') != std::string::npos && ::access(driver.command[0].c_str(), X_OK) != 0) {
    d.mistake("command", fmt::format("{} cannot be run: {}", driver.command[0], std::strerror(errno)));
  }
}

void read_qemu_driver(TableReader& d, QemuDriverOptions& qemu) {
  d.text("state", qemu.state, Need::required);
  d.texts("disks", qemu.disks);
  d.texts("attach", qemu.attach);
  read_texts_by_name(d, "networks", qemu.networks);
  d.text("binary", qemu.binary);
  d.text("image_tool", qemu.image_tool);
  d.choice("accel", qemu.accel, {"tcg", "kvm"});
  if (d.has("machine")) d.choice("machine", qemu.machine, {"q35", "pc"});
  d.choice("disk_bus", qemu.disk_bus, {"virtio", "scsi", "ide"});
  d.choice("nic_model", qemu.nic_model, {"virtio-net-pci", "e1000", "e1000e", "rtl8139"});
  d.text("firmware_code", qemu.firmware_code);
  d.text("firmware_vars", qemu.firmware_vars);
  d.texts("arguments", qemu.arguments);
  d.number("reserve_bytes", qemu.reserve_bytes);
  d.number("timeout_s", qemu.timeout_s, 1, kDay_s);
}

void read_drivers(TableReader& t, std::vector<DriverConfig>& drivers) {
  std::set<std::string> names;
  t.tables("drivers", [&](TableReader& d) {
    DriverConfig& driver = drivers.emplace_back();
    read_name(d, "name", driver.name, names);
    d.choice("kind", driver.kind, {"command", "qemu"});
    if (driver.kind == "qemu")
      read_qemu_driver(d, driver.qemu);
    else
      read_command_driver(d, driver);
  });
}

void read_site(TableReader& t, std::vector<std::string>& networks, std::vector<std::uint32_t>& generations) {
  t.texts("networks", networks);
  t.numbers("generations", generations, 1, 2);
}

void read_tls_records(TableReader& t, TlsRecords& records) {
  std::string word = "auto";
  t.choice("tls_records", word, {"auto", "openssl"});
  if (const auto choice = parse_tls_records(word)) records = *choice;
}

void read_host(TableReader& t, HostConfig& config) {
  read_endpoint(t, "listen", config.listen, nullptr, Need::optional);
  t.text("store", config.store);
  t.text("tls", config.tls);
  read_tls_records(t, config.tls_records);
  t.texts("sources", config.sources);
  read_drivers(t, config.drivers);
  read_site(t, config.networks, config.generations);
}

void read_hosts(TableReader& t, std::vector<HostAddress>& hosts) {
  std::set<std::string> ids;
  t.tables("hosts", [&](TableReader& h) {
    HostAddress& host = hosts.emplace_back();
    read_name(h, "id", host.id, ids);
    std::string address;
    read_endpoint(h, "address", address, &host.address, Need::required);
  });
}

template <class Duration>
void read_duration(TableReader& t, std::string_view key, Duration& value, std::uint64_t low, std::uint64_t high) {
  auto count = static_cast<std::uint64_t>(value.count());
  t.number(key, count, low, high);
  value = Duration(count);
}

void read_limits(TableReader& t, Limits& limits, HttpLimits& http) {
  t.number("threads", limits.threads, 1, 256);
  t.number("items", limits.max_items, 1, 100'000);
  t.number("plans", limits.max_plans, 1, 100'000);
  t.number("kept_jobs", limits.kept_jobs, 1, 1'000'000);
  t.number("kept_events", limits.kept_events, 1, 1'000'000);
  t.number("request_bytes", http.body_bytes, 1024, 64 * 1024 * 1024);
  t.number("header_bytes", http.header_bytes, 1024, 1024 * 1024);
  read_duration(t, "request_s", http.request, 1, 3600);
  read_duration(t, "idle_s", http.idle, 1, 3600);
  read_duration(t, "write_s", http.write, 1, 3600);
}

void read_pace(TableReader& t, Pace& pace) {
  constexpr std::uint64_t kDay_ms = std::uint64_t{kDay_s} * 1000;
  read_duration(t, "poll_ms", pace.poll, 1, kDay_ms);
  read_duration(t, "look_ms", pace.look, 1, kDay_ms);
  read_duration(t, "delta_interval_ms", pace.delta_interval, 1, kDay_ms);
  read_duration(t, "delta_least_ms", pace.delta_least, 1, kDay_ms);
  t.number("delta_bytes", pace.delta_bytes, 1);
  read_duration(t, "retry_first_ms", pace.retry_first, 1, kDay_ms);
  read_duration(t, "retry_last_ms", pace.retry_last, 1, kDay_ms);
  t.number("attempts", pace.attempts, 1, 1000);
  read_duration(t, "tell_progress_ms", pace.tell_progress, 1, kDay_ms);
  read_duration(t, "minute_s", pace.minute, 1, 60);
}

void read_appliance(TableReader& t, ApplianceConfig& config) {
  read_endpoint(t, "listen", config.listen, nullptr, Need::optional);
  t.text("tls", config.tls, Need::required);
  read_tls_records(t, config.tls_records);
  t.text("vault", config.vault);
  if (!is_valid_id(config.vault)) t.mistake("vault", "must be 1 to 63 letters, digits, '.', '_' or '-'");
  t.text("state", config.state, Need::required);
  t.text("store", config.store, Need::required);
  t.texts("sources", config.sources);
  read_hosts(t, config.hosts);
  read_drivers(t, config.drivers);
  read_site(t, config.networks, config.generations);
  t.table("transfer", [&](TableReader& x) {
    x.number("lanes", config.transfer.lanes, 1, kMostLanes);
    x.number("max_lanes", config.transfer.max_lanes, 1, kMostLanes);
    x.number("limit_bytes_per_s", config.transfer.limit_bytes_per_s);
    if (config.transfer.lanes > config.transfer.max_lanes) x.mistake("lanes", "must not exceed max_lanes");
  });
  t.table("limits", [&](TableReader& l) { read_limits(l, config.limits, config.http); });
  t.table("pace", [&](TableReader& p) { read_pace(p, config.pace); });
}

template <class Config>
Result<Config> parse(std::string_view text, std::string_view name, void (*read)(TableReader&, Config&)) {
  Mistakes mistakes(name);
  Config config;
  if (const auto table = parse_toml(text, mistakes)) {
    TableReader reader(*table, "", mistakes);
    read(reader, config);
  }
  if (!mistakes.none()) return mistakes.to_error();
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
  return parse<HostConfig>(text, name, read_host);
}
Result<ApplianceConfig> parse_appliance_config(std::string_view text, std::string_view name) {
  return parse<ApplianceConfig>(text, name, read_appliance);
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
