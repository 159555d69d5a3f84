// Reading a whole disk for its digests: `backhaul digest`, and --verify full on both ends.
#pragma once

#include <atomic>
#include <functional>

#include "checksum/block_digest.h"
#include "dataplane/disk/disk.h"
#include "dataplane/protocol/dataplane_parts.h"
#include "dataplane/store/digest_index.h"

namespace backhaul {

struct ScanOptions {
  unsigned threads = 2;
  // Called exactly once for every extent, or run of zero extents (digests == nullptr), by any of the threads. May be
  // null.
  std::function<Result<void>(std::uint64_t extent, std::uint64_t count, const ExtentDigests* digests)> visit;
  // Called now and then with the bytes covered so far, by one thread at a time. An error stops the scan. May be null.
  std::function<Result<void>(std::uint64_t bytes)> progress;
  const std::atomic<bool>* stop = nullptr;
};

// Reads the disk's file past the page cache (holes are not read) and gives the root digest. Memory: 8 MiB per thread.
Result<Sha256> scan_disk(Disk& disk, const DataplaneParts& parts, const ScanOptions& options = {});

}  // namespace backhaul
