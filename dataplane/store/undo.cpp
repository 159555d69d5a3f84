#include "dataplane/store/undo.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <vector>

#include "checksum/block_digest.h"
#include "dataplane/disk/whole_file.h"
#include "dataplane/store/journal_layout.h"
#include "dataplane/store/undo_log.h"

namespace backhaul {
namespace {

using namespace journal_layout;

constexpr ErrorInfo kUndoErrors[] = {
    {"undo.damaged", "the undo log is damaged, so the old disk cannot be given back whole",
     "Check the device that holds the store. Finish the transfer instead of cancelling it, or restore the disk from a "
     "backup.",
     Retry::no},
    {"undo.wrong_file", "the undo log does not belong to this file",
     "Put the disk's file back under the name that the session gave it, then run the same command again.", Retry::no},
};

// Limits (docs/journal_format.md, section 3): what one caller saves between two syncs, and how many do so at once.
constexpr std::uint64_t kBatchBytes = kUndoMaxDataChunks * (kUndoChunkSize + kUndoRecordHeaderSize);
constexpr std::size_t kMaxBatches = 4;
constexpr std::uint64_t kMaxRoundChunks = kUndoMaxRunChunks;
constexpr std::size_t kMaxRoundRuns = 512;
constexpr std::uint64_t kDropCacheBytes = 256 * kKiB;

struct ChunkRun {
  std::uint64_t first = 0, end = 0;
  bool contains(std::uint64_t chunk) const noexcept { return chunk >= first && chunk < end; }
};

struct PlannedRecord {
  UndoRecord record;
  std::uint64_t at = 0;  // in the batch buffer
};

// What one caller of prepare_write works with; reused by the next one.
struct Batch {
  std::vector<ChunkRun> runs;     // to save in this round, sorted, disjoint; only the owner touches it
  std::vector<ChunkRun> claimed;  // under the file's mutex: what others have to wait for
  AlignedBuffer buffer;           // record headers and payloads as they go to the log
  std::vector<PlannedRecord> planned;
  std::size_t read = 0;  // records before have their content; those of kind data after it are still to be read
  std::uint64_t used = 0;
};

class UndoFile final : public File {
 public:
  UndoFile(std::unique_ptr<File> file, std::unique_ptr<File> log, const UndoHeader& header, std::uint64_t log_end)
      : file_(std::move(file)),
        log_(std::move(log)),
        header_(header),
        saved_(header.chunks()),
        log_end_(log_end),
        durable_end_(log_end) {}

  ChunkSet& saved() noexcept { return saved_; }

  const std::string& name() const noexcept override { return file_->name(); }
  std::uint64_t size() const noexcept override { return file_->size(); }
  bool is_block_device() const noexcept override { return file_->is_block_device(); }
  std::uint32_t io_alignment() const noexcept override { return file_->io_alignment(); }
  File& native() noexcept override { return file_->native(); }
  Result<void> sync() override { return file_->sync(); }
  Result<FileIdentity> identity() override { return file_->identity(); }
  Result<std::optional<ByteRange>> next_data(std::uint64_t from) override { return file_->next_data(from); }
  void drop_cache(std::uint64_t offset, std::uint64_t length) noexcept override { file_->drop_cache(offset, length); }
  Result<void> read_at(std::uint64_t offset, MutableBytes into) override { return file_->read_at(offset, into); }
  Result<void> read_all(std::span<const ReadPart> parts) override { return file_->read_all(parts); }

  Result<void> write_at(std::uint64_t offset, Bytes from) override {
    BH_RETURN_IF_ERROR(save({offset, from.size()}));
    return file_->write_at(offset, from);
  }
  Result<void> write_through(std::uint64_t offset, Bytes from) override {
    BH_RETURN_IF_ERROR(save({offset, from.size()}));
    return file_->write_through(offset, from);
  }
  Result<void> zero_at(std::uint64_t offset, std::uint64_t length) override {
    BH_RETURN_IF_ERROR(save({offset, length}));
    return file_->zero_at(offset, length);
  }
  Result<void> resize(std::uint64_t new_size) override {
    if (new_size < file_->size()) BH_RETURN_IF_ERROR(save({new_size, file_->size() - new_size}));
    return file_->resize(new_size);
  }
  Result<void> prepare_write(std::span<const ByteRange> ranges) override {
    BH_RETURN_IF_ERROR(save_ranges(ranges));
    return file_->prepare_write(ranges);
  }

 private:
  struct Cursor {
    std::size_t range = 0;
    std::uint64_t chunk = 0;
  };

