// Ciphertext on its way to or from a socket: bytes [begin, end) of memory that is allocated once. One thread.
#pragma once

#include <cstring>
#include <memory>

#include "base/buffer.h"

namespace backhaul {

struct CipherBuffer {
  std::unique_ptr<std::byte[]> bytes;
  std::size_t capacity = 0;
  std::size_t begin = 0;
  std::size_t end = 0;

  explicit CipherBuffer(std::size_t size) : bytes(new std::byte[size]), capacity(size) {}

  std::size_t size() const noexcept { return end - begin; }
  bool empty() const noexcept { return begin == end; }
  std::size_t room() const noexcept { return capacity - end; }  // behind what is there
  std::byte* data() noexcept { return bytes.get() + begin; }
  MutableBytes content() noexcept { return {data(), size()}; }
  Bytes content() const noexcept { return {bytes.get() + begin, size()}; }
  MutableBytes free_space() noexcept { return {bytes.get() + end, room()}; }
  void drop(std::size_t count) noexcept {
    begin += count;
    if (begin == end) begin = end = 0;
  }
  // Moves the content to the front; spans of it become invalid.
  void compact() noexcept {
    if (begin == 0) return;
    std::memmove(bytes.get(), data(), size());
    end -= begin;
    begin = 0;
  }
};

}  // namespace backhaul
