// A set of chunk numbers below a limit that only grows: one bit each, in pages of 4 KiB (32768 chunks, 2 GiB of file)
// made when first touched. contains() from any thread without a lock; insert() by one thread at a time.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

namespace backhaul {

class ChunkSet {
 public:
  explicit ChunkSet(std::uint64_t limit)
      : limit_(limit),
        page_count_(limit / kPageBits + 1),
        pages_(std::make_unique<std::atomic<Page*>[]>(page_count_)) {}
  ChunkSet(const ChunkSet&) = delete;
  ChunkSet& operator=(const ChunkSet&) = delete;
  ~ChunkSet() {
    for (std::uint64_t i = 0; i < page_count_; ++i) delete pages_[i].load(std::memory_order_relaxed);
  }

  std::uint64_t limit() const noexcept { return limit_; }

  // REQUIRES: chunk < limit().
  bool contains(std::uint64_t chunk) const noexcept {
    const Page* page = pages_[chunk / kPageBits].load(std::memory_order_acquire);
    return page != nullptr && ((*page)[word(chunk)].load(std::memory_order_acquire) & bit(chunk)) != 0;
  }
  bool contains_all(std::uint64_t first, std::uint64_t end) const noexcept {
    for (; first < end; ++first)
      if (!contains(first)) return false;
    return true;
  }

  // REQUIRES: first <= end <= limit(). A thread that sees a chunk in the set also sees what was written before
  // insert().
  void insert(std::uint64_t first, std::uint64_t end) {
    while (first < end) {
      auto& slot = pages_[first / kPageBits];
      Page* page = slot.load(std::memory_order_relaxed);
      if (page == nullptr) {
        page = new Page{};
        slot.store(page, std::memory_order_release);
      }
      const std::uint64_t word_end = std::min(end, (first / 64 + 1) * 64);
      const std::uint64_t count = word_end - first;
      const std::uint64_t mask = (count == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1) << (first % 64);
      (*page)[word(first)].fetch_or(mask, std::memory_order_release);
      first = word_end;
    }
  }

 private:
  static constexpr std::uint64_t kPageBits = 4096 * 8;
  using Page = std::array<std::atomic<std::uint64_t>, kPageBits / 64>;
  static std::uint64_t word(std::uint64_t chunk) noexcept { return chunk % kPageBits / 64; }
  static std::uint64_t bit(std::uint64_t chunk) noexcept { return std::uint64_t{1} << (chunk % 64); }

  const std::uint64_t limit_;
  const std::uint64_t page_count_;
  const std::unique_ptr<std::atomic<Page*>[]> pages_;
};

}  // namespace backhaul
