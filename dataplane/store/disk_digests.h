// The digests of all of a disk's extents, and its root from them.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "checksum/block_digest.h"
#include "dataplane/store/digest_index.h"

namespace backhaul {

// What one round leaves to the next, so that a round which reads only changed extents still knows the root. 32 bytes an
// extent: 8 MiB for each TiB.
struct DiskDigests {
  std::uint64_t size = 0;  // of the disk, bytes
  std::vector<Sha256> extents;
};
Sha256 root_of(const DiskDigests& digests);  // REQUIRES: one for each extent of the size

// From an index; nothing when some extent's content was never digested.
Result<std::optional<DiskDigests>> digests_of(DigestIndex& index);
// The same without keeping them.
Result<std::optional<Sha256>> root_of(DigestIndex& index);

}  // namespace backhaul
