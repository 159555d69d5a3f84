#include "control/drivers/qemu/qemu_power.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/json.hpp>
#include <thread>

#include "base/world.h"
#include "control/drivers/qemu/qemu_checks.h"
#include "control/drivers/qemu/qemu_hold.h"
#include "control/model/control_error.h"

namespace backhaul {
namespace {

namespace json = boost::json;
using SteadyClock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLook{100};
constexpr std::chrono::milliseconds kLookForWrite{20};
constexpr std::chrono::seconds kPressAgain{10};  // a guest that boots does not see the first press

bool same_disks(const std::vector<DiskPlace>& one, const std::vector<DiskPlace>& other) {
  return std::equal(one.begin(), one.end(), other.begin(), other.end(), [](const auto& a, const auto& b) {
    return a.name == b.name && a.path == b.path && a.format == b.format;
  });
}

// Nothing is lost by a tracker that cannot be had: digests find the changes.
std::string add_start_bitmaps(QemuSession& s) {
  auto token = new_qemu_token("start");
  const auto add = [&]() -> Result<void> {
    BH_TRY(const auto view, look_at_qemu(*s.qmp));
    json::array actions;
    for (const auto& disk : s.disks) {
      const auto* node = view.disk(disk.path, disk.format);
      if (node == nullptr) return driver_failed("QEMU does not know " + disk.path);
      actions.push_back(
          action("block-dirty-bitmap-add",
                 {{"node", node->name}, {"name", bitmap_name(token)}, {"granularity", kQemuGranularity}}));
    }
    return run_transaction(*s.qmp, std::move(actions));
  };
  if (auto added = add(); !added) {
    spdlog::warn("VM {}: writes are not tracked from its start: {}", s.vm, added.error().to_string());
    return {};
  }
  return token;
}

Result<StartOutcome> let_run(QemuSession& s) {
  s.record.start_token = add_start_bitmaps(s);
  s.record.powered_off = false;
  BH_TRY(const auto writes, query_writes(*s.qmp));
  s.record.start_writes = writes.acknowledged;
  s.record.started_unix_ms = system_clock().unix_time_ms();
  BH_RETURN_IF_ERROR(s.save());
  BH_RETURN_IF_ERROR(s.qmp->execute("cont"));
  return StartOutcome{s.record.start_token};
}

// The token of a VM that runs already, as long as it still holds.
Result<StartOutcome> running_outcome(QemuSession& s) {
  if (s.record.start_token.empty()) return StartOutcome{};
  BH_TRY(const auto view, look_at_qemu(*s.qmp));
  const bool holds = std::all_of(s.disks.begin(), s.disks.end(), [&](const auto& disk) {
    const auto* node = view.disk(disk.path, disk.format);
    return node != nullptr && node->bitmap(s.record.start_token) != nullptr;
  });
  return StartOutcome{holds ? s.record.start_token : std::string()};
}

// A snapshot that is still held when the VM starts is one no more: its disks change.
Result<void> end_hold(QemuSession& s) {
  if (!s.record.snapshot) return {};
  return break_hold(s, "the VM was started");
}

Result<StartOutcome> start_attached(QemuSession& s) {
  if (!s.qmp)
    return driver_failed("this VM's QEMU is run by somebody else and is not there; start it by its own means");
  BH_TRY(const auto status, query_status(*s.qmp));
  if (!is_off_status(status, s.record)) return running_outcome(s);
  BH_RETURN_IF_ERROR(end_hold(s));
  if (status == "shutdown") BH_RETURN_IF_ERROR(s.qmp->execute("system_reset"));
  return let_run(s);
}

// Whether the guest is down. Nothing: it is not.
Result<bool> is_down(QemuSession& s) {
  if (!s.qmp->broken()) {
    const auto status = query_status(*s.qmp);
    if (status) return is_off_status(*status, s.record);
    if (!s.qmp->broken()) return status.error();
  }
  // QEMU ended with its guest, or somebody ended it: either way no one writes any more. Else the monitor is gone and
  // the guest may run.
  BH_RETURN_IF_ERROR(connect_qemu(s));
  return !s.qmp;
}

Result<bool> wait_until_down(QemuSession& s, std::chrono::seconds timeout) {
  const auto deadline = SteadyClock::now() + timeout;
  auto press_at = SteadyClock::now();
  for (;;) {
    BH_TRY(const bool down, is_down(s));
    if (down) return true;
    const auto now = SteadyClock::now();
    if (now >= deadline) return false;
    if (now >= press_at) {
      if (auto pressed = s.qmp->execute("system_powerdown"); !pressed && !s.qmp->broken()) return pressed.error();
      press_at = now + kPressAgain;
    }
    // Any event is a reason to look; without one we look anyway.
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - now);
    if (!s.qmp->broken()) static_cast<void>(s.qmp->next_event(std::min<std::chrono::milliseconds>(kLook, left)));
  }
}

// A QEMU that has ended took with it what it knew of the guest's writes. A guest that an interrupted call stopped was
// forced, whoever asks.
ShutdownOutcome down_outcome(QemuSession& s) {
  ShutdownOutcome outcome{s.record.powered_off, std::nullopt};
  if (!s.qmp || s.qmp->broken()) return outcome;
  if (const auto status = query_status(*s.qmp)) outcome.forced = *status == "paused";
  if (const auto writes = query_writes(*s.qmp); writes && writes->acknowledged > s.record.start_writes)
    outcome.last_write_age_ms = writes->idle_ms;
  return outcome;
}

}  // namespace

