#include "dataplane/store/undo.h"

#include <algorithm>
#include <array>

#include "dataplane/disk/whole_file.h"
#include "dataplane/store/journal_layout.h"
#include "dataplane/store/undo_batch.h"
#include "dataplane/store/undo_claims.h"
#include "dataplane/store/undo_commit.h"

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

class UndoFile final : public File {
 public:
  UndoFile(std::unique_ptr<File> file, std::unique_ptr<File> log, const UndoHeader& header, std::uint64_t log_end)
      : file_(std::move(file)), header_(header), log_(std::move(log), header, log_end), claims_(header.old_size) {}

  ChunkSet& saved() noexcept { return claims_.saved(); }

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
  Result<void> save(ByteRange range) { return save_ranges({&range, 1}); }
  Result<void> save_ranges(std::span<const ByteRange> ranges);
  Result<void> save_claimed(std::size_t saver, std::span<const ByteRange> ranges);
  Result<void> save_runs(std::size_t saver, std::span<const ChunkRun> runs);
  std::uint64_t extend_hole(std::size_t saver, std::uint64_t first, std::uint64_t end, std::uint64_t hole_end);

  const std::unique_ptr<File> file_;
  const UndoHeader header_;
  UndoCommit log_;
  UndoClaims claims_;
  std::array<std::unique_ptr<UndoBatch>, UndoClaims::kMaxSavers> batches_;  // each its saver's; made when first needed
};

// A caller gives its own claims back before it waits for those of others.
Result<void> UndoFile::save_ranges(std::span<const ByteRange> ranges) {
  while (!claims_.all_saved(ranges)) {
    const auto saver = claims_.enter();
    auto result = save_claimed(saver, ranges);
    claims_.leave(saver);
    if (!result) return result;
    claims_.wait_for_others(ranges);
  }
  return {};
}

// Saves what nobody else saves, in rounds of bounded size.
Result<void> UndoFile::save_claimed(std::size_t saver, std::span<const ByteRange> ranges) {
  UndoClaims::Cursor cursor;
  std::vector<ChunkRun> runs;
  for (bool more = true; more;) {
    more = claims_.claim(saver, ranges, cursor, runs);
    if (runs.empty()) continue;
    auto result = save_runs(saver, runs);
    claims_.finish(saver, result.has_value());
    if (!result) return result;
  }
  return {};
}

// Durable when this returns. Nothing writes to the claimed chunks meanwhile, so what next_data and read_at say about
// them holds.
Result<void> UndoFile::save_runs(std::size_t saver, std::span<const ChunkRun> runs) {
  auto& batch = batches_[saver];
  if (!batch) batch = std::make_unique<UndoBatch>(header_, *file_, log_);
  batch->clear();
  std::optional<ByteRange> data;  // what next_data said last; holds for every later place up to its end
  bool asked = false;
  std::uint64_t next = 0;  // chunks before are done; an extended hole may reach over later runs
  for (const ChunkRun run : runs) {
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
        const std::uint64_t end = extend_hole(saver, next, std::min(run.end, data_first), data_first);
        BH_RETURN_IF_ERROR(batch->add_hole(next, end));
        next = end;
      } else {
        const std::uint64_t data_end = std::max(next + 1, div_up(data->end(), kUndoChunkSize));
        BH_TRY(next, batch->add_data(next, std::min(run.end, data_end)));
      }
    }
  }
  BH_RETURN_IF_ERROR(batch->append());
  return log_.sync();
}

// The rest of a hole is claimed too, as far as nobody else saved or claimed it.
std::uint64_t UndoFile::extend_hole(std::size_t saver, std::uint64_t first, std::uint64_t end, std::uint64_t hole_end) {
  hole_end = std::min(hole_end, first + kUndoMaxRunChunks);
  return end >= hole_end ? hole_end : claims_.extend(saver, end, hole_end);
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
