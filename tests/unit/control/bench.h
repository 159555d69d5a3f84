// A service over the fake world, and what a test needs to drive it.
#pragma once

#include "tests/unit/control/fake_world.h"

namespace backhaul::fake {

inline const Actor kAdmin{"ann", Role::admin};

inline Item make_item(const std::string& id) {
  Item item;
  item.id = id;
  item.vm = {id, 2, 1024, 1, "uefi", false, {{"eth0", "LAN", ""}}};
  item.recovery = {
      "",
      "files",
      "",
      {},
      {{"os", "/r/" + id + "-os", DiskFormat::raw, 100}, {"data", "/r/" + id + "-data", DiskFormat::raw, 100}},
      true};
  item.primary = {
      "hv1", "files", "", {}, {{"os", id + "-os", DiskFormat::raw, 100}, {"data", id + "-data", DiskFormat::raw, 100}},
      true};
  return item;
}

// A service over the fakes, and what a test needs to drive it.
class Bench {
 public:
  explicit Bench(std::unique_ptr<Store> in_store = make_memory_store()) : store(std::move(in_store)) {
    spdlog::set_level(spdlog::level::critical);  // thousands of jobs run here
    open();
  }

  FakeWorld world;
  std::unique_ptr<Store> store;
  std::unique_ptr<Service> service;
  std::vector<std::string> commands;
  std::set<std::string> failing_commands;
  std::uint64_t crashes = 0;

  void open() {
    service.reset();
    world.lose_process();
    Pace pace;  // fewer looks than in life, so that the sweeps stay fast
    pace.poll = std::chrono::seconds(1);
    pace.look = std::chrono::seconds(10);
    service = Service::create(*store, world, world, world.clock, world.random, "appliance", {}, pace,
                              [this](const PlanAction& action, const boost::json::object&) -> Result<void> {
                                return world.act<void>("command " + action.name, [&]() -> Result<void> {
                                  if (failing_commands.contains(action.name))
                                    return make_error(ControlErrc::action_failed, action.name);
                                  return {};
                                });
                              })
                  .value();
  }

  void add_item(const Item& item) {
    world.vm("", item.vm.name).power = PowerState::running;
    world.vm("hv1", item.vm.name).power = PowerState::off;
    for (const auto& disk : item.recovery.disks) world.disk("", disk.path) = {"new " + disk.name, "", "", true};
    for (const auto& disk : item.primary.disks) world.disk("hv1", disk.path) = {"old " + disk.name, "", "", true};
    auto put = service->put_item(kAdmin, item);
    ASSERT_TRUE(put) << put.error().to_string();
  }

  // Lets time pass until `done`, at most `limit_s` fake seconds; a crash starts the service anew on the same store.
  template <class Done>
  bool run_until(Done done, int limit_s = 7200) {
    const auto limit = world.clock.now() + std::chrono::seconds(limit_s);
    for (;;) {
      try {
        auto next = service->runner().run_ready();
        if (done()) return true;
        if (next == Clock::Duration::max()) return done();
        if (next > limit) return false;
        world.clock.sleep_for(std::max<Clock::Duration>(next - world.clock.now(), std::chrono::milliseconds(1)));
      } catch (const Crash&) {
        ++crashes;
        open();
        if (done()) return true;
      }
    }
  }
  bool run_until_job(const std::string& id, JobState state, int limit_s = 7200) {
    return run_until([&] { return job(id).state == state; }, limit_s);
  }
  bool run_until_ended(const std::string& id) {
    return run_until([&] { return has_ended(job(id).state); });
  }
  bool run_until_task(const std::string& id, TaskKind task) {
    return run_until([&] { return job(id).task() == task; });
  }
  Job job(const std::string& id) { return service->get_job(id).value(); }
  Item item(const std::string& id) { return service->get_item(id).value(); }
  ItemState state(const std::string& id) { return item(id).state; }
  std::string errors_of(const std::string& id) {
    std::string text;
    for (const auto& error : job(id).errors) text += error.code + ": " + error.cause + "\n";
    return text;
  }
};

inline PlannedFailoverRequest full_request() {
  PlannedFailoverRequest request;
  request.data_sync = DataSync::for_synchronization;
  return request;
}

// ForDownTime, without waiting for the operator.
inline PlannedFailoverRequest at_once() {
  PlannedFailoverRequest request;
  request.complete.mode = CompleteMode::automatic;
  return request;
}

}  // namespace backhaul::fake
