// A lane's buffers: one aligned piece of memory cut into equal parts, allocated once. A buffer is free again when its
// last user released it; small pieces of content share one. One thread.
#pragma once

#include <optional>
#include <vector>

#include "base/buffer.h"
#include "base/units.h"

namespace backhaul {

class BufferPool {
 public:
  // A piece of a buffer.
  struct Place {
    std::uint32_t buffer = 0;
    std::uint64_t at = 0;
  };

  BufferPool(std::uint32_t count, std::size_t size_bytes)
      : memory_(count * size_bytes), size_(size_bytes), users_(count, 0) {
    for (std::uint32_t i = count; i > 0; --i) free_.push_back(i - 1);
  }

  // A whole buffer with one user; nothing when none is free.
  std::optional<std::uint32_t> take() {
    if (free_.empty()) return std::nullopt;
    const auto buffer = free_.back();
    free_.pop_back();
    users_[buffer] = 1;
    return buffer;
  }
  // Room for `length` bytes, a user of its buffer: in the one that is being filled, else in a free one; nothing when
  // none is free. Many small pieces in a row can so be on their way at once. REQUIRES: length <= size_bytes.
  std::optional<Place> place(std::uint64_t length) {
    if (!fits(length)) {
      const auto buffer = take();
      if (!buffer) return std::nullopt;
      if (filling_) release(*filling_);
      filling_ = buffer;
      filled_ = 0;
    }
    const Place place{*filling_, filled_};
    hold(place.buffer);
    filled_ += align_up(length, kIoAlignment);
    if (filled_ + kBlockSize > size_) {
      release(place.buffer);
      filling_.reset();
    }
    return place;
  }
  // Whether place() of as much needs no free buffer.
  bool fits(std::uint64_t length) const noexcept {
    return filling_ && filled_ + align_up(length, kIoAlignment) <= size_;
  }
  // One user more, one less. REQUIRES: the buffer has a user.
  void hold(std::uint32_t buffer) noexcept { ++users_[buffer]; }
  void release(std::uint32_t buffer) {
    if (--users_[buffer] == 0) free_.push_back(buffer);
  }

  MutableBytes at(std::uint32_t buffer) noexcept { return memory_.span().subspan(buffer * size_, size_); }
  MutableBytes at(const Place& place, std::uint64_t length) noexcept {
    return at(place.buffer).subspan(place.at, length);
  }
  std::size_t free_count() const noexcept { return free_.size(); }
  MutableBytes memory() noexcept { return memory_.span(); }

 private:
  AlignedBuffer memory_;
  std::size_t size_;
  std::vector<std::uint32_t> free_;
  std::vector<std::uint32_t> users_;      // of each buffer; the one that is being filled has one for that
  std::optional<std::uint32_t> filling_;  // takes further pieces
  std::uint64_t filled_ = 0;              // how much of it is taken
};

}  // namespace backhaul
