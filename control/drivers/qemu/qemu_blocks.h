// What QEMU says of its block layer, as values, and the few commands on bitmaps and jobs that the driver needs. Bitmaps
// of ours are named by token; a token is in no other process, so a bitmap that is there has recorded everything since.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "control/drivers/qemu/qmp_client.h"
#include "dataplane/disk/disk.h"

namespace backhaul {

Error driver_failed(std::string cause);  // ControlErrc::driver_failed
// A text that is there, in an answer whose shape was checked.
std::string text_at(const boost::json::object& object, const char* key);

inline constexpr std::uint64_t kQemuGranularity = 32 * 1024;  // of our bitmaps: a block

struct QemuBitmap {
  std::string name;
  std::uint64_t dirty_bytes = 0;
  bool recording = false, busy = false, inconsistent = false;
};

struct QemuNode {
  std::string name, driver, file;
  std::uint64_t virtual_size = 0;
  std::vector<QemuBitmap> bitmaps;

  const QemuBitmap* bitmap(std::string_view token) const;
};

struct QemuJob {
  std::string id, status, error;
  std::uint64_t done = 0, total = 0;
};

// QEMU's name of a format: both kinds of VHDX are one to it.
constexpr const char* qemu_format(DiskFormat format) noexcept { return format == DiskFormat::raw ? "raw" : "vhdx"; }

// QEMU as it is now. Pointers are into it.
struct QemuView {
  std::string status;  // of the VM: running, paused, shutdown, io-error, prelaunch, ...
  std::vector<QemuNode> nodes;
  std::set<std::string, std::less<>> tops;  // nodes that guest devices write to
  std::vector<QemuJob> jobs;

  const QemuNode* node(std::string_view name) const;
  const QemuJob* job(std::string_view id) const;
  bool is_top(std::string_view name) const { return tops.find(name) != tops.end(); }
  // The format node over the file at `path` (compared as files).
  const QemuNode* disk(const std::string& path, DiskFormat format) const;
};
// Errors also: driver_protocol when an answer has another shape than QEMU 7's.
Result<QemuView> look_at_qemu(QmpClient& qmp);

// What guest devices have done since QEMU was started.
struct QemuWrites {
  std::uint64_t acknowledged = 0;        // writes
  std::optional<std::uint64_t> idle_ms;  // since the last access was done, be it a write, a flush or a read
};
Result<QemuWrites> query_writes(QmpClient& qmp);

Result<std::string> query_status(QmpClient& qmp);
Result<std::vector<QemuJob>> query_jobs(QmpClient& qmp);

std::string bitmap_name(std::string_view token);
bool is_our_bitmap(std::string_view name);

// One action of a transaction.
boost::json::object action(std::string_view type, boost::json::object data);
Result<void> run_transaction(QmpClient& qmp, boost::json::array actions);  // nothing to do: no error

}  // namespace backhaul
