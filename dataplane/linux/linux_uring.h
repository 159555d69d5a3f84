// One io_uring and the memory registered with it; internal to its room. Used by one thread: the first that
// submits.
#pragma once

#include <liburing.h>

#include <array>
#include <cstdint>
#include <vector>

#include "base/buffer.h"
#include "base/error.h"

namespace backhaul {

// For the thread sanitizer, called after a ring is made and before it is closed. A new ring may get the address of one
// that another thread unmapped. The kernel orders the two, but liburing's system calls are invisible to the sanitizer,
// which would report a race.
void note_ring_made() noexcept;
void note_ring_closed() noexcept;

class Uring {
 public:
  Uring() = default;
  Uring(const Uring&) = delete;
  Uring& operator=(const Uring&) = delete;
  ~Uring();

  // Error: IoErrc::uring_unavailable.
  Result<void> open(unsigned entries);
  // The ring starts disabled, so that the thread that uses it, not the one that made it, becomes its single issuer.
  Result<void> enable();
  io_uring* get() noexcept { return &ring_; }

  // Memory that the kernel refuses to lock stays unregistered, which is logged once.
  void register_memory(MutableBytes memory);
  // The index of the registered buffer that holds all of [data, data + length), or -1.
  int buffer_index(const std::byte* data, std::size_t length) const noexcept;

  // The index of descriptor `fd` in the ring's table of registered files (entered at first use), or -1 where there is
  // none. REQUIRES: `key` is never used for another descriptor, so that a reused number is not taken for the old file.
  // The ring holds a registered file open until it ends, or until kMaxFiles others have come: a queue must end before
  // whoever needs the file closed goes on (docs of make_uring_queue).
  static constexpr unsigned kMaxFiles = 8;
  int file_index(std::uint64_t key, int fd) noexcept;

 private:
  bool register_part(MutableBytes part);

  io_uring ring_{};
  bool open_ = false;
  bool disabled_ = false;
  enum class Buffers { untried, ready, unavailable };
  Buffers buffers_ = Buffers::untried;
  std::vector<MutableBytes> registered_;
  enum class Files { untried, ready, unavailable };
  Files files_ = Files::untried;
  std::array<std::uint64_t, kMaxFiles> file_keys_{};  // 0: empty
  unsigned next_file_ = 0;
};

}  // namespace backhaul
