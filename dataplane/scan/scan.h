// Reading a whole disk for its digests: `backhaul digest`, and --verify full on both ends.
#pragma once

#include <atomic>
#include <functional>

#include "checksum/root_digest.h"
#include "dataplane/disk/disk.h"
#include "dataplane/protocol/dataplane_parts.h"
#include "dataplane/store/digest_index.h"

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

}  // namespace backhaul
