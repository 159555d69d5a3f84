#include "control/drivers/qemu/qemu_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX, not the C++ header
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <fstream>
#include <thread>

#include "base/unique_fd.h"
#include "control/drivers/child_process.h"
#include "control/drivers/qemu/qemu_blocks.h"
#include "control/model/control_error.h"
#include "dataplane/disk/disk.h"
#include "dataplane/linux/linux_storage.h"

namespace backhaul {
namespace {

namespace json = boost::json;

constexpr std::uint64_t kDefaultMemory_mib = 1024;
// Where QEMU's image locks lie in a file (block/file-posix.c): one byte a permission, held and denied.
constexpr off_t kFirstLockByte = 100, kLockBytes = 200;

bool is_locked(const std::string& path, off_t start, off_t length) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return false;
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = start;
  lock.l_len = length;
  return ::fcntl(fd.get(), F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

// In option texts of the old kind a comma ends a value; two stand for one.
std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) result += c == ',' ? ",," : std::string(1, c);
  return result;
}

bool is_mac(std::string_view text) {
  if (text.size() != 17) return false;
  for (std::size_t i = 0; i < text.size(); ++i)
    if (i % 3 == 2 ? text[i] != ':' : std::isxdigit(static_cast<unsigned char>(text[i])) == 0) return false;
  return true;
}

// O_DIRECT keeps what the guest wrote out of the page cache; a file system may lack it.
bool takes_direct_io(const std::string& path) {
  return static_cast<bool>(UniqueFd(::open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC)));
}

Result<void> add_disks(std::vector<std::string>& argv, const QemuDefinition& definition) {
  if (definition.disk_bus == "scsi") argv.insert(argv.end(), {"-device", "virtio-scsi-pci,id=bhscsi"});
  const std::string device = definition.disk_bus == "scsi"  ? "scsi-hd"
                             : definition.disk_bus == "ide" ? "ide-hd"
                                                            : "virtio-blk-pci";
  for (std::size_t i = 0; i < definition.disks.size(); ++i) {
    const auto& disk = definition.disks[i];
    struct stat info {};
    if (::stat(disk.path.c_str(), &info) != 0)
      return make_error(BaseErrc::invalid_argument, fmt::format("disk {}: {} is not there", disk.name, disk.path));
    const json::object cache{{"direct", takes_direct_io(disk.path)}, {"no-flush", false}};
    const auto file_node = fmt::format("bhfile{}", i);
    const json::object file{{"driver", S_ISBLK(info.st_mode) ? "host_device" : "file"},
                            {"node-name", file_node},
                            {"filename", disk.path},
                            {"discard", "unmap"},
                            {"cache", cache}};
    const json::object format{{"driver", qemu_format(disk.format)},
                              {"node-name", qemu_disk_node(i)},
                              {"file", file_node},
                              {"discard", "unmap"},
                              {"cache", cache}};
    // werror=stop: a write that fails (a full overlay, a broken device) pauses the guest; it never sees the error, and
    // the write is tried again when the guest goes on.
    argv.insert(argv.end(), {"-blockdev", json::serialize(file), "-blockdev", json::serialize(format), "-device",
                             fmt::format("{},drive={},id=bhd{},bootindex={},werror=stop,rerror=report", device,
                                         qemu_disk_node(i), i, i + 1)});
  }
  return {};
}

Result<void> add_nics(std::vector<std::string>& argv, const QemuDriverOptions& options,
                      const QemuDefinition& definition) {
  for (std::size_t i = 0; i < definition.vm.nics.size(); ++i) {
    const auto& nic = definition.vm.nics[i];
    const auto network = options.networks.find(nic.network);
    if (network == options.networks.end())
      return make_error(BaseErrc::invalid_argument,
                        fmt::format("network '{}' is not configured for this driver", nic.network));
    if (!nic.mac.empty() && !is_mac(nic.mac))
      return make_error(BaseErrc::invalid_argument, fmt::format("'{}' is no MAC address", nic.mac));
    argv.insert(argv.end(), {"-netdev", fmt::format("{},id=bhn{}", network->second, i), "-device",
                             fmt::format("{},netdev=bhn{}{}", definition.nic_model, i,
                                         nic.mac.empty() ? std::string() : ",mac=" + nic.mac)});
  }
  return {};
}

Result<void> prepare_firmware(const QemuDriverOptions& options, const QemuFiles& files,
                              const QemuDefinition& definition) {
  if (definition.vm.firmware != "uefi") return {};
  std::error_code failed;
  if (std::filesystem::exists(files.firmware_vars(), failed)) return {};
  std::filesystem::copy_file(options.firmware_vars, files.firmware_vars(), failed);
  if (failed)
    return make_error(ControlErrc::driver_failed, fmt::format("{}: {}", options.firmware_vars, failed.message()));
  return {};
}

}  // namespace

