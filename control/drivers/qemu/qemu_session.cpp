#include "control/drivers/qemu/qemu_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <thread>

#include "control/model/control_error.h"
#include "control/model/model.h"
#include "dataplane/disk/disk.h"

namespace backhaul {
namespace {

constexpr std::chrono::seconds kQuitPatience{60};  // it flushes; a machine that is busy takes long over that
constexpr std::chrono::milliseconds kListenAgain{10};

std::chrono::milliseconds answer_time(const QemuDriverOptions& options) {
  return std::chrono::seconds(options.timeout_s);
}

bool lies_below(const std::filesystem::path& path, const std::vector<std::string>& directories) {
  return std::any_of(directories.begin(), directories.end(), [&](const auto& directory) {
    std::error_code failed;
    const auto root = std::filesystem::weakly_canonical(std::filesystem::absolute(directory), failed);
    if (failed) return false;
    const auto at = std::mismatch(root.begin(), root.end(), path.begin(), path.end());
    return at.first == root.end() && at.second != path.end();
  });
}

bool uses_disks(const QemuSession& session) {
  return std::any_of(session.disks.begin(), session.disks.end(),
                     [](const auto& disk) { return disk_is_in_use(disk.path); });
}

// The socket of a QEMU that somebody else runs; empty when the item does not name one.
Result<std::string> attached_socket(const QemuDriverOptions& options, const VmRef& vm) {
  const auto* setting = vm.settings.if_contains("qmp");
  if (setting == nullptr) return std::string();
  if (!setting->is_string()) return make_error(BaseErrc::invalid_argument, "setting 'qmp' must be a socket's path");
  std::error_code failed;
  const auto path =
      std::filesystem::weakly_canonical(std::filesystem::absolute(std::string_view(setting->get_string())), failed);
  if (failed || !lies_below(path, options.attach))
    return make_error(BaseErrc::invalid_argument,
                      fmt::format("setting 'qmp': {} is in no directory of the driver's `attach`", path.string()));
  return path.string();
}

}  // namespace

Result<void> QemuSession::save() {
  std::error_code failed;
  std::filesystem::create_directories(files.directory, failed);
  if (failed) return make_error(ControlErrc::driver_failed, files.directory.string() + ": " + failed.message());
  record.qmp = attached ? socket : std::string();
  return save_qemu_record(files.directory, record);
}

Result<std::string> qemu_disk_path(const QemuDriverOptions& options, const std::string& path) {
  if (options.disks.empty())
    return make_error(BaseErrc::invalid_argument, "the driver's configuration names no directory of disks (`disks`)");
  std::error_code failed;
  const auto full = std::filesystem::absolute(options.disks.front(), failed) / path;  // an absolute path stands alone
  const auto real = std::filesystem::weakly_canonical(full, failed);
  if (path.empty() || failed || !lies_below(real, options.disks))
    return make_error(BaseErrc::invalid_argument,
                      fmt::format("disk '{}' lies in no directory of the driver's `disks`", path));
  return real.string();
}

Result<QemuSession> open_qemu_session(const QemuDriverOptions& options, const VmRef& vm) {
  if (!is_valid_id(vm.vm))
    return make_error(BaseErrc::invalid_argument, fmt::format("'{}' is no name for a VM", vm.vm.substr(0, 64)));
  QemuSession session;
  session.options = &options;
  session.vm = vm.vm;
  session.files.directory = std::filesystem::absolute(options.state) / vm.vm;
  session.settings = vm.settings;
  BH_TRY(session.socket, attached_socket(options, vm));
  session.attached = !session.socket.empty();
  if (!session.attached) session.socket = session.files.monitor();
  for (auto disk : vm.disks) {
    BH_TRY(disk.path, qemu_disk_path(options, disk.path));
    session.disks.push_back(std::move(disk));
  }
  BH_TRY(session.record, load_qemu_record(session.files.directory));
  BH_TRY(session.definition, load_qemu_definition(session.files.directory));
  if (session.disks.empty() && session.definition) session.disks = session.definition->disks;
  BH_RETURN_IF_ERROR(connect_qemu(session));
  return session;
}

Result<void> connect_qemu(QemuSession& session) {
  session.qmp.reset();
  const auto deadline = std::chrono::steady_clock::now() + kQuitPatience;
  while (session.attached || qemu_is_alive(session.files)) {
    auto connected = QmpClient::connect(session.socket, answer_time(*session.options));
    if (connected) {
      session.qmp = std::move(*connected);
      return {};
    }
    const bool nobody = connected.error().is(ControlErrc::driver_failed);
    // Whether an attached VM is off is seen by its disks: QEMU locks the images that it has open.
    if (session.attached && nobody && !session.disks.empty() && !uses_disks(session)) return {};
    // One of ours where nobody listens has just been started, or told to quit, by a call that was killed.
    if (session.attached || !nobody || std::chrono::steady_clock::now() >= deadline)
      return std::move(connected).error();
    std::this_thread::sleep_for(kListenAgain);
  }
  return {};
}

bool is_off_status(std::string_view status, const QemuRecord& record) noexcept {
  return status == "shutdown" || status == "prelaunch" || (status == "paused" && record.powered_off);
}

Result<PowerState> qemu_power(QemuSession& session) {
  if (!session.qmp) return session.attached || session.definition ? PowerState::off : PowerState::absent;
  BH_TRY(const auto status, query_status(*session.qmp));
  if (is_off_status(status, session.record)) return PowerState::off;
  if (status == "postmigrate" || status == "finish-migrate" || status == "inmigrate") return PowerState::unknown;
  return PowerState::running;  // a paused guest is not off
}

Result<void> quit_qemu(QemuSession& session) {
  if (session.qmp) {
    const auto asked = session.qmp->execute("quit");
    if (!asked && !session.qmp->broken()) return asked.error();
    session.qmp.reset();
  }
  if (!session.attached) {
    BH_RETURN_IF_ERROR(wait_for_end(session.files, kQuitPatience));
  } else {
    const auto deadline = std::chrono::steady_clock::now() + kQuitPatience;
    while (uses_disks(session)) {
      if (std::chrono::steady_clock::now() >= deadline)
        return make_error(ControlErrc::driver_timeout, "QEMU was told to quit and still has the disks open");
      std::this_thread::sleep_for(kListenAgain);
    }
  }
  if (!session.record.powered_off && !session.record.paused_by_us && !session.record.nbd_started) return {};
  session.record.powered_off = session.record.paused_by_us = session.record.nbd_started = false;
  return session.save();
}

}  // namespace backhaul
