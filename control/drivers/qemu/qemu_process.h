// The QEMU process of one VM that the driver starts itself: its command line, its start, whether it lives, its end. It
// is no child of the daemon, and lives on when the daemon ends. All of its files are in the VM's directory.
//
// Identity: QEMU holds a lock on its pid file as long as it lives, so that a pid that was given to another program, or
// a file that a crash of the machine left behind, is never taken for it.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "control/drivers/qemu/qemu_driver.h"
#include "control/drivers/qemu/qemu_record.h"

namespace backhaul {

struct QemuFiles {
  std::filesystem::path directory;

  std::string monitor() const { return directory / "qmp.sock"; }
  std::string nbd() const { return directory / "nbd.sock"; }
  std::string pid() const { return directory / "qemu.pid"; }
  std::string console() const { return directory / "console.log"; }
  std::string firmware_vars() const { return directory / "vars.fd"; }
};

// Block nodes of a VM's disks, by their number.
std::string qemu_disk_node(std::size_t number);

// Everything that QEMU is started with. Errors: BaseErrc::invalid_argument for a network that is not configured, a MAC
// address that is none, a disk that is missing.
Result<std::vector<std::string>> qemu_command(const QemuDriverOptions& options, const std::string& name,
                                              const QemuFiles& files, const QemuDefinition& definition);
// Starts it with its guest stopped before the first instruction; comes back when its monitor listens. The console's
// last log is kept as console.log.1. Error: driver_failed with what QEMU said.
Result<void> launch_qemu(const QemuDriverOptions& options, const std::string& name, const QemuFiles& files,
                         const QemuDefinition& definition);

bool qemu_is_alive(const QemuFiles& files);
// Waits until it is gone; after `patience` it is killed. No error when it was not there.
Result<void> wait_for_end(const QemuFiles& files, std::chrono::milliseconds patience);

// Whether some QEMU (ours or not) has the disk open, by its locks on the file.
bool disk_is_in_use(const std::string& path);
// The size of the disk inside the file.
Result<std::uint64_t> virtual_size(const DiskPlace& disk);

}  // namespace backhaul
