#include "control/agents/send_task.h"

namespace backhaul {
namespace {

constexpr std::chrono::seconds kRateWindow{5};

}  // namespace

SendTask::SendTask(Run run, Clock& clock) : clock_(clock) {
  thread_ = std::thread([this, run = std::move(run)] {
    auto result = run([this](Progress progress) { note(std::move(progress)); }, stop_);
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

void SendTask::note(Progress progress) {
  const std::lock_guard lock(mutex_);
  const auto now = clock_.now();
  // A window that restarts when it is full, and when the transfer starts anew.
  if (rate_from_.count() == 0 || progress.bytes_done < rate_bytes_) {
    rate_from_ = now;
    rate_bytes_ = progress.bytes_done;
  }
  const auto elapsed = now - rate_from_;
  progress.bytes_per_s = progress_.bytes_per_s;
  if (elapsed >= std::chrono::milliseconds(200))
    progress.bytes_per_s =
        static_cast<double>(progress.bytes_done - rate_bytes_) / std::chrono::duration<double>(elapsed).count();
  if (elapsed >= kRateWindow) {
    rate_from_ = now;
    rate_bytes_ = progress.bytes_done;
  }
  progress_ = std::move(progress);
}

SendTask::View SendTask::look() const {
  const std::lock_guard lock(mutex_);
  return {progress_, ended_};
}

std::optional<Clock::Duration> SendTask::ended_at() const {
  const std::lock_guard lock(mutex_);
  return ended_at_;
}

std::function<void(const SendProgress&)> progress_of(const SendTask::Report& report) {
  return [report](const SendProgress& seen) {
    SendTask::Progress progress;
    progress.phase = std::string(seen.phase);
    progress.bytes_done = seen.bytes_done;
    progress.bytes_total = seen.bytes_total;
    progress.payload_bytes = seen.payload_bytes;
    progress.detail = seen.detail;
    report(std::move(progress));
  };
}

}  // namespace backhaul
