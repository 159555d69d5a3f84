#include "control/jobs/runner.h"

#include <spdlog/spdlog.h>

#include "control/jobs/job_flow.h"
#include "control/jobs/operations.h"
#include "control/jobs/tasks.h"

namespace backhaul {
namespace {

constexpr auto kNever = Clock::Duration::max();
constexpr std::int64_t kLease_s = 30;
constexpr std::chrono::seconds kStoreRetry{5};   // after a failed store access: the job is where it was
constexpr std::chrono::milliseconds kIdle{500};  // a thread with nothing due looks again, for wall-clock deadlines

// The job whose step runs on this thread; its own writes do not wake it.
thread_local const std::string* t_stepping = nullptr;

// The current task's function.
Result<Step> run_task(JobContext& c) {
  switch (c.job.task()) {
    case TaskKind::prepare_failover: return prepare_failover(c);
    case TaskKind::replicate: return replicate(c);
    case TaskKind::wait_for_complete: return wait_for_complete(c);
    case TaskKind::shutdown_source: return shutdown_source(c);
    case TaskKind::final_delta: return final_delta(c);
    case TaskKind::full_download: return full_download(c);
    case TaskKind::swap_disks: return swap_in(c);
    case TaskKind::start_target: return start_target(c);
    case TaskKind::delete_source_vm: return delete_source_vm(c);
    case TaskKind::complete_commit: return complete_commit(c);
    case TaskKind::stop_target: return stop_target(c);
    case TaskKind::give_back_disks: return give_back_disks(c);
    case TaskKind::start_source: return start_source(c);
    case TaskKind::prepare_reprotect: return prepare_reprotect(c);
    case TaskKind::initial_replication: return initial_replication(c);
    case TaskKind::cycle: return replication_cycle(c);
    case TaskKind::plan_replicate: return plan_replicate(c);
    case TaskKind::plan_wait: return plan_wait(c);
    case TaskKind::plan_shutdown: return plan_shutdown(c);
    case TaskKind::plan_boot: return plan_boot(c);
    case TaskKind::plan_items: return plan_items(c);
  }
  return make_error(BaseErrc::internal, "a task without a function");
}

}  // namespace

Runner::Runner(JobServices services, const Pace& pace) : services_(std::move(services)), pace_(pace) {}
Runner::~Runner() { stop(); }

Result<void> Runner::load() {
  BH_TRY(auto jobs, services_.records.jobs());
  for (const auto& job : jobs) job_written(job);
  BH_TRY(auto items, services_.records.items());
  for (const auto& item : items) item_written(item);
  return {};
}

void Runner::job_written(const Job& job) {
  std::lock_guard lock(mutex_);
  if (auto parent = entries_.find(job.parent); parent != entries_.end()) {
    parent->second.due = Clock::Duration{0};
    parent->second.woken = parent->second.running;
  }
  const bool own = t_stepping != nullptr && *t_stepping == job.id;
  if (has_ended(job.state) || own) {
    changed_.notify_all();
    return;  // run_one() removes ended jobs
  }
  Entry& entry = entries_[job.id];
  entry.due = Clock::Duration{0};
  entry.woken = entry.running;
  entry.parent = job.parent;
  changed_.notify_all();
}

void Runner::item_written(const Item& item) {
  std::lock_guard lock(mutex_);
  if (item.commit_deadline_unix_s != 0 && item.state == ItemState::planned_failover_commit_pending)
    deadlines_[item.id] = item.commit_deadline_unix_s;
  else
    deadlines_.erase(item.id);
}

std::size_t Runner::unfinished() const {
  std::lock_guard lock(mutex_);
  return entries_.size();
}

void Runner::add_progress(Job& job) {
  std::shared_ptr<LiveJob> live;
  {
    std::lock_guard lock(mutex_);
    auto found = entries_.find(job.id);
    if (found == entries_.end() || job.tasks.empty()) return;
    live = found->second.live;
  }
  std::lock_guard lock(live->mutex);
  job.tasks[job.current_task].progress = live->progress;
}

// The job that is due first and not running; its due time.
Clock::Duration Runner::next_due_locked(std::string& id) const {
  Clock::Duration first = kNever;
  for (const auto& [candidate, entry] : entries_)
    if (!entry.running && entry.due < first) first = entry.due, id = candidate;
  return first;
}

Clock::Duration Runner::run_ready() {
  std::unique_lock lock(mutex_);
  for (;;) {
    lock.unlock();
    run_deadlines();
    lock.lock();
    std::string id;
    const auto due = next_due_locked(id);
    if (due == kNever || due > services_.clock.now()) {
      Clock::Duration next = due;
      for (const auto& [item, deadline] : deadlines_)
        next = std::min<Clock::Duration>(
            next, services_.clock.now() +
                      std::chrono::seconds(std::max<std::int64_t>(deadline - services_.clock.unix_time_s(), 0)));
      return next;
    }
    run_one(id, lock);
  }
}

void Runner::run_one(const std::string& id, std::unique_lock<std::mutex>& lock) {
  auto found = entries_.find(id);
  found->second.running = true;
  found->second.woken = false;
  const auto live = found->second.live;
  lock.unlock();
  t_stepping = &id;
  struct Clear {
    ~Clear() { t_stepping = nullptr; }
  } clear;
  const auto due = step(id, *live);
  lock.lock();
  found = entries_.find(id);
  if (found == entries_.end()) return;
  found->second.running = false;
  if (due == kNever && !found->second.woken) {
    entries_.erase(found);
  } else {
    found->second.due = found->second.woken ? Clock::Duration{0} : due;
  }
  changed_.notify_all();
}

void Runner::start(std::size_t threads) {
  std::lock_guard lock(mutex_);
  stopping_ = false;
  for (std::size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

void Runner::work() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    lock.unlock();
    run_deadlines();
    lock.lock();
    if (stopping_) break;
    std::string id;
    const auto due = next_due_locked(id);
    const auto now = services_.clock.now();
    if (due != kNever && due <= now) {
      run_one(std::string(id), lock);
      continue;
    }
    const Clock::Duration pause = due == kNever ? Clock::Duration(kIdle) : std::min<Clock::Duration>(kIdle, due - now);
    changed_.wait_for(lock, pause);
  }
}

void Runner::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  for (auto& thread : threads_) thread.join();
  threads_.clear();
  std::lock_guard lock(mutex_);
  for (auto& [id, entry] : entries_)
    for (auto& [disk, transfer] : entry.live->transfers) {
      if (auto stopped = services_.data_plane.cancel_round(transfer); !stopped)
        spdlog::warn("job {}: transfer of {} was not stopped: {}", id, disk, stopped.error().to_string());
      services_.data_plane.forget_round(transfer);
    }
  for (auto& [id, entry] : entries_) entry.live->transfers.clear();
}

