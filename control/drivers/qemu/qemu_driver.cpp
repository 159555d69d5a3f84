#include "control/drivers/qemu/qemu_driver.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <boost/json.hpp>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "control/drivers/qemu/qemu_bitmap.h"
#include "control/drivers/qemu/qemu_checks.h"
#include "control/drivers/qemu/qemu_hold.h"
#include "control/drivers/qemu/qemu_power.h"
#include "control/drivers/qemu/qemu_session.h"
#include "control/model/control_error.h"

namespace backhaul {
namespace {

constexpr std::chrono::milliseconds kWatch{500};

// What a crash, or a call that gave up, has left half done. Before anything is looked at: the guest may stand still for
// it, and a bitmap be taken by it.
Result<void> finish_interrupted_call(QemuSession& s) {
  if (!s.qmp) return {};
  BH_RETURN_IF_ERROR(stop_dirty_export(s));
  return s.record.paused_by_us ? commit_overlays(s) : Result<void>();
}

class QemuDriver final : public VmDriver {
 public:
  explicit QemuDriver(QemuDriverOptions options) : options_(std::move(options)), watch_([this] { watch(); }) {}
  ~QemuDriver() override {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    wake_.notify_all();
    watch_.join();
  }

  Result<VmFacts> describe(const VmRef& vm) override;
  Result<Snapshot> snapshot(const VmRef& vm, const std::string& id) override {
    return with(vm, [&](QemuSession& s) { return take_hold(s, id); });
  }
  Result<ChangedExtents> changed_extents(const VmRef& vm, const std::string& disk, const std::string& since_token,
                                         const std::string& id) override;
  Result<std::optional<std::uint64_t>> changed_bytes(const VmRef& vm, const std::string& since_token) override;
  Result<void> release_snapshot(const VmRef& vm, const std::string& id, bool accepted) override {
    return with(vm, [&](QemuSession& s) { return release_hold(s, id, accepted); });
  }
  Result<void> forget_tokens(const VmRef& vm) override {
    return with(vm, [](QemuSession& s) { return forget_qemu_tokens(s); });
  }
  Result<ShutdownOutcome> shut_down(const VmRef& vm, const ShutdownRequest& request) override {
    return with(vm, [&](QemuSession& s) { return shut_down_qemu(s, request); });
  }
  Result<void> create(const VmRef& vm, const VmDescription& description) override {
    return with(vm, [&](QemuSession& s) { return create_qemu(s, description); });
  }
  Result<StartOutcome> start(const VmRef& vm) override {
    {
      const std::lock_guard lock(mutex_);
      unwritten_.erase(vm.vm);
    }
    return with(vm, [](QemuSession& s) { return start_qemu(s); });
  }
  Result<FirstWrite> first_write(const VmRef& vm, std::chrono::milliseconds wait) override;
  Result<void> stop(const VmRef& vm) override;
  Result<void> remove(const VmRef& vm, bool delete_disks) override {
    return with(vm, [&](QemuSession& s) { return remove_qemu(s, delete_disks); });
  }
  Result<std::vector<Check>> preflight(const VmRef& vm, const VmDescription& description) override {
    return qemu_preflight(options_, vm, description);
  }
  Result<Health> health(const VmRef& vm) override {
    return with(vm, [](QemuSession& s) { return qemu_health(s); });
  }

 private:
  std::shared_ptr<std::mutex> lock_of(const std::string& vm) {
    const std::lock_guard lock(mutex_);
    auto& mutex = vms_[vm];
    if (!mutex) mutex = std::make_shared<std::mutex>();
    return mutex;
  }

  // One call: the VM's lock, and its state as it is now.
  template <class Call>
  auto with(const VmRef& vm, Call call) -> decltype(call(std::declval<QemuSession&>())) {
    const auto mutex = lock_of(vm.vm);
    const std::lock_guard lock(*mutex);
    BH_TRY(auto session, open_qemu_session(options_, vm));
    BH_RETURN_IF_ERROR(finish_interrupted_call(session));
    return call(session);
  }

  void watch();
  void look_after(const std::string& vm);

