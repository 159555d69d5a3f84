#include "control/agents/send_task.h"

namespace backhaul {

SendTask::SendTask(Run run, Clock& clock) : clock_(clock) {
  thread_ = std::thread([this, run = std::move(run)] {
    const auto note = [this](const TransferProgress& progress) {
      const std::lock_guard lock(mutex_);
      progress_ = progress;
    };
    auto result = run(note, stop_);
    const std::lock_guard lock(mutex_);
    ended_ = std::move(result);
    ended_at_ = clock_.now();
  });
}

SendTask::~SendTask() {
  request_stop();
  wait();
}

void SendTask::wait() {
  const std::lock_guard lock(join_mutex_);
  if (thread_.joinable()) thread_.join();
}

SendTask::View SendTask::look() const {
  const std::lock_guard lock(mutex_);
  return {progress_, ended_};
}

std::optional<Clock::Duration> SendTask::ended_at() const {
  const std::lock_guard lock(mutex_);
  return ended_at_;
}

}  // namespace backhaul
