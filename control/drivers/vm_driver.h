// VM drivers: how virtual machines are reached, on both sides. One interface: `command`
// (control/drivers/command_driver.h) runs the operator's executables, `qemu` speaks QMP, RemoteDriver asks a host agent
// for a VM beside it. Calls block until done or timed out; they may come from several threads, but for one VM only from
// one at a time. Every call may be repeated after a crash: done twice is done once ("stop" of a stopped VM succeeds,
// "snapshot" under a known id gives the same snapshot). Errors: ControlErrc::driver_*, shutdown_refused,
// host_unreachable, or what a host agent reported.
#pragma once

#include <boost/json/object.hpp>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "control/model/model.h"
#include "dataplane/disk/io.h"

namespace backhaul {

struct VmRef {
  std::string vm;
  boost::json::object settings;
  std::vector<DiskPlace> disks;
};
VmRef vm_ref(const Item& item, const Location& location);

enum class PowerState : std::uint8_t { absent, off, running, unknown };
std::string_view to_string(PowerState state) noexcept;
std::optional<PowerState> parse_power_state(std::string_view text) noexcept;

struct VmFacts {
  PowerState power = PowerState::unknown;
  std::optional<VmDescription> vm;
  std::vector<DiskPlace> disks;  // sizes filled in
};

struct Snapshot {
  std::string id;
  std::string token;  // changes can be asked from it later; empty: no tracker
  // All of the same moment. Each path, or NBD URI (dataplane/nbd/nbd.h), can be read until the release and does not
  // change.
  std::vector<DiskPlace> disks;
};

// No `ranges`: the tracker cannot say (lost, inconsistent, unknown token), and digests find the changes. That is never
// an error.
struct ChangedExtents {
  std::optional<std::vector<ByteRange>> ranges;
  std::string why_unknown;
};

struct ShutdownRequest {
  std::uint32_t timeout_s = 300;
  bool allow_force = false;
};
// `last_write_age_ms`: how long before this answer the guest's last write was acknowledged; nothing: the driver cannot
// tell. An age, not a time, because the clocks of both sites need not agree.
struct ShutdownOutcome {
  bool forced = false;
  std::optional<std::uint64_t> last_write_age_ms;
};

// `token`: changes since the guest's first instruction can be asked from it later; empty: no tracker. Only the call
// that started the VM, or its repetition, gives one.
struct StartOutcome {
  std::string token;
};

// The guest's first write since its start. With `seen` it happened `age_ms` before this answer, or up to `unsure_ms`
// earlier.
struct FirstWrite {
  enum Kind : std::uint8_t { cannot_tell, not_yet, seen } kind = cannot_tell;
  std::uint64_t age_ms = 0, unsure_ms = 0;
};

enum class CheckLevel : std::uint8_t { ok, warning, failed };
std::string_view to_string(CheckLevel level) noexcept;
std::optional<CheckLevel> parse_check_level(std::string_view text) noexcept;
struct Check {
  std::string name;  // "free-space", "network:LAN"
  CheckLevel level = CheckLevel::ok;
  std::string code, cause, fix;  // empty when ok
};

struct Health {
  bool healthy = false;
  std::string detail;
};

class VmDriver {
 public:
  virtual ~VmDriver() = default;

  virtual Result<VmFacts> describe(const VmRef& vm) = 0;
  // A consistent point in time of all disks; a VM that is off may be given as it is. The caller makes `id` unique.
  virtual Result<Snapshot> snapshot(const VmRef& vm, const std::string& id) = 0;
  // What changed between the snapshot that had `since_token` and snapshot `id`. May be more than the truth, never less.
  virtual Result<ChangedExtents> changed_extents(const VmRef& vm, const std::string& disk,
                                                 const std::string& since_token, const std::string& id) = 0;
  // About how much has changed since the token, cheaply, as a number to show; nothing when the driver cannot say.
  virtual Result<std::optional<std::uint64_t>> changed_bytes(const VmRef& vm, const std::string& since_token) = 0;
  // Frees the snapshot's space; no error when it is gone. `accepted`: the target holds it, its token is the new base,
  // and older tokens may be forgotten. Otherwise its token is void, and older tokens stay valid and cover what changed
  // until this snapshot, too.
  virtual Result<void> release_snapshot(const VmRef& vm, const std::string& id, bool accepted) = 0;
  virtual Result<void> forget_tokens(const VmRef& vm) = 0;

  virtual Result<ShutdownOutcome> shut_down(const VmRef& vm, const ShutdownRequest& request) = 0;
  // When a VM of this name exists, that is no error: it is brought to the description's disks.
  virtual Result<void> create(const VmRef& vm, const VmDescription& description) = 0;
  virtual Result<StartOutcome> start(const VmRef& vm) = 0;
  // Waits at most `wait` for the guest's first write since start(). Optional: not every hypervisor can tell.
  virtual Result<FirstWrite> first_write(const VmRef& vm, std::chrono::milliseconds wait) {
    static_cast<void>(vm), static_cast<void>(wait);
    return FirstWrite{};
  }
  virtual Result<void> stop(const VmRef& vm) = 0;  // at once
  // Removes the VM; its disks stay, detached, unless `delete_disks`.
  virtual Result<void> remove(const VmRef& vm, bool delete_disks) = 0;

  // Whether this VM could be created and started here; changes nothing.
  virtual Result<std::vector<Check>> preflight(const VmRef& vm, const VmDescription& description) = 0;
  virtual Result<Health> health(const VmRef& vm) = 0;
};

// Finds the driver of a location: local ones by name, RemoteDriver for those beside host agents. Drivers live as long
// as the source.
class VmDriverSource {
 public:
  virtual ~VmDriverSource() = default;
  virtual Result<VmDriver*> driver_for(const Location& location) = 0;
};

}  // namespace backhaul
