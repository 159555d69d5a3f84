// Overlays back into their disks. See the contract in qemu_hold.h for why the guest is paused at the pivot.
#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <optional>
#include <thread>
#include <utility>

#include "base/unique_fd.h"
#include "control/drivers/child_process.h"
#include "control/drivers/qemu/qemu_hold.h"
#include "control/model/control_error.h"

namespace backhaul {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr std::uint64_t kCloseEnough = 8 << 20;       // what may be left to copy when the guest is paused,
constexpr std::chrono::seconds kConvergence{5};       // unless it writes so fast that this never comes
constexpr std::chrono::milliseconds kLookMoving{20};  // while data moves
constexpr std::chrono::milliseconds kLookPaused{2};   // while the guest waits
constexpr std::chrono::hours kOffline{4};             // of qemu-img
constexpr std::string_view kOrphaned = ".orphaned";

// Somebody started this VM without the overlay: its writes and the disk's are two histories now. Nothing is deleted.
Result<void> set_aside(QemuSession& s, HeldDisk& disk) {
  const auto aside = disk.overlay_file + std::string(kOrphaned);
  if (::rename(disk.overlay_file.c_str(), aside.c_str()) == 0)
    spdlog::error("VM {}: QEMU was restarted without {}; the writes in it are kept as {}", s.vm, disk.overlay_file,
                  aside);
  else if (errno != ENOENT)
    return Error::from_errno(errno, "rename " + disk.overlay_file);
  disk.overlay_file.clear();
  s.record.snapshot->phase = HoldPhase::broken;
  s.record.snapshot->why_broken = "QEMU was restarted without the overlay";
  return s.save();
}

// After the record was saved without them.
void delete_overlays(const QemuSession& s, const std::vector<std::string>& files) {
  for (const auto& file : files)
    if (auto removed = remove_durably(file); !removed)
      spdlog::warn("VM {}: {}; it is not needed any more", s.vm, removed.error().to_string());
}

bool has_ended(const QemuJob& job) { return job.status == "concluded" || job.status == "null"; }

class Commits {
 public:
  explicit Commits(QemuSession& session) : s_(session) {}

  Result<void> run() {
    auto worked = work();
    if (s_.qmp->broken()) return worked ? driver_failed("the connection to QEMU broke") : std::move(worked).error();
    // Only when it is on record that the dropped overlays are of the past, the guest may go on; not while a pivot that
    // was asked for may still come.
    if (!dropped_.empty()) BH_RETURN_IF_ERROR(s_.save());
    if (pivoting_) return std::move(worked).error();
    BH_RETURN_IF_ERROR(resume());
    delete_overlays(s_, dropped_);
    BH_RETURN_IF_ERROR(std::move(worked));
    if (failure_) return *failure_;
    return {};
  }

 private:
  std::vector<HeldDisk>& disks() { return s_.record.snapshot->disks; }

  Result<void> work() {
    BH_TRY(const auto view, look_at_qemu(*s_.qmp));
    was_stuck_ = view.status == "io-error";
    for (auto& disk : disks())
      if (!disk.overlay_file.empty()) BH_RETURN_IF_ERROR(begin(view, disk));
    BH_TRY(const auto jobs, wait_for_jobs(kLookMoving, false));
    return jobs.empty() ? Result<void>() : pivot(jobs);
  }

  // A job for the overlay, unless there is one already or the pivot has happened.
  Result<void> begin(const QemuView& view, HeldDisk& disk) {
    if (view.job(disk.job) != nullptr) return {};
    const auto* base = view.disk(disk.path, disk.format);
    if (view.is_top(disk.overlay_node)) {
      if (base == nullptr) return driver_failed(fmt::format("disk {}: QEMU does not know {}", disk.name, disk.path));
      BH_RETURN_IF_ERROR(s_.qmp->execute(
          "block-commit",
          {{"job-id", disk.job}, {"device", disk.overlay_node}, {"base-node", base->name}, {"auto-dismiss", false}}));
      return {};
    }
    const bool known = view.node(disk.overlay_node) != nullptr ||
                       (base != nullptr && base->bitmap(s_.record.snapshot->token) != nullptr);
    if (known && base != nullptr && !view.is_top(base->name))
      return driver_failed(fmt::format("disk {}: something lies between the guest and {}", disk.name, disk.path));
    if (!known && s_.attached) return set_aside(s_, disk);
    return drop(view, disk);
  }

  // The overlay holds nothing that its disk lacks (or never held anything).
  Result<void> drop(const QemuView& view, HeldDisk& disk) {
    if (view.node(disk.overlay_node) != nullptr)
      BH_RETURN_IF_ERROR(s_.qmp->execute("blockdev-del", {{"node-name", disk.overlay_node}}));
    dropped_.push_back(disk.overlay_file);
    disk.overlay_file.clear();
    return {};
  }

