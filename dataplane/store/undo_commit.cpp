#include "dataplane/store/undo_commit.h"

#include "dataplane/store/journal_layout.h"

namespace backhaul {

Result<void> UndoCommit::append(std::span<PlannedRecord> records, MutableBytes content) {
  std::lock_guard lock(append_mutex_);
  for (auto& [record, at] : records) {
    record.offset = end_ + at;
    record.durable_end = durable_end_.load(std::memory_order_acquire);
    encode_undo_record(header_, record, content.subspan(at, journal_layout::kUndoRecordHeaderSize));
  }
  BH_RETURN_IF_ERROR(log_->write_through(end_, content));
  end_ += content.size();
  return {};
}

std::uint64_t UndoCommit::end() {
  std::lock_guard lock(append_mutex_);
  return end_;
}

// Whoever comes while a sync runs waits for it, and one of them does the next for all.
Result<void> UndoCommit::sync() {
  const std::uint64_t up_to = end();
  std::unique_lock lock(sync_mutex_);
  for (;;) {
    if (durable_end_.load(std::memory_order_relaxed) >= up_to) return {};
    if (failure_) return *failure_;
    if (!syncing_) break;
    synced_.wait(lock);
  }
  syncing_ = true;
  lock.unlock();
  const std::uint64_t covered = end();
  auto result = log_->sync();
  const std::uint64_t before = durable_end_.load(std::memory_order_relaxed);
  if (result && covered - before >= kUndoDropCacheBytes) log_->drop_cache(before, covered - before);
  lock.lock();
  syncing_ = false;
  if (result)
    durable_end_.store(covered, std::memory_order_release);
  else
    failure_ = result.error();
  lock.unlock();
  synced_.notify_all();
  return result;
}

}  // namespace backhaul
