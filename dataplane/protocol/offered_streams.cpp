#include "dataplane/protocol/offered_streams.h"

#include <array>

#include "dataplane/protocol/engine_error.h"

namespace backhaul {
namespace {

// Nothing may come before our hello: neither an end nor bytes.
bool waits_quietly(ByteStream& stream) {
  std::array<std::byte, 1> unasked;
  const auto got = stream.read_some(unasked);
  return got && *got == 0;
}

}  // namespace

bool is_refused_offer(const Error& error) noexcept {
  return error.is(EngineErrc::offer_unknown) || error.is(EngineErrc::offer_full);
}

void OfferedStreams::expect(const std::string& id, const std::string& peer) {
  const std::lock_guard lock(mutex_);
  names_[id].peer = peer;
}

void OfferedStreams::withdraw(const std::string& id) {
  Name gone;
  {
    const std::lock_guard lock(mutex_);
    const auto found = names_.find(id);
    if (found == names_.end()) return;
    gone = std::move(found->second);
    names_.erase(found);
    changed_.notify_all();
  }
  for (const auto& stream : gone.waiting) stream->close();
}

void OfferedStreams::drop_dead(Name& name, Dropped& dropped) {
  for (auto it = name.waiting.begin(); it != name.waiting.end();) {
    if (waits_quietly(**it)) {
      ++it;
      continue;
    }
    dropped.push_back(std::move(*it));
    it = name.waiting.erase(it);
  }
}

Result<std::unique_ptr<ByteStream>> OfferedStreams::dial(const std::string& id, std::chrono::milliseconds timeout) {
  Dropped dropped;  // closed after the lock is released
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  auto result = [&]() -> Result<std::unique_ptr<ByteStream>> {
    std::unique_lock lock(mutex_);
    while (true) {
      const auto found = names_.find(id);
      if (found == names_.end()) return make_error(EngineErrc::offer_withdrawn, "name " + id);
      auto& waiting = found->second.waiting;
      while (!waiting.empty()) {
        auto stream = std::move(waiting.front());
        waiting.pop_front();
        if (waits_quietly(*stream)) return stream;
        dropped.push_back(std::move(stream));
      }
      if (changed_.wait_until(lock, deadline) == std::cv_status::timeout) {
        const auto again = names_.find(id);
        if (again == names_.end() || again->second.waiting.empty())
          return make_error(EngineErrc::offer_none, "name " + id);
      }
    }
  }();
  for (const auto& stream : dropped) stream->close();
  return result;
}

Result<void> OfferedStreams::offer(const std::string& id, const std::string& peer,
                                   const std::function<std::unique_ptr<ByteStream>()>& take) {
  Dropped dropped;
  auto result = [&]() -> Result<void> {
    const std::lock_guard lock(mutex_);
    const auto found = names_.find(id);
    // Who may not offer learns no more than who has the wrong name.
    if (found == names_.end() || (!found->second.peer.empty() && found->second.peer != peer))
      return make_error(EngineErrc::offer_unknown, "name " + id + ", offered by " + peer);
    auto& name = found->second;
    if (name.waiting.size() >= kMaxOfferedStreams) drop_dead(name, dropped);
    if (name.waiting.size() >= kMaxOfferedStreams)
      return make_error(EngineErrc::offer_full, "name " + id + ", " + std::to_string(name.waiting.size()) + " wait");
    name.waiting.push_back(take());
    changed_.notify_all();
    return {};
  }();
  for (const auto& stream : dropped) stream->close();
  return result;
}

}  // namespace backhaul
