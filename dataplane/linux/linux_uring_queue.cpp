// IoQueue by io_uring. A request is a position that moves forward, with one SQE in the kernel at any time.
// submit_next() chooses each SQE by the position: the buffered descriptor up to the next whole page and for a last part
// of one, the direct descriptor for whole pages. Short transfers, unaligned heads and tails are thus one case.
#include <spdlog/spdlog.h>
#include <sys/poll.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <chrono>

#include "dataplane/linux/linux_file.h"
#include "dataplane/linux/linux_storage.h"
#include "dataplane/linux/linux_uring.h"

namespace backhaul {
namespace {

constexpr unsigned kMaxDepth = 4096;
// SQEs beside the requests': the poll and its removal.
constexpr unsigned kExtraEntries = 2;
// The kernel moves at most 2 GiB a request; a multiple of every alignment.
constexpr std::uint64_t kMaxPartBytes = kGiB;
// EAGAIN in a row before it is believed.
constexpr unsigned kMaxAttempts = 64;

constexpr std::uint64_t kPollData = ~std::uint64_t{0};
constexpr std::uint64_t kPollRemoveData = kPollData - 1;

constexpr Clock::Duration kLongestWait = std::chrono::hours(24);
// A stream without a handle is asked again this often.
constexpr Clock::Duration kHandlelessPause = std::chrono::milliseconds(1);

class UringQueue final : public IoQueue {
 public:
  explicit UringQueue(unsigned depth) : requests_(depth) {
    for (unsigned i = depth; i > 0; --i) free_.push_back(i - 1);
    finished_.reserve(depth);
    returned_.reserve(depth);
  }
  ~UringQueue() override;
  Result<void> open() { return uring_.open(capacity() + kExtraEntries); }

  void register_memory(MutableBytes memory) override { uring_.register_memory(memory); }
  void read(File& file, std::uint64_t offset, MutableBytes into, std::uint64_t tag) override;
  void write(File& file, std::uint64_t offset, Bytes from, std::uint64_t tag) override;
  void sync(File& file, std::uint64_t tag) override;
  unsigned in_flight() const noexcept override { return in_flight_; }
  unsigned capacity() const noexcept override { return static_cast<unsigned>(requests_.size()); }
  Result<std::span<const Completion>> wait(const PollRequest* poll, Clock::Duration timeout) override;

 private:
  enum class Kind : std::uint8_t { read, write, sync };
  struct Request {
    Kind kind = Kind::read;
    bool direct = false;  // how the part in the kernel was asked for
    bool never_direct = false;
    unsigned attempts = 0;
    LinuxFile* file = nullptr;
    std::uint64_t offset = 0;
    std::byte* data = nullptr;  // written to by reads only
    std::uint64_t length = 0, done = 0;
    std::uint64_t tag = 0;
  };

  void start(Kind kind, File& file, std::uint64_t offset, std::byte* data, std::uint64_t length, std::uint64_t tag);
  void submit_next(unsigned slot);
  void prepare_part(io_uring_sqe* sqe, Request& request);
  void finish(unsigned slot, int error);
  void advance(unsigned slot, int result);
  io_uring_sqe* take_sqe() noexcept;
  void reap();
  Result<void> look();
  Result<void> block_until(Clock::Duration deadline);
  void arm_poll(const PollRequest& poll);
  Result<void> disarm_poll();
  Result<std::span<const Completion>> give_back();

