// A lane's buffers: one aligned piece of memory cut into equal parts, allocated once. One thread.
#pragma once

#include <optional>
#include <vector>

#include "base/buffer.h"

namespace backhaul {

class BufferPool {
 public:
  BufferPool(std::uint32_t count, std::size_t size_bytes) : memory_(count * size_bytes), size_(size_bytes) {
    for (std::uint32_t i = count; i > 0; --i) free_.push_back(i - 1);
  }
  std::optional<std::uint32_t> take() {
    if (free_.empty()) return std::nullopt;
    const auto index = free_.back();
    free_.pop_back();
    return index;
  }
  void give(std::uint32_t index) { free_.push_back(index); }
  MutableBytes at(std::uint32_t index) noexcept { return memory_.span().subspan(index * size_, size_); }
  std::size_t free_count() const noexcept { return free_.size(); }
  MutableBytes memory() noexcept { return memory_.span(); }

 private:
  AlignedBuffer memory_;
  std::size_t size_;
  std::vector<std::uint32_t> free_;
};

}  // namespace backhaul
