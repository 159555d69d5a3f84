#include "dataplane/disk/vhdx_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "checksum/crc32c.h"
#include "dataplane/disk/vhdx.h"

namespace backhaul::vhdx {
namespace {

// No VHDX is longer: 64 TiB of blocks, and room for everything else.
constexpr std::uint64_t kMaxFileSize = 65 * kTiB;

std::uint64_t header_sectors(const LogEntryHeader& header) noexcept {
  return div_up(sizeof(LogEntryHeader) + std::uint64_t{header.descriptor_count} * sizeof(LogDescriptor), kLogSector);
}

}  // namespace

class PendingLog::CheckingReceiver final : public Receiver {
 public:
  Result<void> grow_to(std::uint64_t) override { return {}; }
  Result<void> change(ByteRange, Bytes) override { return {}; }
};

class PendingLog::FileReceiver final : public Receiver {
 public:
  explicit FileReceiver(File& file) : file_(file) {}
  Result<void> grow_to(std::uint64_t size) override {
    if (size <= file_.size()) return {};
    return file_.resize(size);
  }
  Result<void> change(ByteRange range, Bytes page) override {
    return page.empty() ? file_.zero_at(range.offset, range.length) : file_.write_at(range.offset, page);
  }

 private:
  File& file_;
};

class PendingLog::ViewReceiver final : public Receiver {
 public:
  explicit ViewReceiver(View& view) : view_(view) {}
  Result<void> grow_to(std::uint64_t size) override {
    view_.grow_to(size);
    return {};
  }
  Result<void> change(ByteRange range, Bytes page) override {
    if (page.empty())
      view_.add_zeros(range);
    else
      view_.add_page(range.offset, page);
    return {};
  }