  Result<void> save(ByteRange range) { return save_ranges({&range, 1}); }
  Result<void> save_ranges(std::span<const ByteRange> ranges);
  bool all_saved(std::span<const ByteRange> ranges) const noexcept;
  ChunkRun chunks_of(const ByteRange& range) const noexcept;
  Batch& take_batch();
  void return_batch(Batch& batch);
  bool claim(std::span<const ByteRange> ranges, Cursor& cursor, Batch& batch);
  bool claimed_by_other(std::uint64_t chunk, const Batch* own) const noexcept;
  void finish_claims(Batch& batch, bool saved);
  void wait_for_others(std::span<const ByteRange> ranges);

  Result<void> save_batch(Batch& batch);
  Result<void> add_hole(Batch& batch, std::uint64_t first, std::uint64_t end);
  Result<std::uint64_t> add_data(Batch& batch, std::uint64_t first, std::uint64_t end);
  std::uint64_t extend_hole(Batch& batch, std::uint64_t first, std::uint64_t end, std::uint64_t hole_end);
  static void clear(Batch& batch);
  Result<void> make_room(Batch& batch, std::uint64_t bytes);
  Result<void> read_planned(Batch& batch);
  Result<void> append(Batch& batch);
  Result<void> sync_log(std::uint64_t up_to);

  const std::unique_ptr<File> file_;
  const std::unique_ptr<File> log_;
  const UndoHeader header_;
  ChunkSet saved_;  // durable in the log; inserts under mutex_

  // Who is saving what. Never held over I/O.
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<Batch>> batches_;
  std::vector<Batch*> idle_;

  std::mutex append_mutex_;  // one append at a time, so that a sync covers all that stands before what it covers
  std::uint64_t log_end_;    // under append_mutex_ while writing; read by syncs under it

  std::mutex sync_mutex_;
  std::condition_variable synced_;
  bool syncing_ = false;
  std::optional<Error> sync_failure_;       // for good: after a failed sync the cache lies about what is durable
  std::atomic<std::uint64_t> durable_end_;  // changes under sync_mutex_
};

ChunkRun UndoFile::chunks_of(const ByteRange& range) const noexcept {
  if (range.length == 0 || range.offset >= header_.old_size) return {};
  const std::uint64_t end = std::min(range.length, header_.old_size - range.offset) + range.offset;
  return {range.offset / kUndoChunkSize, div_up(end, kUndoChunkSize)};
}

bool UndoFile::all_saved(std::span<const ByteRange> ranges) const noexcept {
  return std::all_of(ranges.begin(), ranges.end(), [&](const ByteRange& range) {
    const ChunkRun run = chunks_of(range);
    return saved_.contains_all(run.first, run.end);
  });
}

// Saves in rounds of bounded size. A caller gives its own claims back before it waits for those of others, so that two
// callers with common chunks cannot wait for each other.
Result<void> UndoFile::save_ranges(std::span<const ByteRange> ranges) {
  while (!all_saved(ranges)) {
    Batch& batch = take_batch();
    Cursor cursor;
    bool more = true;
    while (more) {
      more = claim(ranges, cursor, batch);
      if (batch.runs.empty()) continue;
      auto result = save_batch(batch);
      finish_claims(batch, result.has_value());
      if (!result) {
        return_batch(batch);
        return result;
      }
    }
    return_batch(batch);
    wait_for_others(ranges);
  }
  return {};
}

Batch& UndoFile::take_batch() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !idle_.empty() || batches_.size() < kMaxBatches; });
  if (idle_.empty()) {
    batches_.push_back(std::make_unique<Batch>());
    batches_.back()->buffer = AlignedBuffer(kBatchBytes);
    return *batches_.back();
  }
  Batch& batch = *idle_.back();
  idle_.pop_back();
  return batch;
}

void UndoFile::return_batch(Batch& batch) {
  {
    std::lock_guard lock(mutex_);
    idle_.push_back(&batch);
  }
  changed_.notify_all();
}

bool UndoFile::claimed_by_other(std::uint64_t chunk, const Batch* own) const noexcept {
  for (const auto& batch : batches_) {
    if (batch.get() == own) continue;
    for (const ChunkRun& run : batch->claimed)
      if (run.contains(chunk)) return true;
  }
  return false;
}

