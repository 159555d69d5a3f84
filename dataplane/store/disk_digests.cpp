#include "dataplane/store/disk_digests.h"

#include "checksum/root_digest.h"

namespace backhaul {
namespace {

// In disk order. False: some extent's content is not known.
template <class ZeroRun, class Extent>
Result<bool> visit(DigestIndex& index, const ZeroRun& zero_run, const Extent& one) {
  const auto size = index.disk_size();
  const auto count = extent_count(size);
  ExtentDigests digests;
  for (std::uint64_t extent = 0; extent < count;) {
    if (index.state(extent) == ExtentState::zero) {
      auto end = extent + 1;
      while (end < count && index.state(end) == ExtentState::zero) ++end;
      zero_run(extent, end - extent);
      extent = end;
      continue;
    }
    if (index.state(extent) != ExtentState::known) return false;
    BH_TRY(const bool good, index.load(extent, digests));
    if (!good) return false;
    one(extent, extent_digest(std::span(digests).first(blocks_in_extent(size, extent))));
    ++extent;
  }
  return true;
}

}  // namespace

Sha256 root_of(const DiskDigests& digests) {
  RootDigest root(digests.size);
  for (std::uint64_t extent = 0; extent < digests.extents.size(); ++extent) root.add(extent, digests.extents[extent]);
  return root.finish();
}

Result<std::optional<DiskDigests>> digests_of(DigestIndex& index) {
  DiskDigests digests{index.disk_size(), std::vector<Sha256>(extent_count(index.disk_size()))};
  const auto zero_run = [&](std::uint64_t first, std::uint64_t count) {
    for (auto extent = first; extent < first + count; ++extent)
      digests.extents[extent] = zero_extent_digest(extent_length(digests.size, extent));
  };
  BH_TRY(const bool known,
         visit(index, zero_run, [&](std::uint64_t extent, const Sha256& d) { digests.extents[extent] = d; }));
  if (!known) return std::optional<DiskDigests>();
  return std::optional(std::move(digests));
}

Result<std::optional<Sha256>> root_of(DigestIndex& index) {
  RootDigest root(index.disk_size());
  BH_TRY(const bool known,
         visit(
             index, [&](std::uint64_t first, std::uint64_t count) { root.add_zero_run(first, count); },
             [&](std::uint64_t extent, const Sha256& digest) { root.add(extent, digest); }));
  if (!known) return std::optional<Sha256>();
  return std::optional(root.finish());
}

}  // namespace backhaul
