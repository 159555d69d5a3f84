#include "dataplane/linux/linux_uring.h"

#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <string>

#include "dataplane/disk/io.h"

namespace backhaul {
namespace {

// A lane registers one region or a few; one entry holds at most 1 GiB (the kernel's limit).
constexpr unsigned kMaxRegions = 64;
constexpr std::size_t kMaxRegionBytes = kGiB;

std::atomic<unsigned> rings_closed{0};

void say_once_without_registration(int number) {
  static std::atomic<bool> said{false};
  if (said.exchange(true)) return;
  spdlog::warn(
      "io_uring buffers are not registered ({}); transfers go on without. Fix: raise the memlock limit "
      "(LimitMEMLOCK=infinity in the unit)",
      std::error_code(number, std::generic_category()).message());
}

bool raise_memlock_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return false;
  limit.rlim_cur = limit.rlim_max;
  return ::setrlimit(RLIMIT_MEMLOCK, &limit) == 0;
}

std::string refusal(int number) {
  std::string text = "io_uring_setup: " + std::error_code(number, std::generic_category()).message();
  if (number == ENOSYS) text += " (the kernel was built without it, or a seccomp profile hides it)";
  if (number == EPERM) text += " (sysctl kernel.io_uring_disabled, or a seccomp profile)";
  if (number == ENOMEM) text += " (the memlock limit is too low for the ring)";
  return text;
}

}  // namespace

void note_ring_made() noexcept { (void)rings_closed.load(std::memory_order_acquire); }
void note_ring_closed() noexcept { rings_closed.fetch_add(1, std::memory_order_release); }

Uring::~Uring() {
  if (!open_) return;
  // The kernel takes the ring down in the background; this closes its files now.
  if (files_ == Files::ready) (void)io_uring_unregister_files(&ring_);
  note_ring_closed();
  io_uring_queue_exit(&ring_);
}

Result<void> Uring::open(unsigned entries) {
  constexpr unsigned kBest = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_R_DISABLED;
  int result = io_uring_queue_init(entries, &ring_, kBest);
  disabled_ = result == 0;
  if (result == -EINVAL) result = io_uring_queue_init(entries, &ring_, 0);
  if (result == -ENOMEM && raise_memlock_limit()) result = io_uring_queue_init(entries, &ring_, 0);
  if (result != 0) return make_error(IoErrc::uring_unavailable, refusal(-result));
  open_ = true;
  note_ring_made();
  if ((ring_.features & IORING_FEAT_EXT_ARG) == 0)
    return make_error(IoErrc::uring_unavailable, "this kernel's io_uring cannot wait with a timeout");
  return {};
}

Result<void> Uring::enable() {
  if (!disabled_) return {};
  // By the raw call: liburing 2.3 declares io_uring_enable_rings and does not export it.
  if (const int result =
          io_uring_register(static_cast<unsigned>(ring_.ring_fd), IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
      result < 0)
    return make_error(IoErrc::uring_unavailable, refusal(-result));
  disabled_ = false;
  return {};
}

void Uring::register_memory(MutableBytes memory) {
  while (!memory.empty()) {
    const auto part = memory.first(std::min(memory.size(), kMaxRegionBytes));
    if (!register_part(part)) return;
    memory = memory.subspan(part.size());
  }
}

bool Uring::register_part(MutableBytes part) {
  if (buffers_ == Buffers::untried) {
    const int result = io_uring_register_buffers_sparse(&ring_, kMaxRegions);
    buffers_ = result < 0 ? Buffers::unavailable : Buffers::ready;
    if (result < 0) say_once_without_registration(-result);
  }
  if (buffers_ != Buffers::ready || registered_.size() == kMaxRegions) return false;
  const iovec region{part.data(), part.size()};
  const __u64 tag = 0;
  const auto index = static_cast<unsigned>(registered_.size());
  int result = io_uring_register_buffers_update_tag(&ring_, index, &region, &tag, 1);
  if (result == -ENOMEM && raise_memlock_limit())
    result = io_uring_register_buffers_update_tag(&ring_, index, &region, &tag, 1);
  if (result < 0) {
    say_once_without_registration(-result);
    return false;
  }
  registered_.push_back(part);
  return true;
}

int Uring::buffer_index(const std::byte* data, std::size_t length) const noexcept {
  for (std::size_t i = 0; i < registered_.size(); ++i) {
    const auto& region = registered_[i];
    // As numbers: pointers into different objects have no order.
    const auto start = reinterpret_cast<std::uintptr_t>(region.data()), at = reinterpret_cast<std::uintptr_t>(data);
    if (at >= start && at - start <= region.size() && length <= region.size() - (at - start))
      return static_cast<int>(i);
  }
  return -1;
}

int Uring::file_index(std::uint64_t key, int fd) noexcept {
  for (unsigned i = 0; i < kMaxFiles; ++i)
    if (file_keys_[i] == key) return static_cast<int>(i);
  if (files_ == Files::untried)
    files_ = io_uring_register_files_sparse(&ring_, kMaxFiles) < 0 ? Files::unavailable : Files::ready;
  if (files_ != Files::ready) return -1;
  const unsigned slot = next_file_++ % kMaxFiles;
  file_keys_[slot] = 0;
  if (io_uring_register_files_update(&ring_, slot, &fd, 1) != 1) return -1;
  file_keys_[slot] = key;
  return static_cast<int>(slot);
}

}  // namespace backhaul
