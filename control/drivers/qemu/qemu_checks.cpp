#include "control/drivers/qemu/qemu_checks.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "control/model/control_error.h"
#include "control/model/fields.h"

namespace backhaul {
namespace {

constexpr std::uint64_t kMaxConsole = std::uint64_t{1} << 30;  // of the log that is searched

bool can_run(const std::string& program) {
  if (program.find('/') != std::string::npos) return ::access(program.c_str(), X_OK) == 0;
  const char* path = std::getenv("PATH");
  std::istringstream directories(path == nullptr ? "/usr/bin:/bin" : path);
  for (std::string directory; std::getline(directories, directory, ':');)
    if (::access(fmt::format("{}/{}", directory, program).c_str(), X_OK) == 0) return true;
  return false;
}

std::uint64_t available_mib() {
  std::ifstream info("/proc/meminfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("MemAvailable:")) return std::strtoull(line.c_str() + 13, nullptr, 10) / 1024;
  return 0;
}

class Checks {
 public:
  void add(std::string name, bool fine, CheckLevel otherwise, std::string_view code, std::string cause,
           std::string_view fix) {
    if (fine)
      list_.push_back({std::move(name), CheckLevel::ok, {}, {}, {}});
    else
      list_.push_back({std::move(name), otherwise, std::string(code), std::move(cause), std::string(fix)});
  }
  std::vector<Check> take() { return std::move(list_); }

 private:
  std::vector<Check> list_;
};

Result<bool> console_has(const QemuFiles& files, const std::string& wanted) {
  std::ifstream log(files.console(), std::ios::binary);
  if (!log) return Error::from_errno(errno, "read " + files.console());
  std::string window;
  char chunk[65536];
  for (std::uint64_t seen = 0; seen < kMaxConsole && (log.read(chunk, sizeof chunk) || log.gcount() > 0);) {
    seen += static_cast<std::uint64_t>(log.gcount());
    window.append(chunk, static_cast<std::size_t>(log.gcount()));
    if (window.find(wanted) != std::string::npos) return true;
    if (window.size() > wanted.size()) window.erase(0, window.size() - wanted.size());
  }
  return false;
}

}  // namespace

Result<std::string> qemu_choice(const boost::json::object& settings, std::string_view key, const std::string& otherwise,
                                std::string_view words) {
  if (!settings.contains(key)) return otherwise;
  std::string chosen;
  Mistakes mistakes(From::peer, "settings");  // the other settings are not this reader's
  BH_RETURN_IF_ERROR(read_fields(
      settings, [&](FieldReader& r) { r(key, chosen, Need::required, OneOf{words}); }, mistakes,
      BaseErrc::invalid_argument));
  return chosen;
}

Result<std::string> qemu_machine(const QemuDriverOptions& options, const boost::json::object& settings,
                                 const VmDescription& vm) {
  // A generation 1 VM is a PC of old: BIOS and IDE.
  const std::string by_generation = vm.generation == 1 ? "pc" : "q35";
  return qemu_choice(settings, "machine", options.machine.empty() ? by_generation : options.machine, kQemuMachines);
}

Result<void> check_description(const QemuDriverOptions& options, const VmDescription& vm) {
  const auto bad = [](std::string cause) { return make_error(BaseErrc::invalid_argument, std::move(cause)); };
  if (vm.firmware != "bios" && vm.firmware != "uefi") return bad(fmt::format("firmware '{}'", vm.firmware));
  if (vm.secure_boot) return bad("secure boot is not supported by the qemu driver");
  if (vm.cpus > 256 || vm.memory_mib > (1 << 24)) return bad(fmt::format("{} CPUs, {} MiB", vm.cpus, vm.memory_mib));
  for (const auto& nic : vm.nics)
    if (!options.networks.contains(nic.network))
      return bad(fmt::format("network '{}' is not configured for this driver", nic.network));
  return {};
}

Result<std::vector<Check>> qemu_preflight(const QemuDriverOptions& options, const VmRef& vm,
                                          const VmDescription& description) {
  Checks checks;
  for (const auto& program : {options.binary, options.image_tool})
    checks.add("program:" + program, can_run(program), CheckLevel::failed, "qemu.no_program",
               program + " cannot be run", "Install QEMU, or correct the driver's configuration.");
  for (const auto& nic : description.nics)
    checks.add("network:" + nic.network, options.networks.contains(nic.network), CheckLevel::failed, "qemu.no_network",
               fmt::format("network '{}' is not configured for this driver", nic.network),
               "Add the network to the driver's `networks`.");
  if (description.firmware == "uefi") {
    const bool there =
        ::access(options.firmware_code.c_str(), R_OK) == 0 && ::access(options.firmware_vars.c_str(), R_OK) == 0;
    checks.add("firmware", there, CheckLevel::failed, "qemu.no_firmware",
               fmt::format("{} or {} cannot be read", options.firmware_code, options.firmware_vars),
               "Install OVMF, or correct `firmware_code` and `firmware_vars`.");
  }
  checks.add("secure-boot", !description.secure_boot, CheckLevel::failed, "qemu.no_secure_boot",
             "this driver runs no VM with secure boot", "Turn secure boot off in the item's description.");
  const auto free_mib = available_mib();
  checks.add("memory", free_mib >= description.memory_mib, CheckLevel::failed, "qemu.no_memory",
             fmt::format("the VM needs {} MiB, {} are available", description.memory_mib, free_mib),
             "Free memory, or lower the VM's.");
  for (const auto& disk : vm.disks) {
    const auto path = qemu_disk_path(options, disk.path);
    checks.add("disk:" + disk.name, path.has_value(), CheckLevel::failed, "qemu.no_disk",
               path ? std::string() : path.error().cause(), "Correct the item's path, or the driver's `disks`.");
  }
  std::error_code problem;
  auto nearest = std::filesystem::absolute(options.state);
  while (!std::filesystem::exists(nearest, problem) && nearest.has_relative_path()) nearest = nearest.parent_path();
  const auto space = std::filesystem::space(nearest, problem);
  checks.add("overlay-space", !problem && space.available >= options.reserve_bytes, CheckLevel::warning,
             "qemu.no_overlay_space", fmt::format("{} has {} bytes free", nearest.string(), space.available),
             "Free space: while a snapshot is read, the guest's writes go there.");
  return checks.take();
}

Result<Health> qemu_health(QemuSession& s) {
  BH_TRY(const auto power, qemu_power(s));
  if (power != PowerState::running) return Health{false, fmt::format("the VM is {}", to_string(power))};
  BH_TRY(const auto status, query_status(*s.qmp));
  if (status != "running") return Health{false, "QEMU says " + status};
  const auto* rule = s.settings.if_contains("health");
  if (rule == nullptr) return Health{true, "QEMU says running"};
  const auto* console = rule->is_object() ? rule->get_object().if_contains("console") : nullptr;
  if (console == nullptr || !console->is_string() || console->get_string().empty() || s.attached)
    return make_error(BaseErrc::invalid_argument,
                      "setting 'health' must be {console = \"TEXT\"}, for a VM of the driver's own");
  const std::string wanted(console->get_string());
  BH_TRY(const bool seen, console_has(s.files, wanted));
  return Health{seen, fmt::format("'{}' {} on the console", wanted, seen ? "was seen" : "was not seen")};
}

}  // namespace backhaul