  Uring uring_;
  std::vector<Request> requests_;
  std::vector<unsigned> free_;
  std::vector<Completion> finished_, returned_;
  unsigned in_flight_ = 0;    // requests not yet returned
  unsigned outstanding_ = 0;  // SQEs whose CQE has not been seen, the poll's among them
  bool poll_armed_ = false;
  int poll_result_ = 0;
};

Clock::Duration steady_now() { return std::chrono::steady_clock::now().time_since_epoch(); }

// Passing errors of io_uring_enter: the call is made again.
bool passing(int result) { return result == -EINTR || result == -EAGAIN || result == -EBUSY; }

UringQueue::~UringQueue() {
  // The kernel must be done with the caller's memory. What was never submitted is dropped.
  io_uring* ring = uring_.get();
  if (poll_armed_) (void)disarm_poll();
  while (outstanding_ > io_uring_sq_ready(ring)) {
    io_uring_cqe* cqe = nullptr;
    const int result = io_uring_wait_cqe(ring, &cqe);
    if (passing(result)) continue;
    if (result < 0) {
      spdlog::critical("io_uring: cannot wait for {} requests in flight: {}", outstanding_,
                       std::error_code(-result, std::generic_category()).message());
      break;
    }
    io_uring_cqe_seen(ring, cqe);
    --outstanding_;
  }
}

void UringQueue::read(File& file, std::uint64_t offset, MutableBytes into, std::uint64_t tag) {
  start(Kind::read, file, offset, into.data(), into.size(), tag);
}

void UringQueue::write(File& file, std::uint64_t offset, Bytes from, std::uint64_t tag) {
  start(Kind::write, file, offset, const_cast<std::byte*>(from.data()), from.size(), tag);
}

void UringQueue::sync(File& file, std::uint64_t tag) { start(Kind::sync, file, 0, nullptr, 0, tag); }

void UringQueue::start(Kind kind, File& file, std::uint64_t offset, std::byte* data, std::uint64_t length,
                       std::uint64_t tag) {
  assert(in_flight_ < capacity() && !free_.empty());
  auto* native = dynamic_cast<LinuxFile*>(&file.native());
  assert(native != nullptr && "a queue of io_uring takes files of linux_storage.h only");
  const unsigned slot = free_.back();
  free_.pop_back();
  ++in_flight_;
  Request& request = requests_[slot];
  request = Request{};
  request.kind = kind;
  request.file = native;
  request.offset = offset;
  request.data = data;
  request.length = length;
  request.tag = tag;
  const std::uint64_t alignment = native->io_alignment();
  // When memory and offset do not reach a boundary together, no part of the request can be direct.
  request.never_direct = native->direct_fd() < 0 || (reinterpret_cast<std::uintptr_t>(data) - offset) % alignment != 0;

  if (kind == Kind::write && (offset > native->size() || length > native->size() - offset)) return finish(slot, EINVAL);
  if (kind == Kind::sync && native->failed_sync() != 0) return finish(slot, native->failed_sync());
  if (kind != Kind::sync && length == 0) return finish(slot, 0);
  submit_next(slot);
}

io_uring_sqe* UringQueue::take_sqe() noexcept {
  io_uring_sqe* sqe = io_uring_get_sqe(uring_.get());
  // One entry for each request and kExtraEntries: there is always room.
  assert(sqe != nullptr);
  ++outstanding_;
  return sqe;
}

void UringQueue::submit_next(unsigned slot) {
  Request& request = requests_[slot];
  io_uring_sqe* sqe = take_sqe();
  if (request.kind == Kind::sync) {
    io_uring_prep_fsync(sqe, request.file->buffered_fd(), IORING_FSYNC_DATASYNC);
    request.direct = false;
  } else {
    prepare_part(sqe, request);
  }
  const std::uint64_t key = request.file->id() * 2 + (request.direct ? 1 : 0);
  if (const int index = uring_.file_index(key, sqe->fd); index >= 0) {
    sqe->fd = index;
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
  }
  io_uring_sqe_set_data64(sqe, slot);
}

void UringQueue::prepare_part(io_uring_sqe* sqe, Request& request) {
  const std::uint64_t alignment = request.file->io_alignment();
  const std::uint64_t at = request.offset + request.done;
  std::uint64_t length = std::min(request.length - request.done, kMaxPartBytes);
  request.direct = !request.never_direct && at % alignment == 0 && length >= alignment;
  if (request.direct)
    length = align_down(length, alignment);
  else if (!request.never_direct)
    length = std::min(length, align_up(at + 1, alignment) - at);

  // The page cache may differ from the device: clean pages are dropped before a read.
  if (request.kind == Kind::read && !request.direct) request.file->drop_cache(at, length);

  const int fd = request.direct ? request.file->direct_fd() : request.file->buffered_fd();
  std::byte* data = request.data + request.done;
  const auto bytes = static_cast<unsigned>(length);
  const int buffer = uring_.buffer_index(data, length);
  if (request.kind == Kind::read) {
    if (buffer >= 0)
      io_uring_prep_read_fixed(sqe, fd, data, bytes, at, buffer);
    else
      io_uring_prep_read(sqe, fd, data, bytes, at);
  } else {
    if (buffer >= 0)
      io_uring_prep_write_fixed(sqe, fd, data, bytes, at, buffer);
    else
      io_uring_prep_write(sqe, fd, data, bytes, at);
  }
}

void UringQueue::finish(unsigned slot, int error) {
  const Request& request = requests_[slot];
  if (request.kind == Kind::sync && error != 0) request.file->remember_failed_sync(error);
  const auto bytes = error == 0 ? static_cast<std::uint32_t>(request.done) : 0;
  finished_.push_back({request.tag, error, bytes});
  free_.push_back(slot);
}

void UringQueue::advance(unsigned slot, int result) {
  Request& request = requests_[slot];
  if ((result == -EINTR || result == -EAGAIN) && ++request.attempts < kMaxAttempts) return submit_next(slot);
  if (result == -EINVAL && request.direct) {
    // The file system took O_DIRECT at open and refuses this request: the page cache takes it.
    request.never_direct = true;
    return submit_next(slot);
  }
  if (result < 0) return finish(slot, -result);
  if (request.kind == Kind::sync) return finish(slot, 0);
  if (result == 0) return finish(slot, request.kind == Kind::read ? 0 : EIO);
  request.attempts = 0;
  request.done += static_cast<std::uint64_t>(result);
  const bool ended = request.kind == Kind::read && request.offset + request.done >= request.file->size();
  if (request.done == request.length || ended) return finish(slot, 0);
  submit_next(slot);
}

void UringQueue::reap() {
  io_uring* ring = uring_.get();
  io_uring_cqe* cqe = nullptr;
  while (io_uring_peek_cqe(ring, &cqe) == 0) {
    const std::uint64_t data = io_uring_cqe_get_data64(cqe);
    const int result = cqe->res;
    io_uring_cqe_seen(ring, cqe);
    --outstanding_;
    if (data == kPollData) {
      poll_armed_ = false;
      poll_result_ = result;
    } else if (data != kPollRemoveData) {
      advance(static_cast<unsigned>(data), result);
    }
  }
}

// Submits and takes what is there, without waiting; goes on while parts follow from what was taken.
Result<void> UringQueue::look() {
  do {
    const int result = io_uring_submit_and_get_events(uring_.get());
    if (result < 0 && !passing(result)) return Error::from_errno(-result, "submit to io_uring");
    reap();
  } while (finished_.empty() && io_uring_sq_ready(uring_.get()) != 0);
  return {};
}

// Until a request finished, the poll fired or the deadline passed.
Result<void> UringQueue::block_until(Clock::Duration deadline) {
  const bool polling = poll_armed_;
  while (finished_.empty() && poll_armed_ == polling) {
    const auto left = deadline - steady_now();
    if (left <= Clock::Duration::zero()) return {};
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
    __kernel_timespec time{seconds.count(), (left - seconds).count()};
    io_uring_cqe* cqe = nullptr;
    const int result = io_uring_submit_and_wait_timeout(uring_.get(), &cqe, 1, &time, nullptr);
    if (result < 0 && result != -ETIME && !passing(result)) return Error::from_errno(-result, "wait for io_uring");
    reap();
  }
  return {};
}

void UringQueue::arm_poll(const PollRequest& poll) {
  unsigned events = 0;
  if (poll.readable) events |= POLLIN;
  if (poll.writable) events |= POLLOUT;
  io_uring_sqe* sqe = take_sqe();
  io_uring_prep_poll_add(sqe, static_cast<int>(poll.handle), events);
  io_uring_sqe_set_data64(sqe, kPollData);
  poll_armed_ = true;
  poll_result_ = 0;
}

// A poll never outlives the wait() that armed it: it holds the descriptor's file open in the kernel, so a socket that
// the caller closes would stay open, and a reused number would be taken for it.
Result<void> UringQueue::disarm_poll() {
  if (!poll_armed_) return {};
  io_uring_sqe* sqe = take_sqe();
  io_uring_prep_poll_remove(sqe, kPollData);
  io_uring_sqe_set_data64(sqe, kPollRemoveData);
  while (poll_armed_) {
    const int result = io_uring_submit_and_wait(uring_.get(), 1);
    if (result < 0 && !passing(result)) return Error::from_errno(-result, "disarm a poll of io_uring");
    reap();
  }
  return {};
}

Result<std::span<const Completion>> UringQueue::give_back() {
  returned_.clear();
  std::swap(finished_, returned_);
  in_flight_ -= static_cast<unsigned>(returned_.size());
  return std::span<const Completion>(returned_);
}

Result<std::span<const Completion>> UringQueue::wait(const PollRequest* poll, Clock::Duration timeout) {
  BH_RETURN_IF_ERROR(uring_.enable());
  const bool polling = poll != nullptr && (poll->readable || poll->writable);
  if (polling && poll->handle < 0) timeout = std::min(timeout, kHandlelessPause);
  const auto deadline = steady_now() + std::clamp(timeout, Clock::Duration::zero(), kLongestWait);

  BH_RETURN_IF_ERROR(disarm_poll());  // armed only when an earlier wait() failed half-way
  poll_result_ = 0;

  // Most waits find something at once, and then the poll costs nothing. Without a poll one call submits and waits.
  if (polling || !finished_.empty() || timeout <= Clock::Duration::zero()) {
    BH_RETURN_IF_ERROR(look());
    if (!finished_.empty()) return give_back();
  }
  // A look returns empty-handed whether the poll is ready or not: no need to ask.
  if (timeout <= Clock::Duration::zero()) return give_back();
  if (polling && poll->handle >= 0) arm_poll(*poll);
  BH_RETURN_IF_ERROR(block_until(deadline));
  BH_RETURN_IF_ERROR(disarm_poll());
  if (poll_result_ < 0 && poll_result_ != -ECANCELED) return Error::from_errno(-poll_result_, "poll a stream");
  return give_back();
}

}  // namespace

Result<std::unique_ptr<IoQueue>> make_uring_queue(const IoQueueOptions& options) {
  if (options.depth == 0 || options.depth > kMaxDepth)
    return make_error(BaseErrc::invalid_argument, "queue depth " + std::to_string(options.depth));
  auto queue = std::make_unique<UringQueue>(options.depth);
  BH_RETURN_IF_ERROR(queue->open());
  return std::unique_ptr<IoQueue>(std::move(queue));
}

}  // namespace backhaul
