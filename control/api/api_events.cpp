// Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): they say what changed, so that
// clients need not poll.
#include <fmt/format.h>
#include <boost/json.hpp>

#include <charconv>
#include <condition_variable>
#include <deque>

#include "control/api/api_context.h"
#include "control/api/api_error.h"

namespace backhaul {
namespace {

constexpr std::size_t kMaxQueued = 1024;  // events that one slow client may lag behind; then it gets a reset
constexpr std::chrono::seconds kHeartbeat{15};
constexpr std::chrono::milliseconds kSlice{200};  // how long a stop or a gone client may go unnoticed

// One of the streams that ApiConfig allows.
class Slot {
 public:
  explicit Slot(std::atomic<unsigned>& count) : count_(count) {}
  ~Slot() { --count_; }
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;

 private:
  std::atomic<unsigned>& count_;
};

std::shared_ptr<Slot> take_slot(ApiContext& context) {
  if (context.streams.fetch_add(1) < context.config.max_event_streams) return std::make_shared<Slot>(context.streams);
  --context.streams;
  return nullptr;
}

// Holds events between the threads that cause them and the stream's thread.
class Mailbox {
 public:
  void post(const Event& event) {
    {
      const std::lock_guard lock(mutex_);
      if (events_.size() >= kMaxQueued) {
        events_.clear();
        lost_ = true;
      }
      events_.push_back(event);
    }
    arrived_.notify_one();
  }
  // Waits up to kSlice for an event. `lost`: some before these are missing.
  std::deque<Event> take(bool& lost) {
    std::unique_lock lock(mutex_);
    arrived_.wait_for(lock, kSlice, [&] { return !events_.empty(); });
    lost = std::exchange(lost_, false);
    return std::exchange(events_, {});
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Event> events_;
  bool lost_ = false;
};

class Subscription {
 public:
  Subscription(Service& service, Mailbox& mailbox)
      : service_(service), id_(service.subscribe([&mailbox](const Event& event) { mailbox.post(event); })) {}
  ~Subscription() { service_.unsubscribe(id_); }
  Subscription(const Subscription&) = delete;
  Subscription& operator=(const Subscription&) = delete;

 private:
  Service& service_;
  const std::uint64_t id_;
};

// The sequence after which a client goes on. Nothing when its id is empty or not from this process; the latter sets
// `foreign`.
std::optional<std::uint64_t> parse_last_id(std::string_view text, std::string_view epoch, bool& foreign) {
  if (text.empty()) return std::nullopt;
  std::uint64_t sequence = 0;
  if (text.starts_with(epoch) && text.substr(epoch.size()).starts_with('-')) {
    const auto digits = text.substr(epoch.size() + 1);
    const auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), sequence);
    if (failed == std::errc() && end == digits.data() + digits.size()) return sequence;
  }
  foreign = true;
  return std::nullopt;
}

class EventStream {
 public:
  EventStream(ApiContext& context, HttpBodyWriter& writer) : context_(context), writer_(writer) {}

  Result<void> run(std::string_view last_id, std::string_view token) {
    Mailbox mailbox;
    const Subscription subscription(context_.service, mailbox);
    BH_RETURN_IF_ERROR(writer_.write("retry: 3000\n\n"));
    BH_RETURN_IF_ERROR(catch_up(last_id));
    auto spoke = context_.clock.now();
    while (!writer_.stopping()) {
      bool lost = false;
      const auto events = mailbox.take(lost);
      if (lost) BH_RETURN_IF_ERROR(reset());
      for (const auto& event : events) BH_RETURN_IF_ERROR(send(event));
      if (context_.clock.now() - spoke < kHeartbeat) continue;
      spoke = context_.clock.now();
      if (!context_.service.authenticate(token)) return {};  // removed or expired meanwhile
      BH_RETURN_IF_ERROR(writer_.write(": still here\n\n"));
    }
    return {};
  }

 private:
  Result<void> catch_up(std::string_view last_id) {
    bool foreign = false;
    const auto last = parse_last_id(last_id, context_.epoch, foreign);
    if (foreign) return reset();
    if (!last) return {};
    const auto missed = context_.service.events_since(*last);
    if (!missed.empty() && missed.front().sequence > *last + 1) return reset();
    sent_ = *last;
    for (const auto& event : missed) BH_RETURN_IF_ERROR(send(event));
    return {};
  }
  Result<void> reset() { return writer_.write("event: reset\ndata: {}\n\n"); }
  Result<void> send(const Event& event) {
    if (event.sequence <= sent_) return {};  // already sent by catch_up()
    sent_ = event.sequence;
    return writer_.write(fmt::format("id: {}-{}\nevent: {}\ndata: {}\n\n", context_.epoch, event.sequence, event.kind,
                                     boost::json::serialize(event_json(event))));
  }

  ApiContext& context_;
  HttpBodyWriter& writer_;
  std::uint64_t sent_ = 0;
};

}  // namespace

Result<HttpResponse> events(ApiContext& context, const ApiCall& call) {
  auto slot = take_slot(context);
  if (!slot) return make_error(ApiErrc::too_many_streams, fmt::format("{} are open", context.config.max_event_streams));
  HttpResponse response;
  response.content_type = "text/event-stream";
  // The stream keeps the token and authenticates it again at each heartbeat.
  response.stream = [&context, slot, last_id = std::string(call.http.header("last-event-id")),
                     token = std::string(call.http.header("authorization").substr(7))](HttpBodyWriter& writer) {
    return EventStream(context, writer).run(last_id, token);
  };
  return response;
}

}  // namespace backhaul
