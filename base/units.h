// Sizes that every part shares. A block is the unit of digests and of change, an extent the
// unit of work (docs/ARCHITECTURE.md). All sizes are bytes unless the name says otherwise.
#pragma once

#include <cstdint>

namespace backhaul {

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;
inline constexpr std::uint64_t kTiB = 1024 * kGiB;

// The multi-buffer hash library takes messages of at most 65534 bytes, so 64 KiB is out of reach.
inline constexpr std::uint64_t kBlockSize = 32 * kKiB;
inline constexpr std::uint64_t kExtentSize = 4 * kMiB;
inline constexpr std::uint64_t kBlocksPerExtent = kExtentSize / kBlockSize;
static_assert(kBlocksPerExtent == 128);

// Direct reads and writes start and end on this boundary, which suits every sector size in use.
inline constexpr std::uint64_t kIoAlignment = 4096;

constexpr std::uint64_t align_down(std::uint64_t value, std::uint64_t unit) { return value / unit * unit; }
constexpr std::uint64_t div_up(std::uint64_t value, std::uint64_t unit) {
  return value / unit + (value % unit != 0 ? 1 : 0);
}
constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t unit) { return div_up(value, unit) * unit; }

// Number of extents (blocks) of a disk of `size` bytes; the last one may be short.
constexpr std::uint64_t extent_count(std::uint64_t size) { return div_up(size, kExtentSize); }
constexpr std::uint64_t block_count(std::uint64_t size) { return div_up(size, kBlockSize); }

// Number of blocks in an extent of a disk of `size` bytes, and the length of one block of it.
// REQUIRES: extent < extent_count(size); block < block_count(size).
constexpr std::uint32_t blocks_in_extent(std::uint64_t size, std::uint64_t extent) {
  const auto blocks = block_count(size) - extent * kBlocksPerExtent;
  return static_cast<std::uint32_t>(blocks < kBlocksPerExtent ? blocks : kBlocksPerExtent);
}
constexpr std::uint64_t block_length(std::uint64_t size, std::uint64_t block) {
  const auto left = size - block * kBlockSize;
  return left < kBlockSize ? left : kBlockSize;
}
// Length of `count` extents from this one on, as far as the disk goes. REQUIRES: extent < extent_count(size).
constexpr std::uint64_t extent_length(std::uint64_t size, std::uint64_t extent, std::uint64_t count = 1) {
  const auto left = size - extent * kExtentSize;
  return left < count * kExtentSize ? left : count * kExtentSize;
}

}  // namespace backhaul
