// Events of this process: each goes to the subscribers, and the last ones are kept for clients that reconnect.
// Thread-safe.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "control/jobs/service.h"

namespace backhaul {

class EventLog {
 public:
  explicit EventLog(std::size_t kept) : kept_(kept) {}

  void add(Event event) {
    std::lock_guard lock(mutex_);
    event.sequence = ++sequence_;
    events_.push_back(event);
    if (events_.size() > kept_) events_.pop_front();
    for (auto& [id, listener] : listeners_) listener(event);
  }
  std::uint64_t subscribe(std::function<void(const Event&)> listener) {
    std::lock_guard lock(mutex_);
    listeners_[++next_id_] = std::move(listener);
    return next_id_;
  }
  void unsubscribe(std::uint64_t id) {
    std::lock_guard lock(mutex_);
    listeners_.erase(id);
  }
  std::vector<Event> since(std::uint64_t sequence) {
    std::lock_guard lock(mutex_);
    std::vector<Event> found;
    for (const auto& event : events_)
      if (event.sequence > sequence) found.push_back(event);
    return found;
  }

 private:
  const std::size_t kept_;
  std::mutex mutex_;
  std::deque<Event> events_;
  std::map<std::uint64_t, std::function<void(const Event&)>> listeners_;
  std::uint64_t sequence_ = 0, next_id_ = 0;
};

}  // namespace backhaul
