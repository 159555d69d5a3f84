// What the control layer knows: items and recovery plans. Plain values, stored as JSON (control/model/model_json.h),
// declared in TOML (control/model/declaration.h). Nothing here acts.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "control/model/downtime.h"
#include "control/model/phases.h"
#include "dataplane/protocol/transfer.h"
#include "transport/frames/compress.h"

namespace backhaul {

// Ids of items, plans and tokens: [A-Za-z0-9][A-Za-z0-9._-]{0,62}
bool is_valid_id(std::string_view id) noexcept;

struct Nic {
  std::string name;
  std::string network;  // the virtual switch; one of the same name must exist where the VM is to run
  std::string mac;      // empty: the hypervisor chooses
};

struct VmDescription {
  std::string name;
  std::uint32_t generation = 2;  // 1 or 2
  std::uint64_t memory_mib = 0;
  std::uint32_t cpus = 1;
  std::string firmware = "uefi";  // "bios" (generation 1) or "uefi" (generation 2)
  bool secure_boot = false;
  std::vector<Nic> nics;
};

// One disk at one location. `name` is the same at both locations and pairs them.
struct DiskPlace {
  std::string name;
  // At the appliance: a path as its driver and data plane see it, or the NBD URI (dataplane/nbd/nbd.h) of a disk that
  // is only exported and cannot be a target. At a host agent: a path below its store.
  std::string path;
  DiskFormat format = DiskFormat::raw;
  std::uint64_t size_bytes = 0;  // 0: not known yet
};

struct Location {
  std::string host;              // a host agent's id; empty: this appliance's own site
  std::string driver;            // a driver's name in the configuration of whoever runs it
  std::string vm;                // the VM's id for that driver; the item's name when empty
  boost::json::object settings;  // passed to the driver untouched
  std::vector<DiskPlace> disks;
  bool vm_exists = true;  // false: the VM must be created before it can start
};

enum class CommitMode : std::uint8_t { none, commit_after, undo_after };
struct CommitPolicy {
  CommitMode mode = CommitMode::none;
  std::uint32_t minutes = 0;
  bool health_check = true;  // undo_after: the driver's health verb decides; yes commits, no or no answer undoes
};

// What a transfer may use, and how it checks; 0 means the appliance's default.
struct TransferSettings {
  std::uint32_t lanes = 0;
  std::uint64_t limit_bytes_per_s = 0;
  VerifyMode verify = VerifyMode::written;
  CompressMode compress = CompressMode::automatic;
};

struct ShutdownSettings {
  std::uint32_t timeout_s = 300;
  bool allow_force = false;  // after the timeout: power off
};

// How long a failover that has started its VM waits for the guest's first write, to measure; 0: not at all. The job
// succeeds either way.
struct BootSettings {
  std::uint32_t wait_s = 60;
};

struct Item {
  std::string id;             // the resource's name; [A-Za-z0-9][A-Za-z0-9._-]{0,62}
  std::uint64_t version = 0;  // of the store; 0 in a new item

  // Declared.
  VmDescription vm;
  Location recovery, primary;
  bool earlier_failover_committed = true;  // decides the first state only
  CommitPolicy commit_policy;
  TransferSettings transfer;
  ShutdownSettings shutdown;
  BootSettings boot;
  std::uint32_t replication_minutes = 5;

  // Kept by the runner.
  ItemState state = ItemState::failover_committed;
  ItemState resting_state = ItemState::failover_committed;  // where cancel and undo lead back to
  Direction direction = Direction::recovery_to_primary;     // of the present or last planned failover
  std::string current_job;                                  // holds the item; empty in resting states
  std::string failover_job;                                 // the last planned failover: what undo takes back
  bool remove_requested = false;                            // the item is removed when its replication has ended
  std::string replication_job;                              // of a protected item
  std::uint64_t epoch = 0;                                  // last one given out; only grows
  std::int64_t commit_deadline_unix_s = 0;                  // commit policy; 0: none is running
  std::int64_t protected_until_unix_s = 0;                  // the point in time that the recovery site holds; 0: none
  // What the last planned failover started the VM from. The disks kept at the site that it left have this content: the
  // base of the first round back there. Both or none; good for one try.
  std::string start_token;          // given by the driver that started the VM
  boost::json::object start_roots;  // disk -> root digest, as delivered and verified
  std::string last_error;           // of replication; empty when the last cycle was good
  // Measured by this item's own jobs, for projections; 0: never measured.
  double bytes_per_s = 0, digest_bytes_per_s = 0;
  DowntimeParts downtime;  // of the last failover; `delta` without what its bytes took at `bytes_per_s`; `boot` of the
                           // last that could tell
  bool downtime_measured = false, boot_measured = false;

  void forget_start() { start_token.clear(), start_roots.clear(); }
  const Location& at(Direction which, bool source) const {
    return (which == Direction::recovery_to_primary) == source ? recovery : primary;
  }
};

struct PlanAction {
  std::string name;
  bool manual = false;  // waits for resume, showing `text`
  std::string text;
  std::vector<std::string> command;  // argv; run by the appliance, JSON about the group on stdin
  std::uint32_t timeout_s = 300;
  std::string direction = "both";  // both, or the one direction of a planned failover in which it runs
};

struct PlanGroup {
  std::string name;
  std::vector<std::string> items;  // ids; they run in parallel
  std::vector<PlanAction> before_shutdown, after_shutdown, before_boot, after_boot;
};

struct RecoveryPlan {
  std::string id;
  std::uint64_t version = 0;
  std::vector<PlanGroup> groups;  // in boot order; shut down in reverse order, unless:
  bool shutdown_in_boot_order = false;
  std::string current_job;
};

}  // namespace backhaul
