// Reading a whole disk for its digests: `backhaul digest`, and --verify full on both ends.
#pragma once

#include <functional>

#include "checksum/root_digest.h"
#include "dataplane/digest_index.h"
#include "dataplane/target_session.h"

namespace backhaul {

struct ScanOptions {
  unsigned threads = 2;
  // Hears every extent (or run of zero extents, digests == nullptr), from any of the threads, each exactly once. May be
  // null.
  std::function<Result<void>(std::uint64_t extent, std::uint64_t count, const ExtentDigests* digests)> visit;
  // Hears the bytes covered so far, now and then, from one thread at a time. An error stops the scan. May be null.
  std::function<Result<void>(std::uint64_t bytes)> progress;
  const std::atomic<bool>* stop = nullptr;
};

// The root digest by what is read from the disk's file past the page cache (holes are not read). Memory: 8 MiB a
// thread.
Result<Sha256> scan_disk(Disk& disk, const DataplaneParts& parts, const ScanOptions& options = {});

// Number of blocks in an extent of a disk of `size` bytes, and the length of one block of it.
std::uint32_t blocks_in_extent(std::uint64_t size, std::uint64_t extent) noexcept;
std::uint64_t block_length(std::uint64_t size, std::uint64_t block) noexcept;

}  // namespace backhaul
