#include "dataplane/store/undo_batch.h"

#include <algorithm>

#include "checksum/block_digest.h"

namespace backhaul {

using namespace journal_layout;

MutableBytes UndoBatch::payload_of(const PlannedRecord& planned) {
  return buffer_.span().subspan(planned.at + kUndoRecordHeaderSize, planned.record.payload_bytes);
}

void UndoBatch::clear() {
  used_ = 0;
  read_ = 0;
  planned_.clear();
}

// What is planned is read, which leaves nothing of zeros but their record, and, if that is not enough, goes to the log.
Result<void> UndoBatch::make_room(std::uint64_t bytes) {
  if (used_ + bytes <= kSize) return {};
  BH_RETURN_IF_ERROR(read_planned());
  if (used_ + bytes <= kSize) return {};
  return append();
}

Result<void> UndoBatch::add_hole(std::uint64_t first, std::uint64_t end) {
  BH_RETURN_IF_ERROR(make_room(kUndoRecordHeaderSize));
  planned_.push_back({{UndoKind::hole, first, end - first}, used_});
  used_ += kUndoRecordHeaderSize;
  return {};
}

Result<std::uint64_t> UndoBatch::add_data(std::uint64_t first, std::uint64_t end) {
  BH_RETURN_IF_ERROR(make_room(kUndoRecordHeaderSize + kUndoChunkSize));
  const std::uint64_t room = (kSize - used_ - kUndoRecordHeaderSize) / kUndoChunkSize;
  end = std::min({end, first + room, first + kUndoMaxDataChunks});
  const std::uint64_t bytes = undo_bytes_of(header_, first, end - first);
  planned_.push_back({{UndoKind::data, first, end - first, bytes}, used_});
  used_ += kUndoRecordHeaderSize + align_up(bytes, kIoAlignment);
  return end;
}

// Reads what the planned records save, all at once.
Result<void> UndoBatch::read_planned() {
  std::vector<ReadPart> parts;
  for (std::size_t i = read_; i < planned_.size(); ++i)
    if (const auto& planned = planned_[i]; planned.record.kind == UndoKind::data)
      parts.push_back({planned.record.first * kUndoChunkSize, payload_of(planned)});
  BH_RETURN_IF_ERROR(file_.read_all(parts));
  for (const auto& part : parts)
    if (part.into.size() >= kUndoDropCacheBytes) file_.drop_cache(part.offset, part.into.size());
  if (read_ < planned_.size()) drop_zeros();
  return {};
}

// Of what is zero only the record stays, and what follows it moves up.
void UndoBatch::drop_zeros() {
  std::uint64_t to = planned_[read_].at;
  for (; read_ < planned_.size(); ++read_) {
    auto& planned = planned_[read_];
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
      std::memset(buffer_.span().data() + end, 0, align_up(end, kIoAlignment) - end);
    }
    to += kUndoRecordHeaderSize + align_up(payload.size(), kIoAlignment);
  }
  used_ = to;
}

Result<void> UndoBatch::append() {
  BH_RETURN_IF_ERROR(read_planned());
  if (used_ == 0) return {};
  BH_RETURN_IF_ERROR(log_.append(planned_, buffer_.span().first(used_)));
  clear();
  return {};
}

}  // namespace backhaul
