// The fields of items and plans, each with its bounds, once for all who read or write them: declarations, the store and
// drivers. Private to their sources.
#pragma once

#include "control/model/fields.h"
#include "control/model/model.h"
#include "control/model/model_json.h"
#include "dataplane/protocol/transfer.h"

namespace backhaul {

template <>
struct Word<Direction> : Words<parse_direction, Direction::primary_to_recovery> {};
template <>
struct Word<CommitMode> : Words<parse_commit_mode, CommitMode::undo_after> {};
template <>
struct Word<VerifyMode> : Words<parse_verify_mode, VerifyMode::full> {};
template <>
struct Word<DiskFormat> : Words<parse_disk_format, DiskFormat::vhdx_fixed> {};
template <>
struct Word<CompressMode> : Words<parse_compress_mode, CompressMode::zstd> {};

inline constexpr Within kTimeout_s{1, 24 * 3600};
inline constexpr AtMost kMostGroups{64}, kMostGroupItems{256};

template <class A>
void fields(A& a, Nic& v) {
  a("name", v.name, Need::declared), a("network", v.network, Need::required), a("mac", v.mac);
}
template <class A>
void fields(A& a, VmDescription& v) {
  a("name", v.name, Need::required), a("generation", v.generation, Declared{1, 2});
  if constexpr (A::kReads) v.firmware = v.generation == 1 ? "bios" : "uefi";
  a("memory_mib", v.memory_mib, Need::declared, Declared{1, 1 << 26}), a("cpus", v.cpus, Declared{1, 4096});
  a("firmware", v.firmware, DeclaredOneOf{"bios, uefi"}), a("secure_boot", v.secure_boot), a("nics", v.nics);
}
template <class A>
void fields(A& a, DiskPlace& v) {
  a("name", v.name, Need::required), a("path", v.path, Need::required);
  a("format", v.format), a("size_bytes", v.size_bytes);
}
// What is declared of a location; a recovery location has no host but this appliance.
template <class A>
void place_fields(A& a, Location& v, bool with_host) {
  if (with_host) a("host", v.host, Need::declared);
  a("driver", v.driver, Need::declared), a("vm", v.vm), a("settings", v.settings);
  a("disks", v.disks, Need::declared);
}
template <class A>
void fields(A& a, CommitPolicy& v) {
  a("mode", v.mode), a("minutes", v.minutes, Within{1, 30 * 24 * 60}), a("health_check", v.health_check);
}
template <class A>
void fields(A& a, TransferSettings& v) {
  a("lanes", v.lanes, Within{0, kMaxLanes}), a("limit_bytes_per_s", v.limit_bytes_per_s);
  a("verify", v.verify), a("compress", v.compress);
}
template <class A>
void fields(A& a, ShutdownSettings& v) {
  a("timeout_s", v.timeout_s, kTimeout_s), a("allow_force", v.allow_force);
}
template <class A>
void fields(A& a, BootSettings& v) {
  a("wait_s", v.wait_s, Within{0, 3600});
}
template <class A>
void setting_fields(A& a, Item& v) {
  a("earlier_failover_committed", v.earlier_failover_committed), a("commit_policy", v.commit_policy);
  a("transfer", v.transfer), a("shutdown", v.shutdown), a("boot", v.boot);
  a("replication_minutes", v.replication_minutes, Within{1, 24 * 60});
}
template <class A>
void fields(A& a, PlanAction& v) {
  a("name", v.name, Need::declared), a("manual", v.manual), a("text", v.text), a("command", v.command);
  a("timeout_s", v.timeout_s, kTimeout_s),
      a("direction", v.direction, OneOf{"both, RecoveryToPrimary, PrimaryToRecovery"});
}
template <class A>
void fields(A& a, PlanGroup& v) {
  a("name", v.name, Need::declared), a("items", v.items, kMostGroupItems);
  a("before_shutdown", v.before_shutdown), a("after_shutdown", v.after_shutdown);
  a("before_boot", v.before_boot), a("after_boot", v.after_boot);
}
// What is declared of a plan.
template <class A>
void plan_fields(A& a, RecoveryPlan& v) {
  a("id", v.id, Need::declared), a("groups", v.groups, Need::declared, kMostGroups);
  a("shutdown_in_boot_order", v.shutdown_in_boot_order);
}

}  // namespace backhaul
