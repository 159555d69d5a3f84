#include "dataplane/source/source_session.h"

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>

#include <algorithm>

#include "dataplane/protocol/engine_error.h"

namespace backhaul {

Result<ChangedBlocks> ChangedBlocks::make(std::vector<ByteRange> ranges, std::uint64_t disk_size) {
  std::erase_if(ranges, [](const ByteRange& range) { return range.length == 0; });
  std::sort(ranges.begin(), ranges.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; });
  ChangedBlocks changed;
  for (const auto& range : ranges) {
    if (range.offset > disk_size || range.length > disk_size - range.offset)
      return make_error(EngineErrc::bad_extents_file, "offset " + std::to_string(range.offset) + ", length " +
                                                          std::to_string(range.length) + ": outside the disk");
    const auto begin = align_down(range.offset, kBlockSize);
    const auto end = align_up(range.end(), kBlockSize);
    if (!changed.ranges_.empty() && changed.ranges_.back().end() >= begin) {
      auto& last = changed.ranges_.back();
      last.length = std::max(last.end(), end) - last.offset;
    } else {
      changed.ranges_.push_back({begin, end - begin});
    }
  }
  std::uint64_t next = 0;  // first extent not counted yet
  for (const auto& range : changed.ranges_) {
    const auto first = std::max(next, range.offset / kExtentSize);
    next = std::max(next, div_up(range.end(), kExtentSize));
    changed.extents_ += next - std::min(next, first);
    changed.bytes_ += range.length;
  }
  return changed;
}

Result<std::vector<ByteRange>> ChangedBlocks::parse(std::string_view text) {
  boost::system::error_code code;
  const auto value = boost::json::parse(text, code);
  if (code) return make_error(EngineErrc::bad_extents_file, code.message());
  const boost::json::array* entries = value.if_array();
  if (const auto* object = value.if_object())
    if (const auto* list = object->if_contains("extents")) entries = list->if_array();
  if (entries == nullptr) return make_error(EngineErrc::bad_extents_file, "no array of extents");
  std::vector<ByteRange> ranges;
  for (const auto& entry : *entries) {
    const auto number = [&](std::string_view key) -> std::optional<std::uint64_t> {
      const auto* object = entry.if_object();
      const auto* found = object != nullptr ? object->if_contains(key) : nullptr;
      boost::system::error_code failed;
      if (found == nullptr) return std::nullopt;
      const auto result = found->to_number<std::uint64_t>(failed);
      return failed ? std::nullopt : std::optional(result);
    };
    const auto offset = number("offset");
    const auto length = number("length");
    if (!offset || !length)
      return make_error(EngineErrc::bad_extents_file,
                        "entry " + std::to_string(ranges.size()) + " lacks offset or length");
    if (number("type") == 0U) continue;
    ranges.push_back({*offset, *length});
  }
  return ranges;
}

std::optional<std::uint64_t> ChangedBlocks::next_extent(std::uint64_t from) const {
  const auto at = from * kExtentSize;
  const auto it =
      std::partition_point(ranges_.begin(), ranges_.end(), [&](const auto& range) { return range.end() <= at; });
  if (it == ranges_.end()) return std::nullopt;
  return std::max(from, it->offset / kExtentSize);
}

std::bitset<kBlocksPerExtent> ChangedBlocks::blocks(std::uint64_t extent) const {
  std::bitset<kBlocksPerExtent> bits;
  const auto begin = extent * kExtentSize;
  const auto end = begin + kExtentSize;
  auto it =
      std::partition_point(ranges_.begin(), ranges_.end(), [&](const auto& range) { return range.end() <= begin; });
  for (; it != ranges_.end() && it->offset < end; ++it) {
    const auto first = (std::max(begin, it->offset) - begin) / kBlockSize;
    const auto last = (std::min(end, it->end()) - begin) / kBlockSize;
    for (auto b = first; b < last; ++b) bits.set(b);
  }
  return bits;
}

