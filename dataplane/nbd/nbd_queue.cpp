// IoQueue over one NBD connection. A request becomes parts, each within the server's block sizes; its last part makes
// the completion. Parts complete in whatever thread serves the socket, so what they share stands under a mutex, which
// is never held while libnbd is called (libnbd calls back with its own lock held).
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <mutex>
#include <vector>

#include "dataplane/nbd/nbd.h"
#include "dataplane/nbd/nbd_connection.h"
#include "dataplane/protocol/transfer.h"

namespace backhaul {
namespace {

class NbdQueue final : public IoQueue {
 public:
  explicit NbdQueue(std::shared_ptr<NbdConnection> connection)
      : connection_(std::move(connection)), requests_(kLaneQueueDepth) {
    for (unsigned i = capacity(); i > 0; --i) free_.push_back(i - 1);
    finished_.reserve(capacity());
    taken_.reserve(capacity());
    returned_.reserve(capacity());
  }
  // The caller gets its memory back: a connection that could still fill it is ended.
  ~NbdQueue() override {
    collect();
    if (in_flight_ > 0) connection_->end();
  }
  Result<void> open() { return signal_.open(); }

  void register_memory(MutableBytes) override {}
  void read(File& file, std::uint64_t offset, MutableBytes into, std::uint64_t tag) override;
  void write(File&, std::uint64_t, Bytes, std::uint64_t tag) override { refuse(tag); }
  void sync(File&, std::uint64_t tag) override { refuse(tag); }
  unsigned in_flight() const noexcept override { return in_flight_; }
  unsigned capacity() const noexcept override { return static_cast<unsigned>(requests_.size()); }
  Result<std::span<const Completion>> wait(const PollRequest* poll, Clock::Duration timeout) override;

 private:
  struct Request {
    NbdQueue* queue = nullptr;
    unsigned slot = 0;
    std::uint64_t tag = 0;
    MutableBytes into;       // cut at the export's end
    AlignedBuffer around;    // where the request is not aligned to the server's blocks: what is really read
    std::uint64_t skip = 0;  // of it
    std::uint64_t parts_left = 0;
    int error = 0;
  };

  Request& take_slot(std::uint64_t tag);
  void refuse(std::uint64_t tag);
  void issue(Request& request, std::uint64_t offset, MutableBytes into);
  void part_done(Request& request, int error);
  static int on_completion(void* request, int* error);
  bool collect();