// Takes chunks from `cursor` on that are neither saved nor being saved into batch.runs. True when the round is full and
// more is left.
bool UndoFile::claim(std::span<const ByteRange> ranges, Cursor& cursor, Batch& batch) {
  batch.runs.clear();
  std::lock_guard lock(mutex_);
  std::uint64_t looked_at = 0;
  bool full = false;
  for (; cursor.range < ranges.size(); ++cursor.range, cursor.chunk = 0) {
    const ChunkRun wanted = chunks_of(ranges[cursor.range]);
    std::uint64_t chunk = std::max(cursor.chunk, wanted.first);
    for (; chunk < wanted.end; ++chunk) {
      if (looked_at++ == kMaxRoundChunks || batch.runs.size() == kMaxRoundRuns) {
        full = true;
        break;
      }
      if (saved_.contains(chunk) || claimed_by_other(chunk, &batch)) continue;
      if (!batch.runs.empty() && batch.runs.back().end == chunk) {
        ++batch.runs.back().end;
      } else if (batch.runs.empty() || !batch.runs.back().contains(chunk)) {
        batch.runs.push_back({chunk, chunk + 1});
      }
    }
    cursor.chunk = chunk;
    if (full) break;
  }
  // Ranges may come in any order and share chunks.
  std::sort(batch.runs.begin(), batch.runs.end(), [](auto& a, auto& b) { return a.first < b.first; });
  std::size_t kept = 0;
  for (const ChunkRun run : batch.runs) {
    if (kept > 0 && run.first <= batch.runs[kept - 1].end)
      batch.runs[kept - 1].end = std::max(batch.runs[kept - 1].end, run.end);
    else
      batch.runs[kept++] = run;
  }
  batch.runs.resize(kept);
  batch.claimed = batch.runs;
  return full;
}

void UndoFile::finish_claims(Batch& batch, bool saved) {
  {
    std::lock_guard lock(mutex_);
    if (saved)
      for (const ChunkRun& run : batch.claimed) saved_.insert(run.first, run.end);
    batch.claimed.clear();
  }
  changed_.notify_all();
}

void UndoFile::wait_for_others(std::span<const ByteRange> ranges) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] {
    for (const auto& batch : batches_)
      for (const ChunkRun& claimed : batch->claimed)
        for (const ByteRange& range : ranges) {
          const ChunkRun run = chunks_of(range);
          if (run.first < claimed.end && claimed.first < run.end) return false;
        }
    return true;
  });
}

// Durable when this returns. Nothing writes to the claimed chunks meanwhile, so what next_data and read_at say about
// them holds.
Result<void> UndoFile::save_batch(Batch& batch) {
  clear(batch);
  std::optional<ByteRange> data;  // what next_data said last; holds for every later place up to its end
  bool asked = false;
  std::uint64_t next = 0;  // chunks before are done; an extended hole may reach over later runs
  for (const ChunkRun run : batch.runs) {
    next = std::max(next, run.first);
    while (next < run.end) {
      const std::uint64_t offset = next * kUndoChunkSize;
      if (!asked || (data && offset >= data->end())) {
        BH_TRY(data, file_->next_data(offset));
        asked = true;
      }
      const std::uint64_t data_first =
          data ? std::min(data->offset / kUndoChunkSize, header_.chunks()) : header_.chunks();
      if (data_first > next) {
        const std::uint64_t end = extend_hole(batch, next, std::min(run.end, data_first), data_first);
        BH_RETURN_IF_ERROR(add_hole(batch, next, end));
        next = end;
      } else {
        const std::uint64_t data_end = std::max(next + 1, div_up(data->end(), kUndoChunkSize));
        BH_TRY(next, add_data(batch, next, std::min(run.end, data_end)));
      }
    }
  }
  BH_RETURN_IF_ERROR(append(batch));
  std::uint64_t end = 0;
  {
    std::lock_guard lock(append_mutex_);
    end = log_end_;
  }
  return sync_log(end);
}

// The rest of a hole is claimed too, as far as nobody else saved or claimed it.
std::uint64_t UndoFile::extend_hole(Batch& batch, std::uint64_t first, std::uint64_t end, std::uint64_t hole_end) {
  hole_end = std::min(hole_end, first + kUndoMaxRunChunks);
  if (end >= hole_end) return hole_end;
  std::lock_guard lock(mutex_);
  const std::uint64_t old_end = end;
  while (end < hole_end && !saved_.contains(end) && !claimed_by_other(end, &batch)) ++end;
  if (end > old_end) batch.claimed.push_back({old_end, end});
  return end;
}

// Makes room in the batch buffer: what is planned is read, which leaves nothing of zeros but their record, and, if that
// is not enough, goes to the log.
Result<void> UndoFile::make_room(Batch& batch, std::uint64_t bytes) {
  if (batch.used + bytes <= kBatchBytes) return {};
  BH_RETURN_IF_ERROR(read_planned(batch));
  if (batch.used + bytes <= kBatchBytes) return {};
  return append(batch);
}

