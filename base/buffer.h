// Memory with one owner, aligned for direct I/O. A fresh page costs a fault, so a lane allocates its buffers once and
// never per block.
#pragma once

#include <cstddef>
#include <cstring>
#include <new>
#include <span>
#include <utility>

#include "base/units.h"

namespace backhaul {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

// Move-only. Aligned to kIoAlignment, zeroed at creation.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(std::size_t size_bytes)
      : data_(size_bytes == 0 ? nullptr
                              : static_cast<std::byte*>(::operator new (size_bytes, std::align_val_t{kIoAlignment}))),
        size_(size_bytes) {
    if (data_ != nullptr) std::memset(data_, 0, size_);
  }
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~AlignedBuffer() {
    if (data_ != nullptr) ::operator delete (data_, std::align_val_t{kIoAlignment});
  }

  std::byte* data() noexcept { return data_; }
  const std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  MutableBytes span() noexcept { return {data_, size_}; }
  Bytes span() const noexcept { return {data_, size_}; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

inline Bytes as_bytes(const void* data, std::size_t size) { return {static_cast<const std::byte*>(data), size}; }

}  // namespace backhaul