  // Waits until every job is ready and nearly level, or has ended. Gives up when nothing moves for the timeout.
  Result<std::vector<QemuJob>> wait_for_jobs(std::chrono::milliseconds pause, bool until_end) {
    const auto patience = std::chrono::seconds(s_.options->timeout_s);
    const auto began = SteadyClock::now();
    auto moved_at = began;
    std::uint64_t seen = 0;
    for (;;) {
      BH_TRY(const auto jobs, query_jobs(*s_.qmp));
      std::vector<QemuJob> ours;
      bool finished = true;
      std::uint64_t moved = 0;
      for (const auto& job : jobs) {
        if (std::none_of(disks().begin(), disks().end(), [&](const auto& disk) { return disk.job == job.id; }))
          continue;
        ours.push_back(job);
        moved += job.done;
        const bool level =
            job.total - std::min(job.total, job.done) <= kCloseEnough || SteadyClock::now() - began > kConvergence;
        if (!has_ended(job) && (until_end || job.status != "ready" || !level)) finished = false;
      }
      if (finished) return ours;
      if (moved != seen) seen = moved, moved_at = SteadyClock::now();
      if (SteadyClock::now() - moved_at > patience)
        return make_error(ControlErrc::driver_timeout,
                          fmt::format("the overlays' commit does not go on; it is at {} bytes", moved));
      std::this_thread::sleep_for(pause);
    }
  }

  // From here to resume() the guest stands still, so that it writes nothing between the pivot and the overlay's end.
  Result<void> pivot(const std::vector<QemuJob>& jobs) {
    BH_TRY(const auto status, query_status(*s_.qmp));
    if (status == "running") {
      s_.record.paused_by_us = true;
      BH_RETURN_IF_ERROR(s_.save());
      BH_RETURN_IF_ERROR(s_.qmp->execute("stop"));
    }
    for (const auto& job : jobs)
      if (job.status == "ready") BH_RETURN_IF_ERROR(complete(job.id));
    BH_TRY(const auto ended, wait_for_jobs(kLookPaused, true));
    pivoting_ = false;
    BH_TRY(const auto view, look_at_qemu(*s_.qmp));
    for (const auto& job : ended) BH_RETURN_IF_ERROR(end_overlay(view, job));
    return {};
  }

  // Refused also when an interrupted call has asked already, and the job is at its end.
  Result<void> complete(const std::string& id) {
    const auto asked = s_.qmp->execute("job-complete", {{"id", id}});
    if (!asked) {
      BH_TRY(const auto jobs, query_jobs(*s_.qmp));
      for (const auto& job : jobs)
        if (job.id == id && job.status == "ready") return asked.error();
    }
    pivoting_ = true;
    return {};
  }

  // A job that has ended: its overlay is either below nothing any more, or still what the guest writes to.
  Result<void> end_overlay(const QemuView& view, const QemuJob& job) {
    for (auto& disk : disks()) {
      if (disk.job != job.id) continue;
      if (!view.is_top(disk.overlay_node) && job.error.empty()) {
        BH_RETURN_IF_ERROR(drop(view, disk));
      } else if (!failure_) {
        failure_ = driver_failed(fmt::format("disk {}: the overlay could not be committed: {}", disk.name,
                                             job.error.empty() ? "no reason given" : job.error));
      }
    }
    BH_RETURN_IF_ERROR(s_.qmp->execute("job-dismiss", {{"id", job.id}}));
    return {};
  }

  Result<void> resume() {
    const bool paused = s_.record.paused_by_us;
    if (!paused && (!was_stuck_ || failure_)) return {};
    BH_TRY(const auto status, query_status(*s_.qmp));
    if (status == "paused" || status == "io-error") BH_RETURN_IF_ERROR(s_.qmp->execute("cont"));
    if (!paused) return {};
    s_.record.paused_by_us = false;
    return s_.save();
  }

  QemuSession& s_;
  bool was_stuck_ = false, pivoting_ = false;
  std::optional<Error> failure_;
  std::vector<std::string> dropped_;  // files
};

// QEMU is gone, and qemu-img takes the locks that keep another one away.
Result<void> commit_offline(QemuSession& s, const HeldDisk& disk) {
  std::error_code problem;
  if (!std::filesystem::exists(disk.overlay_file, problem)) return {};
  const auto& tool = s.options->image_tool;
  if (disk.format !=
      DiskFormat::raw) {  // it opens a backing file read-only first, and then refuses a log that was left behind
    BH_TRY(const auto replayed, run_child({tool, "check", "-q", "-f", "vhdx", "-r", "all", disk.path}, "", kOffline));
    if (replayed.exit_status != 0)
      return driver_failed(fmt::format("{} check {}: {}", tool, disk.path, replayed.errors));
  }
  BH_TRY(const auto outcome, run_child({tool, "commit", "-q", "-d", "-f", "qcow2", disk.overlay_file}, "", kOffline));
  if (outcome.exit_status != 0)
    return driver_failed(fmt::format("{} commit {}: {}", tool, disk.overlay_file, outcome.errors));
  UniqueFd fd(::open(disk.path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return Error::from_errno(errno, "sync " + disk.path);
  spdlog::info("VM {}: what {} held is in {}", s.vm, disk.overlay_file, disk.path);
  return {};
}

}  // namespace

Result<void> commit_overlays(QemuSession& s) {
  if (s.qmp && (has_overlays(s.record) || s.record.paused_by_us) && s.record.snapshot) return Commits(s).run();
  if (!has_overlays(s.record)) return {};
  auto& held = *s.record.snapshot;
  if (held.phase == HoldPhase::open) {  // the disks change now
    held.phase = HoldPhase::broken;
    held.why_broken = "QEMU ended and its overlays were committed";
    BH_RETURN_IF_ERROR(s.save());
  }
  for (auto& disk : held.disks) {
    if (disk.overlay_file.empty()) continue;
    BH_RETURN_IF_ERROR(commit_offline(s, disk));
    const std::vector<std::string> dropped{std::exchange(disk.overlay_file, {})};
    BH_RETURN_IF_ERROR(s.save());
    delete_overlays(s, dropped);
  }
  return {};
}

}  // namespace backhaul