bool Runner::hold_lease(const std::string& id, LiveJob& live) {
  const auto now = services_.clock.unix_time_s();
  if (live.lease_until_unix_s - now > kLease_s / 2) return true;
  auto lease = services_.records.store().acquire_lease("job/" + id, services_.owner, kLease_s, now);
  if (!lease) return false;
  live.lease_until_unix_s = lease->expires_unix_s;
  return true;
}

Clock::Duration Runner::step(const std::string& id, LiveJob& live) {
  const auto now = services_.clock.now();
  if (!hold_lease(id, live)) return now + std::chrono::seconds(kLease_s);  // another appliance runs it
  JobContext context(services_, pace_, live, id);
  auto result = step_job(context);
  if (result) {
    if (*result == kNever) (void)services_.records.store().release_lease("job/" + id, services_.owner);
    return *result;
  }
  if (result.error().is(ControlErrc::not_found)) return kNever;  // removed
  spdlog::error("job {}: {}", id, result.error().to_string());
  return now + kStoreRetry;
}

// Errors of this function are the store's; what a task reports is handled inside.
Result<Clock::Duration> Runner::step_job(JobContext& c) {
  BH_RETURN_IF_ERROR(c.refresh());
  if (has_ended(c.job.state)) {
    BH_RETURN_IF_ERROR(stop_transfers(c));
    return kNever;
  }
  if (c.job.state == JobState::not_started && !c.job.cancel_requested)
    BH_RETURN_IF_ERROR(c.update([&](Job& job, Item&) {
      if (job.state == JobState::not_started && !job.cancel_requested) enter_task(job, c.now_unix_s());
    }));
  if (c.job.state == JobState::not_started && !c.job.cancel_requested) return c.services.clock.now();
  if (cancel_is_due(c.job)) {
    if (auto stopped = stop_transfers(c); !stopped) return after_error(c, stopped.error());
    if (is_plan_job(c.job.kind)) {
      auto resting = cancel_plan_items(c);
      if (!resting) return resting.error();
      if (!*resting) return c.services.clock.now() + pace_.look;
    }
    BH_TRY(std::string spare_id, c.new_job_id());
    BH_RETURN_IF_ERROR(c.update_with([&](Transaction& transaction, Job& job, Item* item) -> Result<void> {
      if (!job.rolling_back) begin_rollback(transaction, job, item, c.now_unix_s(), spare_id, c.pace.minute);
      return {};
    }));
    return has_ended(c.job.state) ? kNever : c.services.clock.now();
  }
  if (c.live.task != c.job.current_task || c.live.task_started.count() == 0) {
    c.live.task = c.job.current_task;
    c.live.attempts = 0;
    c.live.task_started = c.services.clock.now();
    std::lock_guard lock(c.live.mutex);
    c.live.progress = {};
  }
  auto result = run_task(c);
  if (!c.live.transfers.empty() && services_.progressed &&
      c.services.clock.now() >= c.live.last_told + pace_.tell_progress) {
    c.live.last_told = c.services.clock.now();
    services_.progressed(c.job);
  }
  if (!result) return after_error(c, result.error());
  switch (result->kind) {
    case Step::done: BH_RETURN_IF_ERROR(advance(c)); return has_ended(c.job.state) ? kNever : c.services.clock.now();
    case Step::again: return c.services.clock.now();
    case Step::wait:
      return c.services.clock.now() + std::max<Clock::Duration>(result->pause, std::chrono::milliseconds(1));
  }
  return c.services.clock.now();
}

