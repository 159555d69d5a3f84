// A sample of a disk: what a few extents hold, so that two ends can guess how much of a disk differs before anything is
// copied. Reads through the page cache at its own pace; for estimates only, never for deciding what to send.
#pragma once

#include <cstdint>
#include <vector>

#include "dataplane/disk/disk.h"
#include "dataplane/protocol/dataplane_parts.h"
#include "dataplane/store/digest_index.h"

namespace backhaul {

// At most this many extents: 64 x 4 MiB = 256 MiB to read, 128 KiB of digests.
inline constexpr std::size_t kMaxSampleExtents = 64;

struct SampledExtent {
  std::uint64_t extent = 0;
  ExtentDigests digests;  // a short last extent uses the first ones
};
struct DiskSample {
  std::uint64_t size = 0;             // of the disk, bytes
  std::uint64_t allocated_bytes = 0;  // may hold more than zeros; estimated when data lies in many runs
  std::vector<SampledExtent> extents;
  double digest_bytes_per_s = 0;  // reading and digesting; 0 when nothing was read
};

// `count` extents that hold data, spread evenly over it. Fewer when there are fewer.
Result<std::vector<std::uint64_t>> pick_extents(const Disk& disk, std::size_t count, std::uint64_t& allocated_bytes);
// Digests these extents; those behind the disk's end are left out. Error: BaseErrc::invalid_argument for more than
// kMaxSampleExtents; those of reading.
Result<DiskSample> sample_extents(Disk& disk, const DataplaneParts& parts, std::span<const std::uint64_t> extents);

// The fraction of `source`'s sampled blocks that differ in `target`; 1 when nothing can be compared.
double changed_fraction(const DiskSample& source, const DiskSample& target);

}  // namespace backhaul