Result<void> create_qemu(QemuSession& s, const VmDescription& description) {
  if (s.attached)
    return driver_failed("this VM's QEMU is run by somebody else; a VM is created without the setting 'qmp'");
  if (s.disks.empty()) return driver_failed("the VM has no disks");
  QemuDefinition wanted;
  wanted.vm = description;
  wanted.disks = s.disks;
  BH_TRY(wanted.machine, qemu_machine(*s.options, s.settings, description));
  BH_TRY(wanted.disk_bus, qemu_choice(s.settings, "disk_bus", s.options->disk_bus, kQemuDiskBuses));
  BH_TRY(wanted.nic_model, qemu_choice(s.settings, "nic_model", s.options->nic_model, kQemuNicModels));
  BH_RETURN_IF_ERROR(check_description(*s.options, description));
  BH_TRY(const auto power, qemu_power(s));
  if (power != PowerState::absent && power != PowerState::off) {
    if (s.definition && same_disks(s.definition->disks, wanted.disks)) return {};
    return driver_failed("the VM runs with other disks; stop it first");
  }
  if (has_overlays(s.record)) BH_RETURN_IF_ERROR(break_hold(s, "the VM was made anew"));
  if (s.qmp) BH_RETURN_IF_ERROR(quit_qemu(s));
  BH_RETURN_IF_ERROR(s.save());  // makes the directory
  return save_qemu_definition(s.files.directory, wanted);
}

Result<StartOutcome> start_qemu(QemuSession& s) {
  if (s.attached) return start_attached(s);
  if (!s.definition)
    return make_error(ControlErrc::driver_failed, fmt::format("there is no VM {}: create it first", s.vm));
  if (s.qmp) {
    BH_TRY(const auto status, query_status(*s.qmp));
    if (!is_off_status(status, s.record)) return running_outcome(s);
    // One that waits was left by a crash in a start; one that has ended still has the old disks open.
    BH_RETURN_IF_ERROR(end_hold(s));
    BH_RETURN_IF_ERROR(quit_qemu(s));
  }
  BH_RETURN_IF_ERROR(end_hold(s));
  if (!same_disks(s.definition->disks, s.disks)) {
    s.definition->disks = s.disks;
    BH_RETURN_IF_ERROR(save_qemu_definition(s.files.directory, *s.definition));
  }
  s.record.powered_off = s.record.paused_by_us = s.record.nbd_started = false;
  s.record.start_token.clear();
  BH_RETURN_IF_ERROR(s.save());
  BH_RETURN_IF_ERROR(launch_qemu(*s.options, s.vm, s.files, *s.definition));
  BH_RETURN_IF_ERROR(connect_qemu(s));
  if (!s.qmp) return driver_failed("QEMU ended right after its start");
  return let_run(s);
}

