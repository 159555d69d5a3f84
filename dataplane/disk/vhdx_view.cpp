#include "dataplane/disk/vhdx_view.h"

#include <fmt/format.h>

#include <algorithm>

#include "dataplane/disk/vhdx.h"

namespace backhaul::vhdx {

Result<void> View::read(std::uint64_t offset, MutableBytes into) const {
  const std::uint64_t end = offset + into.size();
  if (end < offset || end > size_)
    return make_error(VhdxErrc::truncated, fmt::format("{}: {} bytes at {} are missing, the file has {}", file_->name(),
                                                       into.size(), offset, size_));
  const std::uint64_t in_file =
      file_->size() > offset ? std::min<std::uint64_t>(into.size(), file_->size() - offset) : 0;
  if (in_file > 0) BH_RETURN_IF_ERROR(file_->read_at(offset, into.first(in_file)));
  std::ranges::fill(into.subspan(in_file), std::byte{0});
  for (const auto& change : changes_) {
    const std::uint64_t first = std::max(offset, change.range.offset);
    const std::uint64_t last = std::min(end, change.range.end());
    if (first >= last) continue;
    const auto target = into.subspan(first - offset, last - first);
    if (change.content.empty())
      std::ranges::fill(target, std::byte{0});
    else
      std::memcpy(target.data(), change.content.data() + (first - change.range.offset), target.size());
  }
  return {};
}

}  // namespace backhaul::vhdx
