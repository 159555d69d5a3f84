// A peer by script, in one thread: what it sends and when, how much it takes, and when it goes. The clock moves only
// while somebody waits for it: each read or write that would block is a second.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <functional>
#include <string>
#include <string_view>

#include "base/world.h"
#include "transport/stream/stream.h"
#include "transport/stream/transport_error.h"

namespace backhaul::test {

class TickingClock final : public Clock {
 public:
  Duration now() const override { return Duration(now_.load()); }
  std::int64_t unix_time_ms() const override { return 1'800'000'000'000; }
  void sleep_for(Duration duration) override { now_.fetch_add(duration.count()); }
  void tick() { sleep_for(std::chrono::seconds(1)); }

 private:
  std::atomic<std::int64_t> now_{0};
};

class ScriptStream final : public ByteStream {
 public:
  // What the server sends goes to `output`, which outlives the stream.
  ScriptStream(TickingClock& clock, std::string& output) : clock_(clock), output_(output) {}

  ScriptStream& send(std::string_view bytes) {
    steps_.push_back({std::string(bytes), 0});
    return *this;
  }
  // One byte a second.
  ScriptStream& drip(std::string_view bytes) {
    for (const char c : bytes) send(std::string_view(&c, 1)).wait(1);
    return *this;
  }
  ScriptStream& wait(unsigned seconds) {
    steps_.push_back({{}, seconds});
    return *this;
  }
  // After the script: stay connected and silent (else the peer closes).
  ScriptStream& stay() {
    stay_ = true;
    return *this;
  }
  ScriptStream& take_at_most(std::size_t bytes) {
    room_ = bytes;
    return *this;
  }
  void on_output(std::function<void(const std::string&)> seen) { seen_ = std::move(seen); }

  Result<std::size_t> read_some(MutableBytes into) override {
    while (!steps_.empty()) {
      auto& step = steps_.front();
      if (step.seconds > 0) {
        --step.seconds;
        clock_.tick();
        return std::size_t{0};
      }
      const auto count = std::min(into.size(), step.bytes.size());
      std::memcpy(into.data(), step.bytes.data(), count);
      step.bytes.erase(0, count);
      if (step.bytes.empty()) steps_.pop_front();
      if (count > 0) return count;
    }
    if (!stay_) return make_error(TransportErrc::closed, "the scripted peer closed");
    clock_.tick();
    return std::size_t{0};
  }
  Result<std::size_t> write_some(Bytes from) override {
    const auto count = std::min(from.size(), room_);
    room_ -= room_ == SIZE_MAX ? 0 : count;
    output_.append(reinterpret_cast<const char*>(from.data()), count);
    if (count == 0) clock_.tick();
    if (seen_) seen_(output_);
    return count;
  }
  Result<bool> flush() override { return true; }
  PollHandle poll_handle() const noexcept override { return -1; }
  bool has_buffered_input() const noexcept override { return true; }
  void close() noexcept override { output_ += "[closed]"; }
  std::uint64_t wire_bytes_sent() const noexcept override { return output_.size(); }
  std::uint64_t wire_bytes_received() const noexcept override { return 0; }
  std::string peer_name() const override { return "scripted"; }

 private:
  struct Step {
    std::string bytes;
    unsigned seconds = 0;
  };
  TickingClock& clock_;
  std::string& output_;
  std::deque<Step> steps_;
  std::size_t room_ = SIZE_MAX;
  bool stay_ = false;
  std::function<void(const std::string&)> seen_;
};

}  // namespace backhaul::test
