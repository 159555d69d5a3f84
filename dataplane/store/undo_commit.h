// The end of an undo log that records are added to, and the group commit: one sync covers all that was appended before
// it, whoever appended it. Owned by the undo file (undo.cpp); any thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <span>

#include "dataplane/store/undo_log.h"

namespace backhaul {

// What is read or written past this size at once leaves the page cache again.
inline constexpr std::uint64_t kUndoDropCacheBytes = 256 * kKiB;

// A record whose header and payload lie at `at` in a caller's buffer.
struct PlannedRecord {
  UndoRecord record;
  std::uint64_t at = 0;
};

class UndoCommit {
 public:
  // `end`: where the log's records end; all of them are durable.
  UndoCommit(std::unique_ptr<File> log, const UndoHeader& header, std::uint64_t end)
      : log_(std::move(log)), header_(header), end_(end), durable_end_(end) {}

  // Fills in the records' headers and writes `content` to the end of the log. After an error the log ends where it
  // ended before.
  Result<void> append(std::span<PlannedRecord> records, MutableBytes content);
  // Everything that was appended before the call is durable when this returns. After one failure every call fails.
  Result<void> sync();

 private:
  std::uint64_t end();

  const std::unique_ptr<File> log_;
  const UndoHeader header_;

  std::mutex append_mutex_;  // one append at a time, so that a sync covers all that stands before what it covers
  std::uint64_t end_;        // under append_mutex_

  std::mutex sync_mutex_;
  std::condition_variable synced_;
  bool syncing_ = false;
  std::optional<Error> failure_;            // for good: after a failed sync the cache lies about what is durable
  std::atomic<std::uint64_t> durable_end_;  // changes under sync_mutex_
};

}  // namespace backhaul