SourceSession::SourceSession(Disk& disk, VerifyMode verify, std::optional<ChangedBlocks> changed,
                             const DiskDigests* base, bool keep_digests)
    : disk_(disk),
      verify_(verify),
      changed_(std::move(changed)),
      extents_(extent_count(disk.size())),
      root_(disk.size()) {
  extents_total_ = changed_ ? changed_->extents() : extents_;
  bytes_total_ = changed_ ? changed_->extents() * kExtentSize : disk.size();
  digests_.size = disk.size();
  const bool fits = base != nullptr && base->size == disk.size() && base->extents.size() == extents_;
  if (changed_ && fits) digests_.extents = base->extents;
  if (!changed_ && keep_digests) digests_.extents.resize(extents_);
  digests_complete_ = !changed_ || fits;
}

Result<SourceSession::Take> SourceSession::take(Item& item) {
  if (returned_count_.load(std::memory_order_acquire) > 0) {
    const std::lock_guard lock(mutex_);
    if (!returned_.empty()) {
      item = returned_.front();
      returned_.pop_front();
      returned_count_.store(returned_.size(), std::memory_order_release);
      return Take::item;
    }
  }
  auto at = cursor_.load();
  while (at < extents_) {
    if (!changed_ && at > folded_.load() + kMaxRunAheadExtents) return Take::later;
    std::uint64_t next = 0;
    if (changed_) {
      const auto extent = changed_->next_extent(at);
      if (!extent) return Take::none;
      item = {*extent, 1, false};
      next = *extent + 1;
    } else {
      BH_TRY(const auto run, disk_.next_data(at * kExtentSize));
      const auto first = run ? std::min(run->offset / kExtentSize, extents_) : extents_;
      item = first > at ? Item{at, first - at, true} : Item{at, 1, false};
      next = at + item.count;
    }
    if (cursor_.compare_exchange_weak(at, next)) return Take::item;
  }
  return Take::none;
}

void SourceSession::give_back(const Item& item) {
  const std::lock_guard lock(mutex_);
  returned_.push_back(item);
  returned_count_.store(returned_.size(), std::memory_order_release);
}

void SourceSession::done(std::uint64_t extent, const Sha256* digest) {
  counters_.bytes_done += extent_length(disk_.size(), extent);
  const std::lock_guard lock(mutex_);
  if (digest == nullptr) digests_complete_ = false;
  if (digest != nullptr && extent < digests_.extents.size()) digests_.extents[extent] = *digest;
  if (!changed_) {
    root_.add(extent, digest != nullptr ? *digest : Sha256{});
    folded_.store(root_.next_extent());
  }
  ++extents_done_;
}

void SourceSession::done_zero_run(std::uint64_t first, std::uint64_t count) {
  counters_.bytes_done += extent_length(disk_.size(), first, count);
  const std::lock_guard lock(mutex_);
  for (auto extent = first; extent < std::min<std::uint64_t>(first + count, digests_.extents.size()); ++extent)
    digests_.extents[extent] = zero_extent_digest(extent_length(disk_.size(), extent));
  root_.add_zero_run(first, count);
  folded_.store(root_.next_extent());
  extents_done_ += count;
}

bool SourceSession::may_retry_mismatch(std::uint64_t extent) {
  const std::lock_guard lock(mutex_);
  return mismatched_.insert(extent).second;
}

std::optional<Sha256> SourceSession::root_digest() {
  const std::lock_guard lock(mutex_);
  if (!digests_known()) return std::nullopt;
  if (finished_root_) return finished_root_;
  if (!changed_) {
    finished_root_ = root_.finish();
    return finished_root_;
  }
  finished_root_ = root_of(digests_);
  return finished_root_;
}

std::optional<DiskDigests> SourceSession::take_digests() {
  const std::lock_guard lock(mutex_);
  if (!digests_known() || digests_.extents.size() != extents_) return std::nullopt;
  return std::move(digests_);
}

}  // namespace backhaul
