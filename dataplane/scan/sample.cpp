#include "dataplane/scan/sample.h"

#include <algorithm>

#include "base/buffer.h"

namespace backhaul {
namespace {

// Runs that are looked at one by one; a disk of more counts as evenly filled.
constexpr std::size_t kMaxRuns = 65536;

Result<void> read_block(Disk& disk, std::uint64_t offset, MutableBytes into) {
  for (std::size_t at = 0; at < into.size();) {
    const auto segment = disk.map(offset + at, into.size() - at);
    const auto part = into.subspan(at, segment.length);
    if (segment.kind == Segment::Kind::zero)
      std::fill(part.begin(), part.end(), std::byte{0});
    else
      BH_RETURN_IF_ERROR(disk.file().read_at(segment.file_offset, part));
    at += segment.length;
  }
  return {};
}

Result<SampledExtent> sample_extent(Disk& disk, BlockHasher& hasher, std::uint64_t extent, std::uint64_t& bytes) {
  SampledExtent sampled;
  sampled.extent = extent;
  const auto count = blocks_in_extent(disk.size(), extent);
  std::vector<std::byte> memory(count * kBlockSize);
  std::vector<Bytes> blocks;
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto block = extent * kBlocksPerExtent + i;
    const auto into = std::span(memory).subspan(i * kBlockSize, block_length(disk.size(), block));
    BH_RETURN_IF_ERROR(read_block(disk, block * kBlockSize, into));
    bytes += into.size();
    blocks.emplace_back(into);
  }
  hasher.digest(blocks, std::span(sampled.digests).first(count));
  return sampled;
}

}  // namespace

Result<std::vector<std::uint64_t>> pick_extents(const Disk& disk, std::size_t count, std::uint64_t& allocated_bytes) {
  std::vector<ByteRange> runs;
  allocated_bytes = 0;
  for (std::uint64_t at = 0; at < disk.size() && runs.size() < kMaxRuns;) {
    BH_TRY(const auto run, disk.next_data(at));
    if (!run || run->offset >= disk.size()) break;
    runs.push_back({run->offset, std::min(run->length, disk.size() - run->offset)});
    allocated_bytes += runs.back().length;
    at = runs.back().end();
  }
  std::vector<std::uint64_t> picked;
  if (allocated_bytes == 0) return picked;
  // The middles of `count` equal shares of the data.
  std::size_t run = 0;
  std::uint64_t before = 0;  // bytes of data in earlier runs
  for (std::size_t i = 0; i < count; ++i) {
    const auto share = static_cast<double>(allocated_bytes) / static_cast<double>(count);
    const auto want = static_cast<std::uint64_t>((static_cast<double>(i) + 0.5) * share);
    while (run + 1 < runs.size() && want >= before + runs[run].length) before += runs[run++].length;
    const auto inside = std::min(want - std::min(want, before), runs[run].length - 1);
    const auto extent = (runs[run].offset + inside) / kExtentSize;
    if (picked.empty() || picked.back() != extent) picked.push_back(extent);
  }
  if (runs.size() == kMaxRuns) {
    const auto seen = runs.back().end();
    allocated_bytes = static_cast<std::uint64_t>(static_cast<double>(allocated_bytes) *
                                                 (static_cast<double>(disk.size()) / static_cast<double>(seen)));
  }
  return picked;
}

Result<DiskSample> sample_extents(Disk& disk, const DataplaneParts& parts, std::span<const std::uint64_t> extents) {
  if (extents.size() > kMaxSampleExtents)
    return make_error(BaseErrc::invalid_argument, "a sample of " + std::to_string(extents.size()) + " extents");
  DiskSample sample;
  sample.size = disk.size();
  BH_TRY(auto hasher, parts.make_hasher());
  const auto started = parts.clock->now();
  std::uint64_t bytes = 0;
  for (const auto extent : extents) {
    if (extent >= extent_count(disk.size())) continue;
    BH_TRY(auto sampled, sample_extent(disk, *hasher, extent, bytes));
    sample.extents.push_back(sampled);
  }
  const auto seconds = std::chrono::duration<double>(parts.clock->now() - started).count();
  if (seconds > 0) sample.digest_bytes_per_s = static_cast<double>(bytes) / seconds;
  return sample;
}

double changed_fraction(const DiskSample& source, const DiskSample& target) {
  std::uint64_t compared = 0, differ = 0;
  for (const auto& ours : source.extents) {
    const auto theirs = std::find_if(target.extents.begin(), target.extents.end(),
                                     [&](const auto& sampled) { return sampled.extent == ours.extent; });
    const auto count = blocks_in_extent(source.size, ours.extent);
    for (std::uint32_t i = 0; i < count; ++i)
      if (theirs == target.extents.end() || ours.digests[i] != theirs->digests[i]) ++differ;
    compared += count;
  }
  return compared == 0 ? 1 : static_cast<double>(differ) / static_cast<double>(compared);
}

}  // namespace backhaul
