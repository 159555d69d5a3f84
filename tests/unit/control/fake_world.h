// Two sites, their VMs and disks, in memory, under one fake clock. A VM's disk is a string; it may be written only
// while its VM runs. The fakes check what must never happen (both VMs running, a torn disk booted, an old epoch
// writing) and can crash or fail at the n-th outside action: before it (intent recorded, nothing done) or after it
// (done, outcome not recorded).
#pragma once

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <map>
#include <set>
#include <string>

#include "control/drivers/vm_driver.h"
#include "control/jobs/data_plane.h"
#include "control/jobs/runner.h"
#include "control/jobs/service.h"
#include "control/store/store.h"
#include "dataplane/protocol/engine_error.h"
#include "tests/unit/control/memory_store.h"

namespace backhaul::fake {

struct Crash {};  // thrown through everything, like kill -9

class FakeClock final : public Clock {
 public:
  Duration now() const override { return now_; }
  std::int64_t unix_time_ms() const override {
    return 1'700'000'000'000 + std::chrono::duration_cast<std::chrono::milliseconds>(now_).count();
  }
  void sleep_for(Duration duration) override { now_ += duration; }

 private:
  Duration now_ = std::chrono::seconds(1);
};

class CountingRandom final : public Random {
 public:
  std::uint64_t next() override { return ++value_ * 0x9e3779b97f4a7c15ull; }

 private:
  std::uint64_t value_ = 0;
};

struct Disk {
  std::string content, staged, old;
  bool exists = false, has_staged = false, swapped = false;
  std::uint64_t epoch = 0;
  std::string staged_root, delivered;  // of the last verified round; the content that was swapped in under it
};
struct Vm {
  PowerState power = PowerState::absent;
  bool ever_started = false;
};
struct Round {
  RoundRequest request;
  int polls_left = 0;
};

class FakeWorld final : public DataPlane, public VmDriverSource {
 public:
  FakeClock clock;
  CountingRandom random;
  std::map<std::string, Disk> disks;                                    // "host:path"
  std::map<std::string, Vm> vms;                                        // "host:vm"
  std::map<std::string, std::map<std::string, std::string>> snapshots;  // id -> path -> content
  std::map<RoundHandle, Round> rounds;
  std::vector<std::string> log;  // outside actions, in order
  std::set<std::string> tokens;
  HostReport host;
  std::optional<std::uint64_t> last_write_age_ms;
  FirstWrite first_write;  // what every driver says
  bool host_connected = true, ignores_shutdown = false, healthy = true, tracker_lost = false, root_differs_once = false;
  int polls_of_a_round = 2;
  std::uint64_t dirty_bytes = 1000;
  ChangeSample change_sample{1 << 20, 0.01, 1e9, true};
  std::vector<RoundRequest> requests;

  // The n-th outside action (from 1) crashes; 0: none.
  int crash_at = 0;
  bool crash_after = false;
  int actions = 0;
  std::map<std::string, int> fail;  // action prefix -> how often it fails (-1: always)
  Retry fail_retry = Retry::no;
  std::optional<Error> fail_with;  // instead of the driver's own error

  FakeWorld() {
    host.free_bytes = kTiB;
    host.networks = {"LAN"};
    host.generations = {1, 2};
    host.formats = {"raw", "vhdx", "vhdx-fixed"};
  }

  Vm& vm(const std::string& host_id, const std::string& name) { return vms[host_id + ":" + name]; }
  Disk& disk(const std::string& host_id, const std::string& path) { return disks[host_id + ":" + path]; }
  void write(const std::string& host_id, const std::string& name, const std::string& path, const std::string& text) {
    ASSERT_EQ(vm(host_id, name).power, PowerState::running) << "only a running VM writes";
    disk(host_id, path).content += text;
  }
  void lose_process() { rounds.clear(); }
  int count(const std::string& prefix) const {
    return static_cast<int>(
        std::count_if(log.begin(), log.end(), [&](const auto& line) { return line.starts_with(prefix); }));
  }

