// The configuration of both daemons: TOML, typed and bounded, checked as a whole on start. Every mistake is reported
// with its line and key, not only the first (ControlErrc::bad_file). Plain values; nothing here acts. Relative paths
// are relative to the working directory. docs/OPERATIONS.md describes the keys.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "control/drivers/qemu/qemu_driver.h"
#include "control/http/http.h"
#include "control/jobs/job_context.h"
#include "control/jobs/service.h"
#include "dataplane/protocol/transfer.h"
#include "transport/tls/tls_stream.h"

namespace backhaul {

// [[drivers]]: how VMs beside this daemon are reached. Names are unique; locations of items refer to them.
struct DriverConfig {
  std::string name;
  std::string kind = "command";            // command, qemu
  std::vector<std::string> command;        // argv; the verb is appended (docs/command_driver.md)
  std::uint32_t timeout_s = 120;           // of one call; 1 to 86400
  std::map<std::string, std::string> env;  // override the daemon's own environment
  QemuDriverOptions qemu;                  // docs/qemu_driver.md; no `disks`: the store and the sources
};

// [[hosts]]: host agents that the appliance may dial. Ids are unique; primary locations of items refer to them.
struct HostAddress {
  std::string id;
  Endpoint address;
};

// Of `backhaul host`. Empty: not given; flags override the file.
struct HostConfig {
  std::string listen;  // ADDRESS:PORT
  std::string store;   // directory of the target disks
  std::string tls;     // ca.crt, node.crt, node.key
  TlsRecords tls_records = TlsRecords::automatic;
  std::vector<std::string> sources;  // further directories from which disks may be read: where drivers put snapshots
  std::vector<DriverConfig> drivers;
  // What preflight checks a VM against.
  std::vector<std::string> networks;
  std::vector<std::uint32_t> generations{1, 2};
};

// [transfer]: defaults of items, and what none may exceed.
struct TransferConfig {
  std::uint32_t lanes = 2;              // of one disk's transfer; 1 to kMaxLanes
  std::uint32_t max_lanes = kMaxLanes;  // an item that asks for more gets this
  std::uint64_t limit_bytes_per_s = 0;  // of one disk's transfer, for items without their own; 0: none
};

// Of `backhaul appliance`.
struct ApplianceConfig {
  std::string listen = "127.0.0.1:8443";  // of the API, ADDRESS:PORT
  std::string tls;                        // as for host; for the API's listener and for dialling host agents
  TlsRecords tls_records = TlsRecords::automatic;
  std::string vault = "vault";       // the name in the API's paths
  std::string state;                 // directory of the job store; one appliance at a time
  std::string store;                 // directory below which this site's own disks lie
  std::vector<std::string> sources;  // as for host
  std::vector<HostAddress> hosts;
  std::vector<DriverConfig> drivers;
  std::vector<std::string> networks;
  std::vector<std::uint32_t> generations{1, 2};
  TransferConfig transfer;
  Limits limits;    // [limits] threads, items, plans, kept_jobs, kept_events
  HttpLimits http;  // [limits] request_bytes, header_bytes, request_s, idle_s, write_s
  Pace pace;        // [pace]; for tests and rehearsals
};

// `name` stands in messages: "host.toml:3: drivers[0].timeout_s: must be ...".
Result<HostConfig> parse_host_config(std::string_view text, std::string_view name);
Result<ApplianceConfig> parse_appliance_config(std::string_view text, std::string_view name);
// Errors also: BaseErrc::invalid_argument when the file cannot be read.
Result<HostConfig> load_host_config(const std::filesystem::path& file);
Result<ApplianceConfig> load_appliance_config(const std::filesystem::path& file);

// "HOST:PORT", IPv6 in brackets. invalid_argument names the text.
Result<Endpoint> parse_endpoint(std::string_view text);

}  // namespace backhaul
