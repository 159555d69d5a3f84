// The content of one simulated file: pages that exist, holes between them, and a size. Copies share pages until one of
// them writes.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>

#include "dataplane/disk/io.h"

namespace backhaul::sim {

class SimImage {
 public:
  static constexpr std::uint64_t kPageSize = 4096;

  std::uint64_t size() const noexcept { return size_; }
  // REQUIRES: the range lies inside the size (read, zero).
  void read(std::uint64_t offset, MutableBytes into) const;
  // Grows the size where it must.
  void write(std::uint64_t offset, Bytes from);
  // Whole pages become holes.
  void zero(std::uint64_t offset, std::uint64_t length);
  void resize(std::uint64_t size);
  std::optional<ByteRange> next_data(std::uint64_t from) const;

  std::uint64_t bytes_taken() const noexcept { return pages_.size() * kPageSize; }
  // What a write there would add to bytes_taken().
  std::uint64_t bytes_missing(std::uint64_t offset, std::uint64_t length) const;

 private:
  using Page = std::array<std::byte, kPageSize>;
  std::map<std::uint64_t, std::shared_ptr<Page>> pages_;  // by page number
  std::uint64_t size_ = 0;
};

}  // namespace backhaul::sim