  template <class T, class Function>
  Result<T> act(const std::string& what, Function&& function) {
    const bool crash = ++actions == crash_at;
    if (crash && !crash_after) throw Crash{};
    for (auto& [prefix, times] : fail)
      if (times != 0 && what.starts_with(prefix)) {
        if (times > 0) --times;
        log.push_back("FAILED " + what);
        if (fail_with) return *fail_with;
        return fail_retry == Retry::later ? Error::from_errno(ECONNRESET, what)
                                          : make_error(ControlErrc::driver_failed, what);
      }
    log.push_back(what);
    Result<T> result = function();
    if (crash) throw Crash{};
    return result;
  }

  // DataPlane
  Result<RoundHandle> start_round(const RoundRequest& request) override {
    return act<RoundHandle>("round " + request.target.host + ":" + request.target.path, [&]() -> Result<RoundHandle> {
      Disk& target = disks[request.target.host + ":" + request.target.path];
      if (request.epoch <= target.epoch) return make_error(BaseErrc::invalid_argument, "an old epoch");
      EXPECT_FALSE(target.swapped) << "a round onto a disk whose old one is still kept";
      target.epoch = request.epoch;
      target.has_staged = true;
      target.staged = "torn";
      requests.push_back(request);
      rounds[++last_handle_] = {request, polls_of_a_round};
      return last_handle_;
    });
  }
  Result<RoundView> poll_round(RoundHandle handle) override {
    auto found = rounds.find(handle);
    if (found == rounds.end()) return make_error(BaseErrc::internal, "no such round");
    RoundView view;
    view.progress.bytes_total = 100;
    view.progress.bytes_done = 50;
    view.progress.bytes_per_s = 25;
    if (fail.contains("transfer") && fail["transfer"] != 0) {
      if (fail["transfer"] > 0) --fail["transfer"];
      view.ended = fail_retry == Retry::later ? Error::from_errno(ECONNRESET, "transfer")
                                              : make_error(BaseErrc::internal, "transfer");
      return view;
    }
    if (root_differs_once) {
      root_differs_once = false;
      view.ended = make_error(EngineErrc::root_mismatch, "source 1, target 2");
      return view;
    }
    if (found->second.polls_left-- > 0) return view;
    const RoundRequest& request = found->second.request;
    Disk& target = disks[request.target.host + ":" + request.target.path];
    EXPECT_EQ(target.epoch, request.epoch);
    target.staged = read_source(request.source);
    TransferStats stats;
    stats.payload_bytes = 10;
    stats.seconds = 0.1;
    stats.root_digest_source = stats.root_digest_target = target.staged_root =
        request.sync == DataSync::for_down_time ? std::to_string(std::hash<std::string>{}(target.staged)) : "";
    view.ended = std::move(stats);
    return view;
  }
  Result<void> cancel_round(RoundHandle handle) override {
    return act<void>("cancel-round", [&]() -> Result<void> {
      rounds.erase(handle);
      return {};
    });
  }
  void forget_round(RoundHandle handle) noexcept override { rounds.erase(handle); }
  Result<TargetStatus> query_disk(const DiskRef& target) override {
    const Disk& found = disks[target.host + ":" + target.path];
    if (!host_connected && !target.host.empty()) return make_error(ControlErrc::host_unreachable, target.host);
    TargetStatus disk;
    disk.state = found.swapped ? TargetState::swapped : found.exists ? TargetState::plain : TargetState::absent;
    disk.size = found.exists ? 100u : 0u;
    disk.epoch = found.epoch;
    if (found.swapped && found.content == found.delivered) disk.root_digest = found.staged_root;
    return disk;
  }
  Result<void> swap_disk(const DiskRef& target, std::uint64_t epoch) override {
    return act<void>("swap " + target.host + ":" + target.path, [&]() -> Result<void> {
      Disk& found = disks[target.host + ":" + target.path];
      if (epoch <= found.epoch) return make_error(BaseErrc::invalid_argument, "an old epoch");
      found.epoch = epoch;
      if (found.swapped) return {};
      EXPECT_TRUE(found.has_staged);
      EXPECT_NE(found.staged, "torn");
      found.old = found.content;
      old_existed_[&found] = found.exists;
      found.content = found.delivered = found.staged;
      found.exists = found.swapped = true;
      found.has_staged = false;
      return {};
    });
  }
  Result<void> give_back(const DiskRef& target, std::uint64_t epoch) override {
    return act<void>("give-back " + target.host + ":" + target.path, [&]() -> Result<void> {
      Disk& found = disks[target.host + ":" + target.path];
      if (epoch <= found.epoch) return make_error(BaseErrc::invalid_argument, "an old epoch");
      found.epoch = epoch;
      if (found.swapped) {
        found.content = found.old;
        found.exists = old_existed_[&found];
      }
      found.has_staged = found.swapped = false;
      return {};
    });
  }
  Result<void> release_old(const DiskRef& target, std::uint64_t epoch) override {
    return act<void>("release-old " + target.host + ":" + target.path, [&]() -> Result<void> {
      Disk& found = disks[target.host + ":" + target.path];
      if (epoch <= found.epoch) return make_error(BaseErrc::invalid_argument, "an old epoch");
      found.epoch = epoch;
      found.swapped = false;
      found.old.clear();
      return {};
    });
  }
  Result<HostReport> host_report(const std::string& id) override {
    if (!host_connected && !id.empty()) return make_error(ControlErrc::host_unreachable, id);
    HostReport report = host;
    if (report.unix_time_s == 0) report.unix_time_s = clock.unix_time_s();
    return report;
  }
  Result<ChangeSample> sample(const DiskRef&, const DiskRef&) override { return change_sample; }

