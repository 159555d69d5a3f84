// Who saves which chunk of a file to its undo log: each chunk is saved once, and whoever needs one that another saves
// waits for it. Owned by the undo file (undo.cpp); any thread. The lock is never held over I/O.
#pragma once

#include <array>
#include <condition_variable>
#include <mutex>
#include <span>
#include <vector>

#include "dataplane/disk/chunk_set.h"
#include "dataplane/disk/io.h"

namespace backhaul {

struct ChunkRun {
  std::uint64_t first = 0, end = 0;
  bool contains(std::uint64_t chunk) const noexcept { return chunk >= first && chunk < end; }
};

class UndoClaims {
 public:
  // Limits (docs/journal_format.md, section 3): how many save at once, and what one of them claims in a round.
  static constexpr std::size_t kMaxSavers = 4;
  static constexpr std::size_t kMaxRoundRuns = 512;

  // `old_size`: of the file, in bytes; what lies behind it needs no saving.
  explicit UndoClaims(std::uint64_t old_size);

  // Durable in the log. insert() only before anybody saves.
  ChunkSet& saved() noexcept { return saved_; }
  bool all_saved(std::span<const ByteRange> ranges) const noexcept;

  // The number of a saver, below kMaxSavers; waits until one is free.
  std::size_t enter();
  void leave(std::size_t saver);

  struct Cursor {
    std::size_t range = 0;
    std::uint64_t chunk = 0;
  };
  // Claims chunks from `cursor` on that are neither saved nor claimed; `runs` gets them, sorted and disjoint. True when
  // the round is full and more is left. REQUIRES: the saver holds no claim.
  bool claim(std::size_t saver, std::span<const ByteRange> ranges, Cursor& cursor, std::vector<ChunkRun>& runs);
  // Claims the chunks from `end` on, below `limit`, as far as they are neither saved nor claimed; returns where that
  // ends.
  std::uint64_t extend(std::size_t saver, std::uint64_t end, std::uint64_t limit);
  // The saver's claims end; with `saved` they are durable in the log.
  void finish(std::size_t saver, bool saved);

  // Until nobody claims a chunk of these ranges. REQUIRES: the caller holds no claim, so that two callers with common
  // chunks cannot wait for each other.
  void wait_for_others(std::span<const ByteRange> ranges);

 private:
  ChunkRun chunks_of(const ByteRange& range) const noexcept;
  bool claimed_by_other(std::uint64_t chunk, std::size_t saver) const noexcept;  // REQUIRES: mutex_ held

  const std::uint64_t old_size_;
  ChunkSet saved_;  // inserts under mutex_
  std::mutex mutex_;
  std::condition_variable changed_;
  std::array<std::vector<ChunkRun>, kMaxSavers> claimed_;
  std::vector<std::size_t> idle_;  // the last that left is the first to come: its buffer is warm
};

}  // namespace backhaul
