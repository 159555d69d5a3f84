#include "dataplane/store/undo_log.h"

#include <algorithm>
#include <array>
#include <string>

#include "dataplane/store/journal_layout.h"

namespace backhaul {

using namespace journal_layout;

static_assert(kUndoRecordHeaderSize == kIoAlignment && kUndoChunkSize % kIoAlignment == 0);

std::uint64_t undo_bytes_of(const UndoHeader& header, std::uint64_t first, std::uint64_t count) noexcept {
  return std::min((first + count) * kUndoChunkSize, header.old_size) - first * kUndoChunkSize;
}

void encode_undo_header(UndoHeader& header, MutableBytes into) noexcept {
  std::memset(into.data(), 0, kHeaderSize);
  store_le(&into[0], kUndoMagic);
  store_le(&into[8], kVersion);
  store_le(&into[16], static_cast<std::uint32_t>(kUndoChunkSize));
  store_le(&into[20], static_cast<std::uint32_t>(header.block_device ? 1 : 0));
  store_le(&into[24], header.old_size);
  store_identity(&into[32], header.identity);
  header.log_number = crc_without_field(Bytes(into).first(kHeaderCrcBytes), 12);
  store_le(&into[12], header.log_number);
}

Result<UndoHeader> decode_undo_header(Bytes bytes, std::string_view name) {
  const auto damaged = [&](const char* what) {
    return make_error(UndoErrc::damaged, "header of " + std::string(name) + ": " + what);
  };
  if (load_le<std::uint64_t>(&bytes[0]) != kUndoMagic) return damaged("no undo log");
  if (load_le<std::uint32_t>(&bytes[12]) != crc_without_field(bytes.first(kHeaderCrcBytes), 12))
    return damaged("wrong checksum");
  if (load_le<std::uint32_t>(&bytes[8]) != kVersion) return damaged("unknown version");
  if (load_le<std::uint32_t>(&bytes[16]) != kUndoChunkSize) return damaged("unknown chunk size");
  UndoHeader header;
  header.block_device = load_le<std::uint32_t>(&bytes[20]) != 0;
  header.old_size = load_le<std::uint64_t>(&bytes[24]);
  header.identity = load_identity(&bytes[32]);
  header.log_number = load_le<std::uint32_t>(&bytes[12]);
  if (header.old_size > kUndoMaxFileSize) return damaged("impossible file size");
  return header;
}

void encode_undo_record(const UndoHeader& header, const UndoRecord& record, MutableBytes into) noexcept {
  std::memset(into.data(), 0, kUndoRecordHeaderSize);
  store_le(&into[0], kUndoRecordMagic);
  store_le(&into[8], header.log_number);
  store_le(&into[12], static_cast<std::uint8_t>(record.kind));
  store_le(&into[16], record.first);
  store_le(&into[24], record.count);
  store_le(&into[32], record.payload_bytes);
  store_le(&into[40], record.durable_end);
  store_le(&into[48], record.offset);
  store_le(&into[56], record.payload_crc);
  store_le(&into[4], crc_without_field(Bytes(into).first(kUndoRecordHeaderUsed), 4));
}

std::optional<UndoRecord> decode_undo_record(const UndoHeader& header, Bytes bytes, std::uint64_t offset) noexcept {
  if (load_le<std::uint32_t>(&bytes[0]) != kUndoRecordMagic ||
      load_le<std::uint32_t>(&bytes[4]) != crc_without_field(bytes.first(kUndoRecordHeaderUsed), 4) ||
      load_le<std::uint32_t>(&bytes[8]) != header.log_number || load_le<std::uint64_t>(&bytes[48]) != offset)
    return std::nullopt;
  const auto kind = load_le<std::uint8_t>(&bytes[12]);
  UndoRecord record{static_cast<UndoKind>(kind),        load_le<std::uint64_t>(&bytes[16]),
                    load_le<std::uint64_t>(&bytes[24]), load_le<std::uint64_t>(&bytes[32]),
                    load_le<std::uint64_t>(&bytes[40]), offset,
                    load_le<std::uint32_t>(&bytes[56])};
  const std::uint64_t chunks = header.chunks();
  if (kind < 1 || kind > 3 || record.count == 0 || record.first >= chunks || record.count > chunks - record.first ||
      record.durable_end < kHeaderSize || record.durable_end > offset)
    return std::nullopt;
  if (record.kind == UndoKind::data) {
    if (record.count > kUndoMaxDataChunks || record.payload_bytes != undo_bytes_of(header, record.first, record.count))
      return std::nullopt;
  } else if (record.count > kUndoMaxRunChunks || record.payload_bytes != 0) {
    return std::nullopt;
  }
  return record;
}

Result<UndoLogReader> UndoLogReader::open(File& log) {
  UndoLogReader reader(log);
  if (log.size() < kHeaderSize) return make_error(UndoErrc::damaged, log.name() + " is shorter than its header");
  std::array<std::byte, kHeaderCrcBytes> bytes;
  BH_RETURN_IF_ERROR(log.read_at(0, bytes));
  BH_TRY(reader.header_, decode_undo_header(bytes, log.name()));
  BH_RETURN_IF_ERROR(reader.find_end());
  return reader;
}

Error UndoLogReader::damaged_at(std::uint64_t offset) const {
  return make_error(UndoErrc::damaged, log_->name() + ": record at offset " + std::to_string(offset));
}

// Without its payload, which only has to lie inside the file.
Result<std::optional<UndoRecord>> UndoLogReader::record_at(std::uint64_t offset) {
  std::array<std::byte, kUndoRecordHeaderUsed> bytes;
  if (log_->size() < kUndoRecordHeaderSize || offset > log_->size() - kUndoRecordHeaderSize)
    return std::optional<UndoRecord>{};
  BH_RETURN_IF_ERROR(log_->read_at(offset, bytes));
  auto record = decode_undo_record(header_, bytes, offset);
  if (record && record->end() > log_->size()) record.reset();
  return record;
}

// Headers first: they say how far the log was durable (R of the document). Payloads are read only behind that, where a
// crash may have torn them.
Result<void> UndoLogReader::find_end() {
  std::uint64_t chain_end = kHeaderSize, durable_end = kHeaderSize;
  for (;;) {
    BH_TRY(auto record, record_at(chain_end));
    if (!record) break;
    durable_end = std::max(durable_end, record->durable_end);
    chain_end = record->end();
  }
  BH_TRY(const auto vouched, largest_durable_end_behind(chain_end));
  durable_end = std::max(durable_end, vouched);
  if (durable_end > chain_end) return damaged_at(chain_end);
  end_ = durable_end;
  while (end_ < chain_end) {
    BH_TRY(const auto record, record_at(end_));
    if (!record) return damaged_at(end_);  // the durable end of a record was no boundary between records
    BH_TRY(const auto payload, read_payload(*record));
    if (!payload) break;
    end_ = record->end();
  }
  return {};
}

Result<std::uint64_t> UndoLogReader::largest_durable_end_behind(std::uint64_t offset) {
  std::uint64_t largest = 0;
  std::array<std::byte, kUndoRecordHeaderUsed> bytes;
  for (; offset + kUndoRecordHeaderSize <= log_->size(); offset += kUndoRecordHeaderSize) {
    BH_RETURN_IF_ERROR(log_->read_at(offset, bytes));
    if (const auto record = decode_undo_record(header_, bytes, offset))
      largest = std::max(largest, record->durable_end);
  }
  return largest;
}

Result<void> UndoLogReader::for_each(const std::function<Result<void>(const UndoRecord&)>& visit) {
  for (std::uint64_t offset = kHeaderSize; offset < end_;) {
    BH_TRY(const auto record, record_at(offset));
    if (!record) return damaged_at(offset);
    BH_RETURN_IF_ERROR(visit(*record));
    offset = record->end();
  }
  return {};
}

Result<std::optional<Bytes>> UndoLogReader::read_payload(const UndoRecord& record) {
  if (payload_.size() == 0) payload_ = AlignedBuffer(kUndoMaxDataChunks * kUndoChunkSize);
  const auto bytes = payload_.span().first(record.payload_bytes);
  if (!bytes.empty()) BH_RETURN_IF_ERROR(log_->read_at(record.payload_offset(), bytes));
  if (record.payload_crc != (bytes.empty() ? 0 : crc32c(bytes))) return std::optional<Bytes>{};
  return std::optional<Bytes>{Bytes(bytes)};
}

Result<void> UndoLogReader::collect(ChunkSet& chunks) {
  return for_each([&](const UndoRecord& record) -> Result<void> {
    chunks.insert(record.first, record.first + record.count);
    return {};
  });
}

}  // namespace backhaul