  const std::shared_ptr<NbdConnection> connection_;
  NbdSignal signal_;
  std::vector<Request> requests_;
  std::vector<unsigned> free_;
  std::vector<Completion> returned_;
  std::vector<unsigned> taken_;
  unsigned in_flight_ = 0;
  Clock::Duration last_reply_{0};
  std::mutex mutex_;
  std::vector<unsigned> finished_;  // slots
};

Clock::Duration steady_now() { return std::chrono::steady_clock::now().time_since_epoch(); }

NbdQueue::Request& NbdQueue::take_slot(std::uint64_t tag) {
  assert(in_flight_ < capacity() && !free_.empty());
  if (in_flight_ == 0) last_reply_ = steady_now();
  const unsigned slot = free_.back();
  free_.pop_back();
  ++in_flight_;
  auto& request = requests_[slot];
  request = Request{};
  request.queue = this;
  request.slot = slot;
  request.tag = tag;
  request.parts_left = 1;
  return request;
}

void NbdQueue::refuse(std::uint64_t tag) { part_done(take_slot(tag), EROFS); }

void NbdQueue::read(File& file, std::uint64_t offset, MutableBytes into, std::uint64_t tag) {
  assert(file.size() == connection_->size() && "a queue of an export takes that export only");
  auto& request = take_slot(tag);
  const auto size = file.size();
  request.into = into.first(std::min<std::uint64_t>(into.size(), size - std::min(size, offset)));
  if (request.into.empty()) return part_done(request, 0);
  const auto unit = connection_->minimum_block();
  const auto begin = align_down(offset, unit);
  const auto end = std::min(align_up(offset + request.into.size(), unit), size);
  if (begin == offset && end == offset + request.into.size()) return issue(request, offset, request.into);
  request.skip = offset - begin;
  request.around = AlignedBuffer(end - begin);
  issue(request, begin, request.around.span());
}

void NbdQueue::issue(Request& request, std::uint64_t offset, MutableBytes into) {
  const auto most = connection_->maximum_block();
  // Counts one more than there are, so that the request cannot end (and be reused) before all are issued.
  const auto parts = div_up(into.size(), most);
  {
    const std::lock_guard lock(mutex_);
    request.parts_left = parts + 1;
  }
  for (std::uint64_t done = 0; done < into.size(); done += most) {
    const auto part = into.subspan(done, std::min<std::uint64_t>(most, into.size() - done));
    const nbd_completion_callback completion{&NbdQueue::on_completion, &request, nullptr};
    if (nbd_aio_pread(connection_->handle(), part.data(), part.size(), offset + done, completion, 0) >= 0) continue;
    const int error = nbd_get_errno();
    part_done(request, error == 0 ? ENOTCONN : error);
  }
  part_done(request, 0);
}

int NbdQueue::on_completion(void* request, int* error) {
  auto& self = *static_cast<Request*>(request);
  self.queue->part_done(self, *error);
  return 1;  // libnbd forgets the command
}

void NbdQueue::part_done(Request& request, int error) {
  const std::lock_guard lock(mutex_);
  if (error != 0) request.error = error;
  if (--request.parts_left > 0) return;
  finished_.push_back(request.slot);
  signal_.set();
}

// Makes completions of what is finished; false when nothing is.
bool NbdQueue::collect() {
  taken_.clear();
  {
    const std::lock_guard lock(mutex_);
    std::swap(taken_, finished_);
    if (!taken_.empty()) signal_.clear();
  }
  returned_.clear();
  for (const auto slot : taken_) {
    auto& request = requests_[slot];
    if (request.error == 0 && request.around.size() != 0)
      std::copy_n(request.around.data() + request.skip, request.into.size(), request.into.data());
    const auto bytes = request.error == 0 ? static_cast<std::uint32_t>(request.into.size()) : 0;
    returned_.push_back({request.tag, request.error, bytes});
    request.around = AlignedBuffer();
    free_.push_back(slot);
    --in_flight_;
  }
  if (!taken_.empty()) last_reply_ = steady_now();
  return !taken_.empty();
}

Result<std::span<const Completion>> NbdQueue::wait(const PollRequest* poll, Clock::Duration timeout) {
  const auto deadline = steady_now() + timeout;
  // The first round only looks.
  for (auto look = Clock::Duration::zero();; look = std::max(deadline - steady_now(), Clock::Duration::zero())) {
    auto woken = connection_->drive(signal_, poll, look);
    bool ready = woken.poll;
    for (unsigned i = 1; i < capacity() && woken.moved; ++i) {  // all replies that are there
      woken = connection_->drive(signal_, poll, Clock::Duration::zero());
      ready |= woken.poll;
    }
    const bool some = collect();
    if (connection_->dead()) return connection_->failure();
    const auto now = steady_now();
    if (some || ready || now >= deadline) return std::span<const Completion>(returned_);
    if (poll != nullptr && poll->handle < 0 && look > Clock::Duration::zero()) return std::span<const Completion>();
    if (in_flight_ > 0 && now - last_reply_ > connection_->timeouts().reply) {
      connection_->end();
      collect();
      return make_error(NbdErrc::silent, fmt::format("{}: no answer in {} s", connection_->name(),
                                                     connection_->timeouts().reply.count()));
    }
  }
}

}  // namespace

Result<std::unique_ptr<IoQueue>> make_nbd_queue(std::shared_ptr<NbdConnection> connection) {
  auto queue = std::make_unique<NbdQueue>(std::move(connection));
  BH_RETURN_IF_ERROR(queue->open());
  return std::unique_ptr<IoQueue>(std::move(queue));
}

}  // namespace backhaul