Result<void> UndoFile::add_hole(Batch& batch, std::uint64_t first, std::uint64_t end) {
  BH_RETURN_IF_ERROR(make_room(batch, kUndoRecordHeaderSize));
  batch.planned.push_back({{UndoKind::hole, first, end - first}, batch.used});
  batch.used += kUndoRecordHeaderSize;
  return {};
}

// Plans one record up to `end`, as much as the buffer has room for. Returns where it stops.
Result<std::uint64_t> UndoFile::add_data(Batch& batch, std::uint64_t first, std::uint64_t end) {
  BH_RETURN_IF_ERROR(make_room(batch, kUndoRecordHeaderSize + kUndoChunkSize));
  const std::uint64_t room = (kBatchBytes - batch.used - kUndoRecordHeaderSize) / kUndoChunkSize;
  end = std::min({end, first + room, first + kUndoMaxDataChunks});
  const std::uint64_t bytes = undo_bytes_of(header_, first, end - first);
  batch.planned.push_back({{UndoKind::data, first, end - first, bytes}, batch.used});
  batch.used += kUndoRecordHeaderSize + align_up(bytes, kIoAlignment);
  return end;
}

// Reads what the planned records save, all at once; then what is zero is let go, and what follows it moves up.
Result<void> UndoFile::read_planned(Batch& batch) {
  const auto payload_of = [&](const PlannedRecord& planned) {
    return batch.buffer.span().subspan(planned.at + kUndoRecordHeaderSize, planned.record.payload_bytes);
  };
  std::vector<ReadPart> parts;
  for (std::size_t i = batch.read; i < batch.planned.size(); ++i)
    if (const auto& planned = batch.planned[i]; planned.record.kind == UndoKind::data)
      parts.push_back({planned.record.first * kUndoChunkSize, payload_of(planned)});
  BH_RETURN_IF_ERROR(file_->read_all(parts));
  for (const auto& part : parts)
    if (part.into.size() >= kDropCacheBytes) file_->drop_cache(part.offset, part.into.size());
  if (batch.read == batch.planned.size()) return {};
  std::uint64_t to = batch.planned[batch.read].at;
  for (; batch.read < batch.planned.size(); ++batch.read) {
    auto& planned = batch.planned[batch.read];
    auto payload = payload_of(planned);
    if (planned.record.kind == UndoKind::data && is_zero(payload)) {
      planned.record = {UndoKind::zero, planned.record.first, planned.record.count};
      payload = {};
    }
    planned.at = to;
    if (!payload.empty()) {
      const auto place = payload_of(planned);
      if (place.data() != payload.data()) std::memmove(place.data(), payload.data(), payload.size());
      planned.record.payload_crc = crc32c(place);
      const auto end = planned.at + kUndoRecordHeaderSize + payload.size();
      std::memset(batch.buffer.span().data() + end, 0, align_up(end, kIoAlignment) - end);
    }
    to += kUndoRecordHeaderSize + align_up(payload.size(), kIoAlignment);
  }
  batch.used = to;
  return {};
}

void UndoFile::clear(Batch& batch) {
  batch.used = 0;
  batch.read = 0;
  batch.planned.clear();
}

// Writes what is planned to the end of the log. After an error the log ends where it ended before.
Result<void> UndoFile::append(Batch& batch) {
  BH_RETURN_IF_ERROR(read_planned(batch));
  if (batch.used == 0) return {};
  std::lock_guard lock(append_mutex_);
  for (auto& [record, at] : batch.planned) {
    record.offset = log_end_ + at;
    record.durable_end = durable_end_.load(std::memory_order_acquire);
    encode_undo_record(header_, record, batch.buffer.span().subspan(at, kUndoRecordHeaderSize));
  }
  BH_RETURN_IF_ERROR(log_->write_through(log_end_, Bytes(batch.buffer.span()).first(batch.used)));
  log_end_ += batch.used;
  clear(batch);
  return {};
}

// Group commit: whoever comes while a sync runs waits for it, and one of them does the next for all.
Result<void> UndoFile::sync_log(std::uint64_t up_to) {
  std::unique_lock lock(sync_mutex_);
  for (;;) {
    if (durable_end_.load(std::memory_order_relaxed) >= up_to) return {};
    if (sync_failure_) return *sync_failure_;
    if (!syncing_) break;
    synced_.wait(lock);
  }
  syncing_ = true;
  lock.unlock();
  std::uint64_t covered = 0;
  {
    std::lock_guard append_lock(append_mutex_);
    covered = log_end_;
  }
  auto result = log_->sync();
  const std::uint64_t before = durable_end_.load(std::memory_order_relaxed);
  if (result && covered - before >= kDropCacheBytes) log_->drop_cache(before, covered - before);
  lock.lock();
  syncing_ = false;
  if (result)
    durable_end_.store(covered, std::memory_order_release);
  else
    sync_failure_ = result.error();
  lock.unlock();
  synced_.notify_all();
  return result;
}