 private:
  View& view_;
};

Error PendingLog::bad_log(std::string_view fact) const {
  return make_error(VhdxErrc::bad_log, fmt::format("{}: {}", file_->name(), fact));
}

Result<PendingLog> PendingLog::find(File& file, const Header& header) {
  PendingLog log;
  log.file_ = &file;
  log.guid_ = header.log_guid;
  log.log_offset_ = header.log_offset;
  log.log_length_ = header.log_length;
  if (header.log_length > kMaxReplayedLog)
    return log.bad_log(
        fmt::format("a pending log of {} bytes; at most {} are replayed", header.log_length, kMaxReplayedLog));
  // A sequence that wraps is read twice, every other entry once.
  log.budget_bytes_ = 8 * std::uint64_t{header.log_length};
  BH_RETURN_IF_ERROR(log.find_active_sequence());
  log.grown_size_ = file.size();
  for (const auto& entry : log.entries_) {
    if (entry.header.flushed_file_offset > file.size())
      return make_error(VhdxErrc::truncated, fmt::format("{} has {} bytes; its log was written when it had {}",
                                                         file.name(), file.size(), entry.header.flushed_file_offset));
    if (entry.header.last_file_offset > kMaxFileSize)
      return log.bad_log(fmt::format("an entry grows the file to {} bytes", entry.header.last_file_offset));
    log.grown_size_ = std::max(log.grown_size_, entry.header.last_file_offset);
  }
  CheckingReceiver checking;
  BH_RETURN_IF_ERROR(log.replay(checking));
  return log;
}

Result<void> PendingLog::replay(File& file) const {
  FileReceiver receiver(file);
  BH_RETURN_IF_ERROR(replay(receiver));
  return file.sync();
}

Result<void> PendingLog::replay(View& view) const {
  ViewReceiver receiver(view);
  return replay(receiver);
}

Result<void> PendingLog::read_ring(std::uint64_t position, MutableBytes into) const {
  position %= log_length_;
  const auto first = std::min<std::uint64_t>(into.size(), log_length_ - position);
  BH_RETURN_IF_ERROR(file_->read_at(log_offset_ + position, into.first(first)));
  if (first == into.size()) return {};
  return file_->read_at(log_offset_, into.subspan(first));
}

Result<std::optional<PendingLog::Entry>> PendingLog::read_entry(std::uint32_t position) {
  std::vector<std::byte> bytes(kLogSector);
  BH_RETURN_IF_ERROR(read_ring(position, bytes));
  const auto header = load<LogEntryHeader>(bytes);
  const std::optional<Entry> none;
  if (header.signature != kLogEntrySignature || header.log_guid != guid_ || header.sequence_number == 0 ||
      header.entry_length == 0 || header.entry_length % kLogSector != 0 || header.entry_length > log_length_ ||
      header.tail % kLogSector != 0 || header.tail >= log_length_ ||
      header_sectors(header) * kLogSector > header.entry_length)
    return none;
  if (header.entry_length > budget_bytes_) return bad_log("too many overlapping entries");
  budget_bytes_ -= header.entry_length;

  constexpr std::uint32_t kChunk = 64 * kKiB;
  auto unchecked = header;
  unchecked.checksum = 0;
  store(bytes, 0, unchecked);
  std::uint32_t crc = crc32c(bytes);
  for (std::uint32_t done = kLogSector; done < header.entry_length;) {
    bytes.resize(std::min(kChunk, header.entry_length - done));
    BH_RETURN_IF_ERROR(read_ring(std::uint64_t{position} + done, bytes));
    crc = crc32c_extend(crc, bytes);
    done += static_cast<std::uint32_t>(bytes.size());
  }
  if (crc != header.checksum) return none;
  return std::optional(Entry{position, header});
}

// The longest run of valid entries with consecutive sequence numbers from `tail` on.
Result<std::vector<PendingLog::Entry>> PendingLog::read_sequence(std::uint32_t tail) {
  std::vector<Entry> sequence;
  std::uint64_t covered = 0;
  for (std::uint64_t head = tail; covered < log_length_;) {
    BH_TRY(const auto entry, read_entry(static_cast<std::uint32_t>(head)));
    if (!entry) break;
    if (!sequence.empty() && entry->header.sequence_number != sequence.back().header.sequence_number + 1) break;
    sequence.push_back(*entry);
    covered += entry->header.entry_length;
    head = (head + entry->header.entry_length) % log_length_;
  }
  return sequence;
}

// 2.3.3: the active sequence has the greatest sequence number of those that hold their last entry's tail; its replay
// starts at that tail.
Result<void> PendingLog::find_active_sequence() {
  for (std::uint32_t tail = 0; tail < log_length_;) {
    BH_TRY(auto sequence, read_sequence(tail));
    if (sequence.empty()) {
      tail += kLogSector;
      continue;
    }
    const auto last = sequence.back();
    const auto first_needed = std::ranges::find(sequence, last.header.tail, &Entry::offset);
    if (first_needed != sequence.end() &&
        (entries_.empty() || last.header.sequence_number > entries_.back().header.sequence_number))
      entries_.assign(first_needed, sequence.end());
    const auto next = (last.offset + last.header.entry_length) % log_length_;
    if (next <= tail) break;  // went around the ring
    tail = next;
  }
  if (entries_.empty()) return bad_log("the header names a log, but there is no valid sequence of entries in it");
  return {};
}

Result<void> PendingLog::replay(Receiver& receiver) const {
  BH_RETURN_IF_ERROR(receiver.grow_to(grown_size_));
  for (const auto& entry : entries_) BH_RETURN_IF_ERROR(replay_entry(entry, receiver));
  return {};
}

Result<void> PendingLog::replay_entry(const Entry& entry, Receiver& receiver) const {
  std::array<std::byte, kLogSector> sector;
  std::uint32_t loaded_sector = ~0U;
  auto data_sector = static_cast<std::uint32_t>(header_sectors(entry.header));
  for (std::uint32_t i = 0; i < entry.header.descriptor_count; ++i) {
    const auto at = sizeof(LogEntryHeader) + std::uint64_t{i} * sizeof(LogDescriptor);
    if (const auto needed = static_cast<std::uint32_t>(at / kLogSector); needed != loaded_sector) {
      BH_RETURN_IF_ERROR(read_ring(entry.offset + std::uint64_t{needed} * kLogSector, sector));
      loaded_sector = needed;
    }
    const auto descriptor = load<LogDescriptor>(sector, at % kLogSector);
    if (descriptor.sequence_number != entry.header.sequence_number)
      return bad_log("a descriptor has another sequence number than its entry");
    BH_RETURN_IF_ERROR(replay_descriptor(entry, descriptor, data_sector, receiver));
  }
  return {};
}

Result<void> PendingLog::replay_descriptor(const Entry& entry, const LogDescriptor& descriptor, std::uint32_t& sector,
                                           Receiver& receiver) const {
  const bool zeros = descriptor.signature == kZeroDescriptorSignature;
  if (!zeros && descriptor.signature != kDataDescriptorSignature) return bad_log("a descriptor has an unknown kind");
  const ByteRange range{descriptor.file_offset, zeros ? descriptor.leading_bytes : kLogSector};
  // The file identifier, the headers and the log itself are not changed through the log.
  if (range.offset % kLogSector != 0 || range.length % kLogSector != 0 || range.offset < kRegionTableOffsets[0] ||
      range.offset > grown_size_ || range.length > grown_size_ - range.offset ||
      (range.offset < log_offset_ + log_length_ && range.end() > log_offset_))
    return bad_log(fmt::format("a change of {} bytes at {}", range.length, range.offset));
  if (zeros) return range.length == 0 ? Result<void>() : receiver.change(range, {});

  if ((std::uint64_t{sector} + 1) * kLogSector > entry.header.entry_length)
    return bad_log("an entry has too few data sectors");
  std::array<std::byte, kLogSector> page;
  BH_RETURN_IF_ERROR(read_ring(entry.offset + std::uint64_t{sector} * kLogSector, page));
  ++sector;
  const auto data = load<LogDataSector>(page);
  if (data.signature != kDataSectorSignature ||
      (std::uint64_t{data.sequence_high} << 32 | data.sequence_low) != entry.header.sequence_number)
    return bad_log("a data sector does not belong to its entry");
  // The marks of the data sector displaced the page's first 8 and last 4 bytes into the descriptor.
  store(page, 0, descriptor.leading_bytes);
  store(page, kLogSector - 4, descriptor.trailing_bytes);
  return receiver.change(range, page);
}

Result<void> LogWriter::write(File& file, std::span<const Page> pages, std::uint64_t file_size) {
  std::vector<std::byte> bytes((1 + pages.size()) * kLogSector);
  LogEntryHeader header;
  header.entry_length = static_cast<std::uint32_t>(bytes.size());
  header.tail = head_;
  header.sequence_number = sequence_number_;
  header.descriptor_count = static_cast<std::uint32_t>(pages.size());
  header.log_guid = guid_;
  header.flushed_file_offset = file_size;
  header.last_file_offset = file_size;
  for (std::size_t i = 0; i < pages.size(); ++i) {
    const auto& page = pages[i];
    const LogDescriptor descriptor{kDataDescriptorSignature, load<std::uint32_t>(page.content, kLogSector - 4),
                                   load<std::uint64_t>(page.content), page.file_offset, sequence_number_};
    store(bytes, sizeof header + i * sizeof descriptor, descriptor);
    const auto sector = MutableBytes(bytes).subspan((1 + i) * kLogSector, kLogSector);
    std::ranges::copy(page.content, sector.begin());
    store(sector, 0, kDataSectorSignature);
    store(sector, 4, static_cast<std::uint32_t>(sequence_number_ >> 32));
    store(sector, kLogSector - 4, static_cast<std::uint32_t>(sequence_number_));
  }
  store(bytes, 0, header);
  header.checksum = crc32c(bytes);
  store(bytes, 0, header);

  const auto first = std::min<std::size_t>(bytes.size(), log_length_ - head_);
  BH_RETURN_IF_ERROR(file.write_at(log_offset_ + head_, Bytes(bytes).first(first)));
  if (first < bytes.size()) BH_RETURN_IF_ERROR(file.write_at(log_offset_, Bytes(bytes).subspan(first)));
  BH_RETURN_IF_ERROR(file.sync());
  head_ = static_cast<std::uint32_t>((head_ + bytes.size()) % log_length_);
  ++sequence_number_;
  return {};
}

}  // namespace backhaul::vhdx