std::string qemu_disk_node(std::size_t number) { return fmt::format("bhdisk{}", number); }

Result<std::vector<std::string>> qemu_command(const QemuDriverOptions& options, const std::string& name,
                                              const QemuFiles& files, const QemuDefinition& definition) {
  const auto& vm = definition.vm;
  const bool uefi = vm.firmware == "uefi";
  std::vector<std::string> argv{options.binary, "-name", escaped(name), "-accel", options.accel};
  argv.insert(argv.end(), {"-M", definition.machine + (uefi ? ",pflash0=bhcode,pflash1=bhvars" : "")});
  argv.insert(argv.end(),
              {"-m", std::to_string(vm.memory_mib == 0 ? kDefaultMemory_mib : vm.memory_mib), "-smp",
               std::to_string(std::max(1u, vm.cpus)), "-nodefaults", "-no-user-config", "-display", "none"});
  // The guest waits for its bitmaps; after its shutdown the process stays until they have been read.
  argv.insert(argv.end(), {"-S", "-no-shutdown", "-daemonize", "-pidfile", files.pid()});
  argv.insert(argv.end(),
              {"-chardev", fmt::format("socket,id=bhqmp,path={},server=on,wait=off", escaped(files.monitor())), "-mon",
               "chardev=bhqmp,mode=control"});
  argv.insert(argv.end(),
              {"-chardev", "file,id=bhconsole,path=" + escaped(files.console()), "-serial", "chardev:bhconsole"});
  if (uefi) {
    const auto flash = [](const char* node, const std::string& file, bool read_only) {
      return json::serialize(
          json::object{{"driver", "file"}, {"node-name", node}, {"filename", file}, {"read-only", read_only}});
    };
    argv.insert(argv.end(), {"-blockdev", flash("bhcode", options.firmware_code, true), "-blockdev",
                             flash("bhvars", files.firmware_vars(), false)});
  }
  BH_RETURN_IF_ERROR(add_disks(argv, definition));
  BH_RETURN_IF_ERROR(add_nics(argv, options, definition));
  argv.insert(argv.end(), options.arguments.begin(), options.arguments.end());
  return argv;
}

Result<void> launch_qemu(const QemuDriverOptions& options, const std::string& name, const QemuFiles& files,
                         const QemuDefinition& definition) {
  BH_RETURN_IF_ERROR(prepare_firmware(options, files, definition));
  BH_TRY(const auto argv, qemu_command(options, name, files, definition));
  std::error_code ignored;
  std::filesystem::rename(files.console(), files.console() + ".1", ignored);
  BH_TRY(const auto outcome, run_child(argv, "", std::chrono::seconds(options.timeout_s)));
  if (outcome.exit_status != 0)
    return make_error(ControlErrc::driver_failed,
                      fmt::format("{} ended with status {}: {}", options.binary, outcome.exit_status, outcome.errors));
  return {};
}

bool qemu_is_alive(const QemuFiles& files) { return is_locked(files.pid(), 0, 0); }

Result<void> wait_for_end(const QemuFiles& files, std::chrono::milliseconds patience) {
  constexpr std::chrono::milliseconds kLook{10}, kAfterKill{10'000};
  auto deadline = std::chrono::steady_clock::now() + patience;
  bool killed = false;
  while (qemu_is_alive(files)) {
    if (std::chrono::steady_clock::now() >= deadline) {
      if (killed) return make_error(ControlErrc::driver_timeout, "QEMU does not end: see " + files.pid());
      int pid = 0;
      std::ifstream(files.pid()) >> pid;
      // The lock is looked at again once the process is held by a descriptor: then the pid is still its own.
      UniqueFd process(pid > 1 ? static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)) : -1);
      if (process && qemu_is_alive(files)) ::syscall(SYS_pidfd_send_signal, process.get(), SIGKILL, nullptr, 0);
      killed = true;
      deadline = std::chrono::steady_clock::now() + kAfterKill;
    }
    std::this_thread::sleep_for(kLook);
  }
  return {};
}

bool disk_is_in_use(const std::string& path) { return is_locked(path, kFirstLockByte, kLockBytes); }

Result<std::uint64_t> virtual_size(const DiskPlace& disk) {
  BH_TRY(auto file, open_linux_file(disk.path, OpenMode::read));
  if (disk.format == DiskFormat::raw) return file->size();
  BH_TRY(const auto opened, open_disk(std::move(file), OpenMode::read, system_random()));
  return opened->size();
}

}  // namespace backhaul
