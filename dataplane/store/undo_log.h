// The undo log's format (docs/journal_format.md, section 3): headers in and out of bytes, and the reader that says
// which records count. No state of its own; used by dataplane/store/undo.cpp.
#pragma once

#include <functional>
#include <optional>

#include "dataplane/disk/chunk_set.h"
#include "dataplane/disk/io.h"
#include "dataplane/store/undo.h"

namespace backhaul {

struct UndoHeader {
  std::uint64_t old_size = 0;
  bool block_device = false;
  FileIdentity identity;
  std::uint32_t log_number = 0;  // set by encoding and decoding

  std::uint64_t chunks() const noexcept { return div_up(old_size, kUndoChunkSize); }
};

enum class UndoKind : std::uint8_t { data = 1, hole = 2, zero = 3 };

struct UndoRecord {
  UndoKind kind = UndoKind::data;
  std::uint64_t first = 0, count = 0;  // chunks
  std::uint64_t payload_bytes = 0;
  std::uint64_t durable_end = 0;
  std::uint64_t offset = 0;  // of the record in the log
  std::uint32_t payload_crc = 0;

  std::uint64_t payload_offset() const noexcept { return offset + kIoAlignment; }
  std::uint64_t end() const noexcept { return payload_offset() + align_up(payload_bytes, kIoAlignment); }
};

// Old bytes of the chunks [first, first + count): the last chunk of the file may be short.
std::uint64_t undo_bytes_of(const UndoHeader& header, std::uint64_t first, std::uint64_t count) noexcept;

// `into` has 4096 bytes.
void encode_undo_header(UndoHeader& header, MutableBytes into) noexcept;
// `bytes` has at least 512 bytes. Error: UndoErrc::damaged.
Result<UndoHeader> decode_undo_header(Bytes bytes, std::string_view name);

// `into` has 4096 bytes.
void encode_undo_record(const UndoHeader& header, const UndoRecord& record, MutableBytes into) noexcept;
// `bytes` has at least 64. Nothing when they are no record of this log at this offset, or one that makes no sense.
std::optional<UndoRecord> decode_undo_record(const UndoHeader& header, Bytes bytes, std::uint64_t offset) noexcept;

// Reads a log. One thread; the file outlives it.
class UndoLogReader {
 public:
  // Reads the header and finds the end. Error: UndoErrc::damaged.
  static Result<UndoLogReader> open(File& log);

  const UndoHeader& header() const noexcept { return header_; }
  // Where the records that count end; what lies behind was torn.
  std::uint64_t end() const noexcept { return end_; }

  // Calls `visit` for the records that count, in the order they were written; its error ends the walk.
  Result<void> for_each(const std::function<Result<void>(const UndoRecord&)>& visit);
  // Reads the payload into a buffer of the reader; valid until the next call. Nothing when its CRC is wrong.
  Result<std::optional<Bytes>> read_payload(const UndoRecord& record);
  // The chunks of all records.
  Result<void> collect(ChunkSet& chunks);
  Error damaged_at(std::uint64_t offset) const;

 private:
  explicit UndoLogReader(File& log) : log_(&log) {}
  Result<std::optional<UndoRecord>> record_at(std::uint64_t offset);
  Result<void> find_end();
  Result<std::uint64_t> largest_durable_end_behind(std::uint64_t offset);

  File* log_;
  UndoHeader header_;
  std::uint64_t end_ = 0;
  AlignedBuffer payload_;
};

}  // namespace backhaul
