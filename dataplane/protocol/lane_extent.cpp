#include "dataplane/protocol/lane_extent.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdlib>

namespace backhaul {

void abort_transition(std::uint64_t extent, std::string_view from, std::string_view to) noexcept {
  spdlog::critical("extent {} of a lane: {} -> {} is not in the table", extent, from, to);
  std::abort();
}

Result<std::optional<ByteRange>> next_chunk(const Disk& disk, std::uint64_t at, std::uint64_t end) {
  BH_TRY(const auto run, disk.next_data(at));
  if (!run || run->offset >= end) return std::optional<ByteRange>();
  at = std::max(at, align_down(run->offset, kBlockSize));
  const auto until = std::min({end, align_down(at, kChunkSize) + kChunkSize, align_up(run->end(), kBlockSize)});
  return std::optional(ByteRange{at, until - at});
}

Result<Segment> map_chunk(const Disk& disk, const ByteRange& chunk) {
  const auto segment = disk.map(chunk.offset, chunk.length);
  if (segment.kind == Segment::Kind::data && segment.length != chunk.length)
    return make_error(BaseErrc::internal, "a chunk in two places");
  return segment;
}

}  // namespace backhaul
