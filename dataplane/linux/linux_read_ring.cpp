#include "dataplane/linux/linux_read_ring.h"

#include <cerrno>
#include <thread>

#include "dataplane/linux/linux_uring.h"

namespace backhaul {

std::unique_ptr<ReadRing> ReadRing::make() {
  std::unique_ptr<ReadRing> made(new ReadRing);
  if (io_uring_queue_init(kDepth, &made->ring_, 0) != 0) {
    made->ring_.ring_fd = -1;
    return nullptr;
  }
  note_ring_made();
  return made;
}

ReadRing::~ReadRing() {
  if (ring_.ring_fd < 0) return;
  note_ring_closed();
  io_uring_queue_exit(&ring_);
}

// Takes a completion that is there; false when there is none.
bool ReadRing::take_one(std::span<const ReadPart> parts) {
  io_uring_cqe* cqe = nullptr;
  if (io_uring_peek_cqe(&ring_, &cqe) != 0) return false;
  const auto part = io_uring_cqe_get_data64(cqe);
  whole_[part] = cqe->res >= 0 && static_cast<std::size_t>(cqe->res) == parts[part].into.size();
  io_uring_cqe_seen(&ring_, cqe);
  return true;
}

void ReadRing::read(int fd, std::span<const ReadPart> parts) {
  whole_.assign(parts.size(), false);
  std::size_t next = 0, in_flight = 0;
  while (next < parts.size() || in_flight > 0) {
    while (next < parts.size() && in_flight < kDepth) {
      io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
      if (sqe == nullptr) break;
      const auto into = parts[next].into;
      io_uring_prep_read(sqe, fd, into.data(), static_cast<unsigned>(into.size()), parts[next].offset);
      io_uring_sqe_set_data64(sqe, next);
      ++next;
      ++in_flight;
    }
    // The kernel holds the caller's memory: whatever it answers, this goes on until all has come back.
    if (const int result = io_uring_submit_and_wait(&ring_, 1); result < 0 && result != -EINTR)
      std::this_thread::yield();
    while (take_one(parts)) --in_flight;
  }
}

}  // namespace backhaul