Result<FirstWrite> wait_for_first_write(QemuSession& s, std::chrono::milliseconds wait, SeenUnwritten& unwritten) {
  using std::chrono::duration_cast, std::chrono::milliseconds;
  if (!s.qmp) return FirstWrite{};
  const auto deadline = SteadyClock::now() + wait;
  for (;;) {
    const auto asked = SteadyClock::now();
    BH_TRY(const auto writes, query_writes(*s.qmp));
    if (writes.acknowledged > s.record.start_writes) {
      const auto since = unwritten ? duration_cast<milliseconds>(SteadyClock::now() - *unwritten).count()
                                   : system_clock().unix_time_ms() - s.record.started_unix_ms;
      return FirstWrite{FirstWrite::seen, 0, static_cast<std::uint64_t>(std::max<std::int64_t>(since, 0))};
    }
    unwritten = asked;
    BH_TRY(const auto status, query_status(*s.qmp));
    if (is_off_status(status, s.record)) return FirstWrite{};  // it ended and never wrote
    if (SteadyClock::now() >= deadline) return FirstWrite{FirstWrite::not_yet};
    std::this_thread::sleep_for(kLookForWrite);
  }
}

Result<ShutdownOutcome> shut_down_qemu(QemuSession& s, const ShutdownRequest& request) {
  if (!s.qmp) {
    BH_TRY(const auto power, qemu_power(s));
    if (power == PowerState::absent) return driver_failed(fmt::format("there is no VM {}", s.vm));
    return down_outcome(s);
  }
  BH_TRY(const auto status, query_status(*s.qmp));
  if (s.record.powered_off && !is_off_status(status, s.record)) {  // announced, and it did not come to that
    s.record.powered_off = false;
    BH_RETURN_IF_ERROR(s.save());
  }
  // A guest that its overlay has paused cannot hear the button.
  if (status == "io-error" && has_overlays(s.record))
    BH_RETURN_IF_ERROR(break_hold(s, "the guest was paused by a full overlay"));
  BH_TRY(const bool down, wait_until_down(s, std::chrono::seconds(request.timeout_s)));
  if (down) return down_outcome(s);
  if (!request.allow_force)
    return make_error(ControlErrc::shutdown_refused,
                      fmt::format("VM {}: the guest still runs after {} s", s.vm, request.timeout_s));
  s.record.powered_off = true;
  BH_RETURN_IF_ERROR(s.save());
  if (s.attached) {
    BH_RETURN_IF_ERROR(quit_qemu(s));
    return ShutdownOutcome{true, std::nullopt};
  }
  // Stopped for good and flushed; the process stays, because its bitmaps know the last changes.
  BH_RETURN_IF_ERROR(s.qmp->execute("stop"));
  return down_outcome(s);
}

Result<void> remove_qemu(QemuSession& s, bool delete_disks) {
  auto disks = s.disks;
  if (s.qmp) BH_RETURN_IF_ERROR(quit_qemu(s));
  if (!delete_disks && has_overlays(s.record))
    BH_RETURN_IF_ERROR(break_hold(s, "the VM is taken away"));  // their writes stay
  std::error_code problem;
  std::filesystem::remove_all(s.files.directory, problem);
  if (problem) return driver_failed(fmt::format("{}: {}", s.files.directory.string(), problem.message()));
  if (delete_disks)
    for (const auto& disk : disks) BH_RETURN_IF_ERROR(remove_durably(disk.path));
  return {};
}

Result<void> forget_qemu_tokens(QemuSession& s) {
  if (!s.record.start_token.empty()) {
    s.record.start_token.clear();
    BH_RETURN_IF_ERROR(s.save());
  }
  if (!s.qmp) return {};
  BH_TRY(const auto view, look_at_qemu(*s.qmp));
  if (!s.attached && !s.record.snapshot && is_off_status(view.status, s.record)) return quit_qemu(s);
  json::array actions;
  for (const auto& node : view.nodes)
    for (const auto& bitmap : node.bitmaps)
      if (is_our_bitmap(bitmap.name) && !bitmap.busy &&
          !(s.record.snapshot && bitmap.name == bitmap_name(s.record.snapshot->token)))
        actions.push_back(action("block-dirty-bitmap-remove", {{"node", node.name}, {"name", bitmap.name}}));
  return run_transaction(*s.qmp, std::move(actions));
}

}  // namespace backhaul
