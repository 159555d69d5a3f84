#include "dataplane/store/undo_claims.h"

#include <algorithm>

#include "dataplane/store/journal_layout.h"

namespace backhaul {
namespace {

constexpr std::uint64_t kMaxRoundChunks = journal_layout::kUndoMaxRunChunks;

// Sorts the runs and joins those that touch.
void merge(std::vector<ChunkRun>& runs) {
  std::sort(runs.begin(), runs.end(), [](auto& a, auto& b) { return a.first < b.first; });
  std::size_t kept = 0;
  for (const ChunkRun run : runs) {
    if (kept > 0 && run.first <= runs[kept - 1].end)
      runs[kept - 1].end = std::max(runs[kept - 1].end, run.end);
    else
      runs[kept++] = run;
  }
  runs.resize(kept);
}

}  // namespace

UndoClaims::UndoClaims(std::uint64_t old_size) : old_size_(old_size), saved_(div_up(old_size, kUndoChunkSize)) {
  for (auto saver = kMaxSavers; saver > 0; --saver) idle_.push_back(saver - 1);
}

ChunkRun UndoClaims::chunks_of(const ByteRange& range) const noexcept {
  if (range.length == 0 || range.offset >= old_size_) return {};
  const std::uint64_t end = std::min(range.length, old_size_ - range.offset) + range.offset;
  return {range.offset / kUndoChunkSize, div_up(end, kUndoChunkSize)};
}

bool UndoClaims::all_saved(std::span<const ByteRange> ranges) const noexcept {
  return std::all_of(ranges.begin(), ranges.end(), [&](const ByteRange& range) {
    const ChunkRun run = chunks_of(range);
    return saved_.contains_all(run.first, run.end);
  });
}

std::size_t UndoClaims::enter() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !idle_.empty(); });
  const auto saver = idle_.back();
  idle_.pop_back();
  return saver;
}

void UndoClaims::leave(std::size_t saver) {
  {
    std::lock_guard lock(mutex_);
    idle_.push_back(saver);
  }
  changed_.notify_all();
}

bool UndoClaims::claimed_by_other(std::uint64_t chunk, std::size_t saver) const noexcept {
  for (std::size_t other = 0; other < kMaxSavers; ++other) {
    if (other == saver) continue;
    for (const ChunkRun& run : claimed_[other])
      if (run.contains(chunk)) return true;
  }
  return false;
}

bool UndoClaims::claim(std::size_t saver, std::span<const ByteRange> ranges, Cursor& cursor,
                       std::vector<ChunkRun>& runs) {
  runs.clear();
  std::lock_guard lock(mutex_);
  std::uint64_t looked_at = 0;
  bool full = false;
  for (; cursor.range < ranges.size(); ++cursor.range, cursor.chunk = 0) {
    const ChunkRun wanted = chunks_of(ranges[cursor.range]);
    std::uint64_t chunk = std::max(cursor.chunk, wanted.first);
    for (; chunk < wanted.end; ++chunk) {
      if (looked_at++ == kMaxRoundChunks || runs.size() == kMaxRoundRuns) {
        full = true;
        break;
      }
      if (saved_.contains(chunk) || claimed_by_other(chunk, saver)) continue;
      if (!runs.empty() && runs.back().end == chunk) {
        ++runs.back().end;
      } else if (runs.empty() || !runs.back().contains(chunk)) {
        runs.push_back({chunk, chunk + 1});
      }
    }
    cursor.chunk = chunk;
    if (full) break;
  }
  merge(runs);  // ranges may come in any order and share chunks
  claimed_[saver] = runs;
  return full;
}

std::uint64_t UndoClaims::extend(std::size_t saver, std::uint64_t end, std::uint64_t limit) {
  std::lock_guard lock(mutex_);
  const std::uint64_t old_end = end;
  while (end < limit && !saved_.contains(end) && !claimed_by_other(end, saver)) ++end;
  if (end > old_end) claimed_[saver].push_back({old_end, end});
  return end;
}

void UndoClaims::finish(std::size_t saver, bool saved) {
  {
    std::lock_guard lock(mutex_);
    if (saved)
      for (const ChunkRun& run : claimed_[saver]) saved_.insert(run.first, run.end);
    claimed_[saver].clear();
  }
  changed_.notify_all();
}

void UndoClaims::wait_for_others(std::span<const ByteRange> ranges) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] {
    for (const auto& runs : claimed_)
      for (const ChunkRun& claimed : runs)
        for (const ByteRange& range : ranges) {
          const ChunkRun run = chunks_of(range);
          if (run.first < claimed.end && claimed.first < run.end) return false;
        }
    return true;
  });
}

}  // namespace backhaul
