// What a task's code sees of its job. The job and its item are copies of what the store holds; they change only through
// update() and once(), so that the store is always ahead of what was done. One thread at a time.
#pragma once

#include <boost/json/value.hpp>
#include <functional>
#include <map>
#include <mutex>
#include <string>

#include "base/world.h"
#include "control/drivers/vm_driver.h"
#include "control/jobs/data_plane.h"
#include "control/model/job.h"
#include "control/store/records.h"

namespace backhaul {

// Runs an operator's command for a plan's action: JSON on stdin, success by exit status.
using ActionCommand = std::function<Result<void>(const PlanAction& action, const boost::json::object& about)>;

struct JobServices {
  Records& records;
  DataPlane& data_plane;
  VmDriverSource& drivers;
  Clock& clock;
  Random& random;
  ActionCommand run_action;
  std::string owner;
  std::function<void(const Job&)> progressed;  // called when a running transfer has new numbers; may be empty
};

// The pace of jobs; all in one place (docs/phases.md, section 3).
struct Pace {
  std::chrono::milliseconds poll{200};   // of running transfers
  std::chrono::milliseconds look{5000};  // while a job waits: next delta's size, projected downtime
  std::chrono::milliseconds delta_interval{60'000}, delta_least{5000};
  std::uint64_t delta_bytes = kGiB;  // a next delta above this starts at once
  std::chrono::milliseconds retry_first{10'000}, retry_last{600'000};
  std::uint32_t attempts = 5;                     // of a task, when its error can pass
  std::chrono::milliseconds tell_progress{1000};  // to subscribers
  std::chrono::seconds minute{60};                // of items' settings in minutes; less only in rehearsals
};

// What only this process knows of a job: its transfers. A crash loses it; the next process makes it anew.
struct LiveJob {
  std::mutex mutex;  // of `progress`, which the API reads
  TransferProgress progress;
  std::map<std::string, RoundHandle> transfers;  // by disk
  std::uint32_t attempts = 0;
  std::uint32_t task = 0;  // that `attempts` and `task_started` belong to
  Clock::Duration task_started{0}, last_told{0}, last_look{0}, retry_round_at{0};
  std::int64_t lease_until_unix_s = 0;
};

struct Step {
  enum Kind { done, again, wait } kind = done;
  Clock::Duration pause{0};
  static Step finished() { return {done, {}}; }
  static Step repeat() { return {again, {}}; }
  static Step after(Clock::Duration pause) { return {wait, pause}; }
};

class JobContext {
 public:
  JobContext(JobServices& in_services, const Pace& in_pace, LiveJob& in_live, std::string id)
      : services(in_services), pace(in_pace), live(in_live), id_(std::move(id)) {}

  JobServices& services;
  const Pace& pace;
  LiveJob& live;
  Job job;
  Item item;  // empty for plan jobs

  Result<void> refresh();
  using Change = std::function<void(Job&, Item&)>;
  Result<void> update(const Change& change, Durability durability = Durability::durable);
  Result<void> update_with(const std::function<Result<void>(Transaction&, Job&, Item*)>& change);

  // Runs an outside action between its two records: the intent (with `intend`) is durable before `action` runs, the
  // outcome (with `accept`) before once() returns. An action that is done does not run again: its recorded outcome is
  // returned. BaseErrc::cancelled: a cancel is due.
  using Action = std::function<Result<boost::json::value>()>;
  Result<boost::json::value> once(const std::string& key, const Action& action, const Change& intend = {},
                                  const std::function<void(Job&, Item&, const boost::json::value&)>& accept = {});
  const ActionRecord* find_action(std::string_view key) const;

  Result<VmDriver*> driver(const Location& location) { return services.drivers.driver_for(location); }
  VmRef source_vm() const { return vm_ref(item, job.source); }
  VmRef target_vm() const { return vm_ref(item, job.target); }
  DiskRef target_disk(const std::string& name) const;
  std::int64_t now_unix_s() const { return services.clock.unix_time_s(); }
  std::int64_t now_unix_ms() const { return services.clock.unix_time_ms(); }
  Result<std::string> new_job_id();

 private:
  std::string id_;
};

// Stops the job's transfers in this process; returns when both ends have confirmed.
Result<void> stop_transfers(JobContext& context);

}  // namespace backhaul
