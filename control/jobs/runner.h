// Runs jobs: picks those that are due, lets each do one step on one thread, and decides what the step's result makes of
// the job. In production start() gives it threads; tests call run_ready() with a clock of their own, and everything
// happens on the calling thread in a deterministic order. Service owns it. Thread-safe.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "control/jobs/job_context.h"

namespace backhaul {

class Runner {
 public:
  Runner(JobServices services, const Pace& pace = {});
  ~Runner();

  // Takes up every unfinished job of the store, and every running commit deadline.
  Result<void> load();

  // Runs what is due until nothing is; returns the time (of Clock::now) at which something will be, or
  // Clock::Duration::max().
  Clock::Duration run_ready();
  void start(std::size_t threads);
  // Lets running steps end and stops transfers; the store holds where to go on.
  void stop();

  // Records' observer calls these.
  void job_written(const Job& job);
  void item_written(const Item& item);
  // Puts the live numbers of a running transfer into the job's current task.
  void add_progress(Job& job);
  std::size_t unfinished() const;

 private:
  struct Entry {
    Clock::Duration due{0};
    bool running = false;
    bool woken = false;  // while it ran
    std::string parent;
    std::shared_ptr<LiveJob> live = std::make_shared<LiveJob>();
  };

  void work();
  Clock::Duration next_due_locked(std::string& id) const;
  void run_one(const std::string& id, std::unique_lock<std::mutex>& lock);
  Clock::Duration step(const std::string& id, LiveJob& live);  // when to come back; max(): never
  Result<Clock::Duration> step_job(JobContext& context);
  Result<Clock::Duration> after_error(JobContext& context, const Error& error);
  Result<void> advance(JobContext& context);
  bool hold_lease(const std::string& id, LiveJob& live);
  void run_deadlines();
  void apply_commit_policy(const std::string& item);

  JobServices services_;
  const Pace pace_;
  mutable std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::int64_t> deadlines_;  // commit policy, by item
  bool stopping_ = false;
  bool deadlines_running_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace backhaul
