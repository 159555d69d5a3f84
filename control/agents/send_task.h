// One transfer on a thread of its own, which other threads watch: a job's round at the appliance, or the sending end of
// a reverse round at a host agent. Thread-safe.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/world.h"
#include "dataplane/source/send.h"

namespace backhaul {

class SendTask {
 public:
  struct Progress {
    std::string phase;
    std::uint64_t bytes_done = 0, bytes_total = 0, payload_bytes = 0;  // bytes of the disk
    double bytes_per_s = 0;                                            // of the disk, over the last seconds
    std::string detail;
  };
  using Report = std::function<void(Progress)>;
  // Runs until done or `stop`; reports now and then.
  using Run = std::function<Result<SendResult>(const Report& report, const std::atomic<bool>& stop)>;

  SendTask(Run run, Clock& clock);
  ~SendTask();  // stop() and wait
  SendTask(const SendTask&) = delete;
  SendTask& operator=(const SendTask&) = delete;

  void request_stop() noexcept { stop_ = true; }
  // Blocks until the thread ended; nothing is written after that.
  void wait();

  struct View {
    Progress progress;
    std::optional<Result<SendResult>> ended;
  };
  View look() const;
  // When it ended, by the clock given; nothing while it runs.
  std::optional<Clock::Duration> ended_at() const;

 private:
  void note(Progress progress);

  Clock& clock_;
  std::atomic<bool> stop_{false};
  mutable std::mutex mutex_;
  Progress progress_;
  Clock::Duration rate_from_{0};
  std::uint64_t rate_bytes_ = 0;
  std::optional<Result<SendResult>> ended_;
  std::optional<Clock::Duration> ended_at_;
  std::mutex join_mutex_;
  std::thread thread_;
};

// How send_disk tells a task.
std::function<void(const SendProgress&)> progress_of(const SendTask::Report& report);

}  // namespace backhaul
