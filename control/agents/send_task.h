// One transfer on a thread of its own, which other threads watch: a job's round at the appliance, or the sending end of
// a reverse round at a host agent. Thread-safe.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

#include "base/world.h"
#include "dataplane/source/send.h"

namespace backhaul {

class SendTask {
 public:
  // Runs until done or `stop`; reports now and then.
  using Run = std::function<Result<SendResult>(const ReportProgress& report, const std::atomic<bool>& stop)>;

  SendTask(Run run, Clock& clock);
  ~SendTask();  // request_stop() and wait
  SendTask(const SendTask&) = delete;
  SendTask& operator=(const SendTask&) = delete;

  void request_stop() noexcept { stop_ = true; }
  // Blocks until the thread ended; nothing is written after that.
  void wait();

  struct View {
    TransferProgress progress;
    std::optional<Result<SendResult>> ended;
  };
  View look() const;
  // When it ended, by the clock given; nothing while it runs.
  std::optional<Clock::Duration> ended_at() const;

 private:
  Clock& clock_;
  std::atomic<bool> stop_{false};
  mutable std::mutex mutex_;
  TransferProgress progress_;
  std::optional<Result<SendResult>> ended_;
  std::optional<Clock::Duration> ended_at_;
  std::mutex join_mutex_;
  std::thread thread_;
};

}  // namespace backhaul