// Whether the log can be this file's: same kind, a device has its size, and what is missing at the end of a file was
// saved.
Result<void> check_file(const UndoHeader& header, const ChunkSet& saved, const File& file) {
  const auto wrong = [&](const std::string& what) {
    return make_error(UndoErrc::wrong_file, file.name() + " " + what);
  };
  if (header.block_device != file.is_block_device())
    return wrong(file.is_block_device() ? "is a block device" : "is no block device");
  if (file.is_block_device() && file.size() != header.old_size)
    return wrong("has " + std::to_string(file.size()) + " bytes, not " + std::to_string(header.old_size));
  if (file.size() < header.old_size && !saved.contains_all(file.size() / kUndoChunkSize, header.chunks()))
    return wrong("has only " + std::to_string(file.size()) + " bytes, and the log does not hold the rest");
  return {};
}

// Writes back those chunks of the record that no earlier record gave.
Result<void> restore_record(const UndoHeader& header, const UndoRecord& record, Bytes payload, ChunkSet& restored,
                            File& file) {
  const std::uint64_t record_end = record.first + record.count;
  for (std::uint64_t first = record.first; first < record_end;) {
    if (restored.contains(first)) {
      ++first;
      continue;
    }
    std::uint64_t end = first + 1;
    while (end < record_end && !restored.contains(end)) ++end;
    const std::uint64_t offset = first * kUndoChunkSize, length = undo_bytes_of(header, first, end - first);
    if (record.kind == UndoKind::data)
      BH_RETURN_IF_ERROR(file.write_at(offset, payload.subspan((first - record.first) * kUndoChunkSize, length)));
    else
      BH_RETURN_IF_ERROR(file.zero_at(offset, length));
    restored.insert(first, end);
    first = end;
  }
  return {};
}

}  // namespace

const ErrorCategory& undo_category() noexcept {
  static const TableCategory category("undo", kUndoErrors);
  return category;
}

Result<void> create_undo_log(Storage& storage, std::string_view log_path, File& file) {
  if (file.size() > kUndoMaxFileSize)
    return make_error(BaseErrc::invalid_argument, file.name() + " is larger than an undo log can describe");
  UndoHeader header;
  header.old_size = file.size();
  header.block_device = file.is_block_device();
  BH_TRY(header.identity, file.identity());
  std::array<std::byte, kHeaderSize> bytes;
  encode_undo_header(header, bytes);
  return create_whole_file(storage, log_path, [&](File& log) { return log.write_at(0, bytes); });
}

Result<std::unique_ptr<File>> open_undo_file(Storage& storage, std::string_view log_path, std::unique_ptr<File> file) {
  BH_TRY(auto log, storage.open(log_path, OpenMode::write));
  BH_RETURN_IF_ERROR(sync_and_drop_cache(*log));
  BH_TRY(auto reader, UndoLogReader::open(*log));
  File& log_file = *log;
  auto undo = std::make_unique<UndoFile>(std::move(file), std::move(log), reader.header(), reader.end());
  BH_RETURN_IF_ERROR(reader.collect(undo->saved()));
  BH_RETURN_IF_ERROR(check_file(reader.header(), undo->saved(), *undo));
  if (log_file.size() > reader.end()) {
    BH_RETURN_IF_ERROR(log_file.resize(reader.end()));
    BH_RETURN_IF_ERROR(log_file.sync());
  }
  return std::unique_ptr<File>(std::move(undo));
}

Result<void> restore_undo_log(Storage& storage, std::string_view log_path, File& file) {
  BH_TRY(auto log, storage.open(log_path, OpenMode::read));
  BH_TRY(auto reader, UndoLogReader::open(*log));
  const UndoHeader& header = reader.header();
  {
    ChunkSet saved(header.chunks());
    BH_RETURN_IF_ERROR(reader.collect(saved));
    BH_RETURN_IF_ERROR(check_file(header, saved, file));
  }
  if (file.size() != header.old_size) BH_RETURN_IF_ERROR(file.resize(header.old_size));
  ChunkSet restored(header.chunks());
  BH_RETURN_IF_ERROR(reader.for_each([&](const UndoRecord& record) -> Result<void> {
    BH_TRY(const auto payload, reader.read_payload(record));
    if (!payload) return reader.damaged_at(record.offset);
    return restore_record(header, record, *payload, restored, file);
  }));
  return file.sync();
}

}  // namespace backhaul