  const QemuDriverOptions options_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<std::mutex>> vms_;
  std::map<std::string, SeenUnwritten> unwritten_;
  bool ending_ = false;
  std::condition_variable wake_;
  std::thread watch_;  // last: it uses the others
};

Result<VmFacts> QemuDriver::describe(const VmRef& vm) {
  const auto mutex = lock_of(vm.vm);
  const std::lock_guard lock(*mutex);
  VmFacts facts;
  auto session = open_qemu_session(options_, vm);
  if (!session && session.error().code().category() == base_category()) return session.error();  // the request's fault
  if (!session) {
    spdlog::warn("VM {}: {}", vm.vm, session.error().to_string());
    facts.disks = vm.disks;
    return facts;  // power unknown
  }
  BH_RETURN_IF_ERROR(finish_interrupted_call(*session));
  BH_TRY(facts.power, qemu_power(*session));
  if (session->definition) facts.vm = session->definition->vm;
  std::optional<QemuView> view;
  if (session->qmp) {
    BH_TRY(view, look_at_qemu(*session->qmp));
  }
  for (auto disk : session->disks) {
    const auto* node = view ? view->disk(disk.path, disk.format) : nullptr;
    if (node != nullptr)
      disk.size_bytes = node->virtual_size;
    else if (const auto size = virtual_size(disk))
      disk.size_bytes = *size;
    facts.disks.push_back(std::move(disk));
  }
  return facts;
}

Result<FirstWrite> QemuDriver::first_write(const VmRef& vm, std::chrono::milliseconds wait) {
  SeenUnwritten unwritten;
  {
    const std::lock_guard lock(mutex_);
    unwritten = unwritten_[vm.vm];
  }
  auto write = with(vm, [&](QemuSession& s) { return wait_for_first_write(s, wait, unwritten); });
  const std::lock_guard lock(mutex_);
  unwritten_[vm.vm] = unwritten;
  return write;
}

Result<void> QemuDriver::stop(const VmRef& vm) {
  auto stopped = with(vm, [](QemuSession& s) { return quit_qemu(s); });
  if (stopped || !stopped.error().is(ControlErrc::driver_timeout) || vm.settings.contains("qmp")) return stopped;
  // One of ours whose monitor does not answer; the name was checked above.
  const auto mutex = lock_of(vm.vm);
  const std::lock_guard lock(*mutex);
  return wait_for_end({std::filesystem::absolute(options_.state) / vm.vm}, std::chrono::milliseconds(0));
}

Result<ChangedExtents> QemuDriver::changed_extents(const VmRef& vm, const std::string& disk,
                                                   const std::string& since_token, const std::string& id) {
  auto changed = with(vm, [&](QemuSession& s) -> Result<ChangedExtents> {
    const auto unknown = [](std::string why) { return ChangedExtents{std::nullopt, std::move(why)}; };
    const auto& held = s.record.snapshot;
    if (!held || held->id != id || held->phase != HoldPhase::open) return unknown("the snapshot is not held");
    const auto found =
        std::find_if(held->disks.begin(), held->disks.end(), [&](const auto& d) { return d.name == disk; });
    if (found == held->disks.end()) return unknown("the snapshot has no disk " + disk);
    const HeldDisk& place = *found;
    if (!s.qmp) return unknown("QEMU has ended, and its bitmaps with it");
    BH_TRY(const auto view, look_at_qemu(*s.qmp));
    const auto* node = view.disk(place.path, place.format);
    if (node == nullptr || node->bitmap(held->token) == nullptr) return unknown("QEMU was restarted");
    return read_dirty_ranges(s, *node, since_token, place.size_bytes);
  });
  if (!changed) return ChangedExtents{std::nullopt, changed.error().to_string()};
  return changed;
}

Result<std::optional<std::uint64_t>> QemuDriver::changed_bytes(const VmRef& vm, const std::string& since_token) {
  return with(vm, [&](QemuSession& s) -> Result<std::optional<std::uint64_t>> {
    std::uint64_t sum = 0;
    if (!s.qmp) return std::optional<std::uint64_t>();
    BH_TRY(const auto view, look_at_qemu(*s.qmp));
    for (const auto& disk : s.disks) {
      const auto* node = view.disk(disk.path, disk.format);
      const auto* bitmap = node == nullptr ? nullptr : node->bitmap(since_token);
      if (bitmap == nullptr || bitmap->inconsistent) return std::optional<std::uint64_t>();
      sum += std::min(bitmap->dirty_bytes, node->virtual_size);
    }
    return std::optional(sum);
  });
}

// A guest that a crash left paused goes on. While a snapshot is held: a guest that its full overlay paused, and a file
// system that soon is full. The snapshot is given up then, so that the guest goes on; whoever reads it finds that out
// when it is released.
void QemuDriver::look_after(const std::string& vm) {
  const auto mutex = lock_of(vm);
  const std::unique_lock lock(*mutex, std::try_to_lock);
  if (!lock) return;  // a call is under way
  const auto directory = std::filesystem::absolute(options_.state) / vm;
  const auto record = load_qemu_record(directory);
  if (!record || !record->snapshot) return;
  const bool held = has_overlays(*record) && record->snapshot->phase != HoldPhase::releasing;
  if (!held && !record->paused_by_us) return;
  VmRef ref{vm, {}, {}};
  if (!record->qmp.empty()) ref.settings["qmp"] = record->qmp;
  for (const auto& disk : record->snapshot->disks)
    ref.disks.push_back({disk.name, disk.path, disk.format, disk.size_bytes});
  auto session = open_qemu_session(options_, ref);
  if (!session || !session->qmp) return;
  if (auto finished = finish_interrupted_call(*session); !finished || !held) {
    if (!finished) spdlog::error("VM {}: {}", vm, finished.error().to_string());
    return;
  }
  const auto status = query_status(*session->qmp);
  std::error_code problem;
  const auto space = std::filesystem::space(directory, problem);
  std::string why;
  if (status && *status == "io-error") why = "a write to an overlay failed and QEMU paused the guest";
  if (!problem && space.available < options_.reserve_bytes)
    why = fmt::format("only {} bytes are free for its overlays", space.available);
  if (why.empty()) return;
  if (auto given_up = break_hold(*session, why); !given_up)
    spdlog::error("VM {}: {}", vm, given_up.error().to_string());
}

void QemuDriver::watch() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, kWatch, [this] { return ending_; })) {
    lock.unlock();
    std::error_code problem;
    for (const auto& entry : std::filesystem::directory_iterator(options_.state, problem))
      look_after(entry.path().filename().string());
    lock.lock();
  }
}

}  // namespace

std::unique_ptr<VmDriver> make_qemu_driver(QemuDriverOptions options) {
  return std::make_unique<QemuDriver>(std::move(options));
}

}  // namespace backhaul
