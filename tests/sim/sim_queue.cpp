// IoQueue over simulated files. The queue performs a request in any order, inside some wait() after it was made. Until
// then a read's memory holds rubbish, and a write takes what its memory holds at that moment: reuse before the
// completion shows.
#include <sys/poll.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "sim/sim_state.h"

namespace backhaul::sim {
namespace {

constexpr int kRubbish = 0xdb;
constexpr Clock::Duration kHandlelessPause = std::chrono::microseconds(50);

class SimQueue final : public IoQueue, public PendingWrites {
 public:
  SimQueue(std::shared_ptr<SimState> state, unsigned depth)
      : state_(std::move(state)), capacity_(depth), random_(start_seed()), generation_(state_->generation) {
    state_->queues.insert(this);
  }
  ~SimQueue() override {
    // As in the kernel: requests under way end before the memory goes, the others are dropped.
    const std::lock_guard lock(state_->mutex);
    begin_pending_writes(random_);
    state_->queues.erase(this);
  }

  void register_memory(MutableBytes) override {}
  void read(File& file, std::uint64_t offset, MutableBytes into, std::uint64_t tag) override {
    start({Kind::read, nullptr, nullptr, offset, into.data(), into.size(), tag, 0}, file);
  }
  void write(File& file, std::uint64_t offset, Bytes from, std::uint64_t tag) override {
    start({Kind::write, nullptr, nullptr, offset, const_cast<std::byte*>(from.data()), from.size(), tag, 0}, file);
  }
  void sync(File& file, std::uint64_t tag) override {
    start({Kind::sync, nullptr, nullptr, 0, nullptr, 0, tag, 0}, file);
  }

  unsigned in_flight() const noexcept override { return in_flight_; }
  unsigned capacity() const noexcept override { return capacity_; }
  Result<std::span<const Completion>> wait(const PollRequest* poll, Clock::Duration timeout) override;

  void begin_pending_writes(SimRandom& random) override;

 private:
  enum class Kind { read, write, sync };
  struct Request {
    Kind kind = Kind::read;
    SimFile* file = nullptr;
    std::shared_ptr<Node> node;  // a file may go before the queue, as on Linux
    std::uint64_t offset = 0;
    std::byte* data = nullptr;
    std::uint64_t length = 0, tag = 0;
    int error = 0;
  };

  std::uint64_t start_seed() { return state_->options.seed * 1000003 + ++state_->queues_made; }
  void start(Request request, File& file);
  Completion execute(Request& request);
  void finish_some();

  const std::shared_ptr<SimState> state_;
  const unsigned capacity_;
  SimRandom random_;
  const std::uint64_t generation_;
  std::vector<Request> pending_;
  std::vector<Completion> returned_;
  unsigned in_flight_ = 0;
};

void SimQueue::start(Request request, File& file) {
  assert(in_flight_ < capacity_);
  auto* native = dynamic_cast<SimFile*>(&file.native());
  assert(native != nullptr && native->state() == state_ && "a simulated queue takes files of its own storage only");
  const std::lock_guard lock(state_->mutex);
  request.file = native;
  request.node = native->node();
  request.error = state_->enter(std::min(generation_, native->generation()));
  const std::uint64_t size = request.node->live.size();
  if (request.kind == Kind::write && request.error == 0) {
    if (!native->writable()) request.error = EBADF;
    if (request.offset > size || request.length > size - request.offset) request.error = EINVAL;
  }
  if (request.kind == Kind::read && request.length != 0) std::memset(request.data, kRubbish, request.length);
  ++in_flight_;
  pending_.push_back(std::move(request));
}

Completion SimQueue::execute(Request& request) {
  Node& node = *request.node;
  int error = request.error;
  std::uint64_t bytes = request.length;
  if (request.kind == Kind::sync) {
    error = request.file->sync_now(error);
  } else if (error == 0 && request.kind == Kind::write && bytes != 0) {
    error = state_->change(node, {Change::Kind::write, request.offset, bytes, {request.data, request.data + bytes}});
  } else if (error == 0 && request.kind == Kind::read) {
    const std::uint64_t size = node.live.size();
    bytes = request.offset >= size ? 0 : std::min(bytes, size - request.offset);
    error = state_->check_read(node, request.offset, bytes);
    if (error == 0) {
      node.live.read(bytes == 0 ? 0 : request.offset, {request.data, bytes});
      state_->counters.bytes_read += bytes;
      ++state_->counters.reads;
    }
  }
  return {request.tag, error, error == 0 ? static_cast<std::uint32_t>(bytes) : 0};
}

void SimQueue::finish_some() {
  const std::uint64_t count = 1 + random_.below(pending_.size());
  for (std::uint64_t i = 0; i < count; ++i) {
    std::swap(pending_[random_.below(pending_.size())], pending_.back());
    returned_.push_back(execute(pending_.back()));
    pending_.pop_back();
  }
  in_flight_ = static_cast<unsigned>(pending_.size());
}

void SimQueue::begin_pending_writes(SimRandom& random) {
  for (auto& request : pending_)
    if (request.kind == Kind::write && request.error == 0 && random.one_in(2)) (void)execute(request);
  pending_.clear();
  in_flight_ = 0;
}

Result<std::span<const Completion>> SimQueue::wait(const PollRequest* poll, Clock::Duration timeout) {
  returned_.clear();
  const bool polling = poll != nullptr && (poll->readable || poll->writable);
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->dead || generation_ != state_->generation)
      return Error::from_errno(EIO, "wait for I/O, the simulated power is off");
    // Sometimes no completion is there yet: a look finds nothing, and a ready stream comes first.
    const bool may_be_empty = timeout <= Clock::Duration::zero() || (polling && poll->handle < 0);
    if (!pending_.empty() && !(may_be_empty && random_.one_in(4))) {
      finish_some();
      return std::span<const Completion>(returned_);
    }
    if (!pending_.empty()) return std::span<const Completion>();
  }
  if (timeout <= Clock::Duration::zero()) return std::span<const Completion>();
  Clock& clock = state_->options.clock != nullptr ? *state_->options.clock : system_clock();
  if (polling && poll->handle >= 0) {
    pollfd one{static_cast<int>(poll->handle), 0, 0};
    if (poll->readable) one.events |= POLLIN;
    if (poll->writable) one.events |= POLLOUT;
    const auto timeout_ms = std::chrono::ceil<std::chrono::milliseconds>(timeout).count();
    (void)::poll(&one, 1, static_cast<int>(std::min<std::int64_t>(timeout_ms, 3'600'000)));
    if ((one.revents & POLLNVAL) != 0) return Error::from_errno(EBADF, "poll a stream");
  } else {
    clock.sleep_for(polling ? std::min(timeout, kHandlelessPause) : timeout);
  }
  return std::span<const Completion>();
}

}  // namespace

std::unique_ptr<IoQueue> make_sim_queue(std::shared_ptr<SimState> state, unsigned depth) {
  const std::lock_guard lock(state->mutex);
  return std::make_unique<SimQueue>(state, depth);
}

}  // namespace backhaul::sim