Result<void> Runner::advance(JobContext& c) {
  BH_TRY(std::string spare_id, c.new_job_id());
  const double seconds = std::chrono::duration<double>(c.services.clock.now() - c.live.task_started).count();
  const auto ended = c.job.current_task;
  return c.update_with([&](Transaction& transaction, Job& job, Item* item) -> Result<void> {
    // A cancel that came first wins: the next step rolls back. This decides whether StartTarget is entered.
    if (cancel_is_due(job) || job.current_task != ended) return {};
    job.tasks[ended].seconds = seconds;
    complete_task(transaction, job, item, c.now_unix_s(), spare_id, c.pace.minute);
    return {};
  });
}

Result<Clock::Duration> Runner::after_error(JobContext& c, const Error& error) {
  const auto now = c.services.clock.now();
  // By its own code: what a peer says of itself is neither our cancel nor our store.
  const auto& code = error.code();
  if (code == BaseErrc::cancelled) return now;  // the next step sees the cancel
  if (code == ControlErrc::store_failed || code == ControlErrc::store_damaged) return error;
  if (error.retry() == Retry::later && ++c.live.attempts < pace_.attempts) {
    spdlog::warn("job {}: {} (attempt {})", c.job.id, error.to_string(), c.live.attempts);
    BH_RETURN_IF_ERROR(c.update([&](Job& job, Item&) { note_error(job, to_job_error(error, c.now_unix_s())); }));
    Clock::Duration pause = pace_.retry_first;
    for (std::uint32_t i = 1; i < c.live.attempts; ++i) pause *= 2;
    return now + std::min<Clock::Duration>(pause, pace_.retry_last);
  }
  if (auto stopped = stop_transfers(c); !stopped) spdlog::warn("job {}: {}", c.job.id, stopped.error().to_string());
  spdlog::error("job {} failed: {}", c.job.id, error.to_string());
  BH_RETURN_IF_ERROR(c.update_with([&](Transaction&, Job& job, Item* item) -> Result<void> {
    if (cancel_is_due(job)) return {};
    fail_job(job, item, to_job_error(error, c.now_unix_s()));
    return {};
  }));
  c.live.attempts = 0;
  return has_ended(c.job.state) ? kNever : now;
}

void Runner::run_deadlines() {
  std::vector<std::string> due;
  {
    std::lock_guard lock(mutex_);
    if (deadlines_running_) return;
    const auto now = services_.clock.unix_time_s();
    for (const auto& [item, deadline] : deadlines_)
      if (deadline <= now) due.push_back(item);
    if (due.empty()) return;
    for (const auto& item : due) deadlines_.erase(item);
    deadlines_running_ = true;
  }
  for (const auto& item : due) apply_commit_policy(item);
  std::lock_guard lock(mutex_);
  deadlines_running_ = false;
}

void Runner::apply_commit_policy(const std::string& id) {
  auto item = services_.records.item(id);
  if (!item || item->state != ItemState::planned_failover_commit_pending || item->commit_deadline_unix_s == 0) return;
  const CommitPolicy policy = item->commit_policy;
  bool commit = policy.mode == CommitMode::commit_after;
  std::string why = "commit-after";
  if (policy.mode == CommitMode::undo_after) {
    why = "undo-after, no health check";
    if (policy.health_check) {
      const Location& target = item->at(item->direction, false);
      auto driver = services_.drivers.driver_for(target);
      auto health = driver ? (*driver)->health(vm_ref(*item, target)) : Result<Health>(driver.error());
      commit = health && health->healthy;
      why = health ? (commit ? "healthy: " : "not healthy: ") + health->detail
                   : "no answer: " + health.error().to_string();
    }
  }
  auto number = services_.records.store().next_number("job");
  const auto apply = [&](Transaction& transaction) -> Result<void> {
    BH_TRY(const Item* stored, transaction.item(id));
    if (stored->state != ItemState::planned_failover_commit_pending || stored->commit_deadline_unix_s == 0) return {};
    const Start start{std::to_string(*number), "policy", services_.clock.unix_time_s(), {}, {}};
    auto started = commit ? start_commit(transaction, id, false, start) : start_cancel(transaction, id, start);
    if (!started) return started.error();
    return {};
  };
  auto done = number ? services_.records.transact(apply) : Result<void>(number.error());
  (void)services_.records.store().append_audit({0, services_.clock.unix_time_s(), "policy",
                                                commit ? "failoverCommit" : "failoverCancel", "item/" + id,
                                                done ? "accepted" : "failed", done ? why : done.error().to_string()});
  if (!done) {
    std::lock_guard lock(mutex_);
    deadlines_[id] = services_.clock.unix_time_s() + 10;
  }
}

}  // namespace backhaul
