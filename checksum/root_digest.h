// The root digest of a disk: a function of its content and size only, never of format, holes, lanes or order.
//   extent digest = SHA-256( its block digests, one after the other )
//   root          = SHA-256( "backhaul-root-1" NUL, disk size as u64 little-endian, all extent digests in disk order )
// The last block and the last extent may be short; the short block is digested at its true length.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "checksum/block_digest.h"

namespace backhaul {

// Digest of an extent from its block digests (all of them, in order).
Sha256 extent_digest(std::span<const BlockDigest> block_digests) noexcept;
// Digest of an all-zero extent of `extent_bytes` bytes (1 to kExtentSize). The full-sized one is computed once.
Sha256 zero_extent_digest(std::uint64_t extent_bytes = kExtentSize);

// Folds extent digests into the root. Extents may come in any order; those ahead of the first missing one wait
// in memory (56 bytes and a tree node each, a run of zero extents as one, so the caller bounds how far ahead it works).
// One thread at a time.
class RootDigest {
 public:
  explicit RootDigest(std::uint64_t disk_size_bytes);
  RootDigest(RootDigest&&) noexcept;
  RootDigest& operator=(RootDigest&&) noexcept;
  ~RootDigest();

  // REQUIRES: index < extent_count(disk size), each extent given exactly once (also by runs).
  void add(std::uint64_t extent_index, const Sha256& digest);
  // A run of all-zero extents; costs one hash update each and no memory for each.
  void add_zero_run(std::uint64_t first_extent, std::uint64_t count);

  // First extent not folded yet; extent_count(size) when complete.
  std::uint64_t next_extent() const noexcept;
  bool complete() const noexcept;
  // The root. REQUIRES: complete(); called once.
  Sha256 finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace backhaul