  // VmDriverSource
  Result<VmDriver*> driver_for(const Location& location) override {
    auto& slot = drivers_[location.host];
    if (!slot) slot = std::make_unique<Driver>(*this, location.host);
    return slot.get();
  }

 private:
  class Driver final : public VmDriver {
   public:
    Driver(FakeWorld& world, std::string host_id) : world_(world), host_(std::move(host_id)) {}
    Result<VmFacts> describe(const VmRef& ref) override {
      if (!world_.host_connected && !host_.empty()) return make_error(ControlErrc::host_unreachable, host_);
      VmFacts facts{world_.vm(host_, ref.vm).power, {}, ref.disks};
      for (auto& disk : facts.disks) disk.size_bytes = 100;
      return facts;
    }
    Result<Snapshot> snapshot(const VmRef& ref, const std::string& id) override {
      return world_.act<Snapshot>("snapshot " + host_, [&]() -> Result<Snapshot> {
        Snapshot snapshot{id, "token-" + id, {}};
        auto& kept = world_.snapshots[id];
        const bool fresh = kept.empty();
        for (const auto& disk : ref.disks) {
          if (fresh) kept[disk.path] = world_.disk(host_, disk.path).content;
          snapshot.disks.push_back({disk.name, id + "|" + disk.path, DiskFormat::raw, 100});
        }
        world_.tokens.insert(snapshot.token);
        return snapshot;
      });
    }
    Result<ChangedExtents> changed_extents(const VmRef&, const std::string&, const std::string& since,
                                           const std::string&) override {
      if (world_.tracker_lost || !world_.tokens.contains(since)) return ChangedExtents{std::nullopt, "lost"};
      return ChangedExtents{std::vector<ByteRange>{{0, 100}}, {}};
    }
    Result<std::optional<std::uint64_t>> changed_bytes(const VmRef&, const std::string&) override {
      return std::optional<std::uint64_t>(world_.dirty_bytes);
    }
    Result<void> release_snapshot(const VmRef&, const std::string& id, bool accepted) override {
      return world_.act<void>("release-snapshot " + host_, [&]() -> Result<void> {
        if (!accepted) world_.tokens.erase("token-" + id);
        world_.snapshots.erase(id);
        return {};
      });
    }
    Result<void> forget_tokens(const VmRef&) override {
      return world_.act<void>("forget-tokens " + host_, [&]() -> Result<void> {
        std::erase_if(world_.tokens,
                      [&](const auto& token) { return !token.starts_with("started-") || token == "started-" + host_; });
        return {};
      });
    }
    Result<ShutdownOutcome> shut_down(const VmRef& ref, const ShutdownRequest& request) override {
      return world_.act<ShutdownOutcome>("shutdown " + host_, [&]() -> Result<ShutdownOutcome> {
        Vm& vm = world_.vm(host_, ref.vm);
        world_.clock.sleep_for(std::chrono::seconds(5));
        if (world_.ignores_shutdown && vm.power == PowerState::running && !request.allow_force)
          return make_error(ControlErrc::shutdown_refused, ref.vm);
        vm.power = PowerState::off;
        return ShutdownOutcome{world_.ignores_shutdown, world_.last_write_age_ms};
      });
    }
    Result<void> create(const VmRef& ref, const VmDescription&) override {
      return world_.act<void>("create " + host_, [&]() -> Result<void> {
        Vm& vm = world_.vm(host_, ref.vm);
        if (vm.power == PowerState::absent) vm.power = PowerState::off;
        return {};
      });
    }
    Result<StartOutcome> start(const VmRef& ref) override {
      return world_.act<StartOutcome>("start " + host_, [&]() -> Result<StartOutcome> {
        Vm& vm = world_.vm(host_, ref.vm);
        EXPECT_NE(vm.power, PowerState::absent);
        for (const auto& [name, other] : world_.vms)
          if (&other != &vm && name.ends_with(":" + ref.vm)) {
            EXPECT_NE(other.power, PowerState::running) << "both run: " << name;
          }
        vm.power = PowerState::running;
        vm.ever_started = true;
        world_.tokens.insert("started-" + host_);
        return StartOutcome{"started-" + host_};
      });
    }
    Result<FirstWrite> first_write(const VmRef&, std::chrono::milliseconds wait) override {
      if (!world_.host_connected && !host_.empty()) return make_error(ControlErrc::host_unreachable, host_);
      if (world_.first_write.kind == FirstWrite::not_yet) world_.clock.sleep_for(wait);
      return world_.first_write;
    }
    Result<void> stop(const VmRef& ref) override {
      return world_.act<void>("stop " + host_, [&]() -> Result<void> {
        world_.vm(host_, ref.vm).power = PowerState::off;
        return {};
      });
    }
    Result<void> remove(const VmRef& ref, bool delete_disks) override {
      return world_.act<void>("remove " + host_, [&]() -> Result<void> {
        world_.vm(host_, ref.vm).power = PowerState::absent;
        if (delete_disks)
          for (const auto& disk : ref.disks) world_.disk(host_, disk.path) = {};
        return {};
      });
    }
    Result<std::vector<Check>> preflight(const VmRef&, const VmDescription&) override { return std::vector<Check>(); }
    Result<Health> health(const VmRef&) override { return Health{world_.healthy, "asked"}; }

   private:
    FakeWorld& world_;
    std::string host_;
  };

  std::string read_source(const DiskRef& source) {
    const auto bar = source.path.find('|');
    const std::string id = source.path.substr(0, bar), path = source.path.substr(bar + 1);
    EXPECT_TRUE(snapshots.contains(id)) << "a released snapshot is read: " << source.path;
    return snapshots[id][path];
  }

  RoundHandle last_handle_ = 0;
  std::map<std::string, std::unique_ptr<Driver>> drivers_;
  std::map<const Disk*, bool> old_existed_;
};

}  // namespace backhaul::fake
