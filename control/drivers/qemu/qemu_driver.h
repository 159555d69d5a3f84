// The `qemu` VM driver: real virtual machines over QMP (docs/qemu_driver.md). It starts QEMU itself, one directory for
// each VM below its state directory, and finds those VMs again after a restart of the daemon; or it attaches to a QEMU
// that somebody else runs (the item's setting `qmp`). All files are this machine's. Thread-safe.
//
// Split by concern: qemu_record (what is remembered, durable), qemu_process (command line, the process), qemu_blocks
// (what QEMU says of its disks), qemu_hold (snapshots: taking, committing back, releasing), qemu_bitmap (dirty ranges),
// qemu_session (one call's view of one VM).
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "control/drivers/vm_driver.h"

namespace backhaul {

// What may be chosen, in the configuration and in an item's settings alike.
inline constexpr std::string_view kQemuMachines = "q35, pc", kQemuDiskBuses = "virtio, scsi, ide",
                                  kQemuNicModels = "virtio-net-pci, e1000, e1000e, rtl8139";

struct QemuDriverOptions {
  std::string state;                            // directory; made when it is not there
  std::vector<std::string> disks;               // where disks may lie; relative paths are below the first
  std::vector<std::string> attach;              // where sockets of a setting `qmp` may lie; none: no attaching
  std::map<std::string, std::string> networks;  // network's name -> QEMU's -netdev argument, without its id
  std::string binary = "qemu-system-x86_64", image_tool = "qemu-img";
  std::string accel = "tcg";  // kvm only when told: a /dev/kvm that exists need not work
  std::string machine;        // q35, pc; empty: by the VM's generation
  std::string disk_bus = "virtio", nic_model = "virtio-net-pci";
  std::string firmware_code = "/usr/share/OVMF/OVMF_CODE_4M.fd", firmware_vars = "/usr/share/OVMF/OVMF_VARS_4M.fd";
  std::vector<std::string> arguments;       // appended to QEMU's command line
  std::uint64_t reserve_bytes = 256 << 20;  // a snapshot is given up when its file system has less free
  std::uint32_t timeout_s = 120;            // of one answer, of the start, and of a commit that makes no progress
};

std::unique_ptr<VmDriver> make_qemu_driver(QemuDriverOptions options);

}  // namespace backhaul
