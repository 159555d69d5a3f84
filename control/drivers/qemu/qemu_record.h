// What the qemu driver remembers of one VM, in the VM's directory: `vm.json` (what it is; only of VMs that the driver
// starts itself) and `state.json` (a held snapshot and its overlays). Both are replaced whole and durably, and written
// before the action that they announce. Plain values and file access; nothing here talks to QEMU.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "control/model/model.h"

namespace backhaul {

struct QemuDefinition {
  VmDescription vm;
  std::vector<DiskPlace> disks;  // absolute paths; the order is the order of the devices
  std::string machine, disk_bus, nic_model;
};

// A disk of a held snapshot. While `overlay_file` is not empty that file may hold writes of the guest that the disk
// itself lacks: it is deleted only when everything in it is in the disk.
struct HeldDisk {
  std::string name, path;
  DiskFormat format = DiskFormat::raw;  // as the item says
  std::uint64_t size_bytes = 0;
  std::string overlay_file, overlay_node, job;
};

enum class HoldPhase : std::uint8_t {
  taking,     // announced; whether QEMU did it is seen by its bitmaps
  open,       // the disks' files do not change
  broken,     // they may have changed: the reason is in `why_broken`
  releasing,  // overlays are being committed back: they change
};

struct HeldSnapshot {
  std::string id, token;  // no token: no tracker
  HoldPhase phase = HoldPhase::taking;
  bool off = false;  // the VM was off: no overlays
  std::string why_broken;
  std::vector<HeldDisk> disks;
};

struct QemuRecord {
  std::optional<HeldSnapshot> snapshot;
  std::uint64_t counter = 0;         // names of overlays and jobs are never used twice
  std::string start_token;           // bitmaps since the VM's start
  std::uint64_t start_writes = 0;    // acknowledged by this QEMU before the guest's first instruction
  std::int64_t started_unix_ms = 0;  // the guest's first instruction; 0: never
  std::string qmp;                   // of an attached VM: its socket, for the watch
  bool powered_off = false;          // this guest is stopped for good, which makes it off; announced before the stop
  bool paused_by_us = false;         // announced before the pause of a pivot
  bool nbd_started = false;          // announced before QEMU's NBD server is started
};

// Errors: ControlErrc::driver_failed when a file is damaged; that of the file access.
Result<QemuRecord> load_qemu_record(const std::filesystem::path& directory);  // a new one when there is no file
Result<void> save_qemu_record(const std::filesystem::path& directory, const QemuRecord& record);
Result<std::optional<QemuDefinition>> load_qemu_definition(const std::filesystem::path& directory);
Result<void> save_qemu_definition(const std::filesystem::path& directory, const QemuDefinition& definition);

// Makes names in `directory` durable; a file that was made or deleted there survives a power loss.
Result<void> sync_directory(const std::filesystem::path& directory);
// Deletes a file durably; no error when it is not there.
Result<void> remove_durably(const std::filesystem::path& file);

}  // namespace backhaul
