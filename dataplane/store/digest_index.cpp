#include "dataplane/store/digest_index.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <mutex>
#include <optional>
#include <vector>

#include "dataplane/disk/whole_file.h"
#include "dataplane/store/journal_layout.h"

namespace backhaul {
namespace {

using namespace journal_layout;

constexpr ErrorInfo kIndexErrors[] = {
    {"index.damaged", "the digest index is damaged", "Nothing: it is made anew, and the target disk is read once.",
     Retry::no},
    {"index.wrong_size", "the digest index describes a disk of another size",
     "Nothing: it is made anew, and the target disk is read once.", Retry::no},
};

constexpr std::uint64_t record_base(std::uint64_t extents) {
  return kIndexTableOffset + align_up(extents * kIndexEntrySize, kIoAlignment);
}
constexpr std::uint64_t file_size(std::uint64_t extents) { return record_base(extents) + extents * kIndexRecordSize; }

// An entry of the table: the low byte is the state, the high byte the shipped count, as in the file. In memory two more
// bits of the low byte say that the record was stored but the file's entry does not say `known` yet (rule 2 of the
// document): two, so that a sync can tell records stored before it began from later ones.
using Entry = std::uint16_t;
constexpr Entry kStateMask = 0x03, kPendingMask = 0xC0;
constexpr Entry kPendingBits[2] = {0x40, 0x80};

constexpr Entry entry_of(ExtentState state, std::uint8_t shipped) {
  return static_cast<Entry>(static_cast<Entry>(state) | (shipped << 8));
}
// What the file may say about the extent now.
constexpr Entry file_entry(Entry entry) { return (entry & kPendingMask) != 0 ? Entry{0} : entry; }

constexpr Entry checked_entry(std::uint8_t state, std::uint8_t shipped) {
  if (state > 3) state = 0;
  return entry_of(static_cast<ExtentState>(state),
                  std::min<std::uint8_t>(shipped, static_cast<std::uint8_t>(kBlocksPerExtent)));
}

std::array<std::byte, kHeaderSize> encode_header(std::uint64_t disk_size, const FileIdentity& identity) {
  std::array<std::byte, kHeaderSize> bytes{};
  store_le(&bytes[0], kIndexMagic);
  store_le(&bytes[8], kVersion);
  store_le(&bytes[16], disk_size);
  store_le(&bytes[24], extent_count(disk_size));
  store_identity(&bytes[32], identity);
  store_le(&bytes[12], crc_without_field(Bytes(bytes).first(kHeaderCrcBytes), 12));
  return bytes;
}

class Index final : public DigestIndex {
 public:
  Index(std::unique_ptr<File> file, std::uint64_t disk_size, const FileIdentity& identity)
      : file_(std::move(file)),
        disk_size_(disk_size),
        extents_(extent_count(disk_size)),
        record_base_(record_base(extents_)),
        table_(std::make_unique<std::atomic<Entry>[]>(extents_)),
        identity_(identity) {
    static_assert(sizeof(std::atomic<Entry>) == kIndexEntrySize && std::atomic<Entry>::is_always_lock_free);
  }

  Result<void> read_table() {
    std::array<std::byte, 16384> piece;
    for (std::uint64_t first = 0; first < extents_;) {
      const std::uint64_t count = std::min<std::uint64_t>(piece.size() / kIndexEntrySize, extents_ - first);
      BH_RETURN_IF_ERROR(file_->read_at(table_offset(first), MutableBytes(piece).first(count * kIndexEntrySize)));
      for (std::uint64_t i = 0; i < count; ++i)
        table_[first + i].store(
            checked_entry(load_le<std::uint8_t>(&piece[2 * i]), load_le<std::uint8_t>(&piece[2 * i + 1])),
            std::memory_order_relaxed);
      first += count;
    }
    return {};
  }

  std::uint64_t disk_size() const noexcept override { return disk_size_; }

  ExtentState state(std::uint64_t extent) const noexcept override {
    assert(extent < extents_);
    return static_cast<ExtentState>(table_[extent].load(std::memory_order_acquire) & kStateMask);
  }

  std::uint8_t shipped(std::uint64_t extent) const noexcept override {
    assert(extent < extents_);
    return static_cast<std::uint8_t>(table_[extent].load(std::memory_order_acquire) >> 8);
  }

  Result<bool> load(std::uint64_t extent, ExtentDigests& digests) override {
    if (state(extent) != ExtentState::known) return false;
    std::array<std::byte, kIndexRecordSize> record;
    BH_RETURN_IF_ERROR(file_->read_at(record_offset(extent), record));
    if (load_le<std::uint32_t>(&record[kIndexDigestBytes]) != crc_without_field(record, kIndexDigestBytes) ||
        load_le<std::uint64_t>(&record[kIndexDigestBytes + 8]) != extent) {
      BH_RETURN_IF_ERROR(forget(extent));
      return false;
    }
    std::memcpy(digests.data(), record.data(), kIndexDigestBytes);
    return true;
  }

  Result<void> store(std::uint64_t extent, const ExtentDigests& digests, std::uint8_t shipped_blocks) override {
    assert(extent < extents_ && shipped_blocks <= kBlocksPerExtent);
    std::array<std::byte, kIndexRecordSize> record{};
    std::memcpy(record.data(), digests.data(), kIndexDigestBytes);
    store_le(&record[kIndexDigestBytes + 8], extent);
    store_le(&record[kIndexDigestBytes], crc_without_field(record, kIndexDigestBytes));
    BH_RETURN_IF_ERROR(file_->write_at(record_offset(extent), record));
    std::lock_guard lock(mutex_);
    table_[extent].store(entry_of(ExtentState::known, shipped_blocks) | kPendingBits[generation_],
                         std::memory_order_release);
    pending_.push_back(extent);
    return {};
  }

  Result<void> store_durable(std::uint64_t extent, std::uint8_t shipped_blocks) override {
    assert(extent < extents_ && shipped_blocks <= kBlocksPerExtent);
    return set_run(extent, 1, entry_of(ExtentState::durable, shipped_blocks));
  }

  Result<void> store_zero_run(std::uint64_t first, std::uint64_t count) override {
    assert(first <= extents_ && count <= extents_ - first);
    return set_run(first, count, entry_of(ExtentState::zero, 0));
  }

  Result<void> forget(std::uint64_t extent) override {
    assert(extent < extents_);
    return set_run(extent, 1, entry_of(ExtentState::unknown, shipped(extent)));
  }

  Result<void> sync() override {
    std::lock_guard one_at_a_time(sync_mutex_);
    std::vector<std::uint64_t> stored;
    Entry pending_bit;
    {
      std::lock_guard lock(mutex_);
      stored.swap(pending_);
      pending_bit = kPendingBits[generation_];
      generation_ ^= 1;
    }
    if (failed_) return *failed_;
    auto synced = file_->sync();
    if (synced && !stored.empty()) {
      std::sort(stored.begin(), stored.end());
      stored.erase(std::unique(stored.begin(), stored.end()), stored.end());
      synced = publish(stored, pending_bit);
      if (synced) synced = file_->sync();
    }
    if (!synced) failed_ = synced.error();
    return synced;
  }

  Result<void> reset_shipped() override {
    std::lock_guard lock(mutex_);
    constexpr std::uint64_t kPiece = 2048;  // 4 KiB of table; untouched pieces of a sparse table stay untouched
    std::array<std::byte, kPiece * kIndexEntrySize> image;
    for (std::uint64_t first = 0; first < extents_; first += kPiece) {
      const std::uint64_t count = std::min(kPiece, extents_ - first);
      bool changed = false;
      for (std::uint64_t i = 0; i < count; ++i) {
        const Entry old = table_[first + i].load(std::memory_order_relaxed);
        if ((old >> 8) != 0) {
          changed = true;
          table_[first + i].store(old & 0xFF, std::memory_order_release);
        }
        store_le(&image[i * kIndexEntrySize], file_entry(old & 0xFF));
      }
      if (changed)
        BH_RETURN_IF_ERROR(file_->write_at(table_offset(first), Bytes(image).first(count * kIndexEntrySize)));
    }
    return {};
  }

  Result<void> set_identity(const FileIdentity& identity) override {
    BH_RETURN_IF_ERROR(sync());
    std::lock_guard lock(mutex_);
    BH_RETURN_IF_ERROR(file_->write_at(0, encode_header(disk_size_, identity)));
    BH_RETURN_IF_ERROR(file_->sync());
    identity_ = identity;
    return {};
  }

  Result<FileIdentity> identity() override {
    std::lock_guard lock(mutex_);
    return identity_;
  }

 private:
  std::uint64_t table_offset(std::uint64_t extent) const { return kIndexTableOffset + extent * kIndexEntrySize; }
  std::uint64_t record_offset(std::uint64_t extent) const { return record_base_ + extent * kIndexRecordSize; }

  // For states without a record: memory and file at once. The run's entries have no pending bit afterwards, so they
  // can be written straight from memory.
  Result<void> set_run(std::uint64_t first, std::uint64_t count, Entry entry) {
    if (count == 0) return {};
    std::lock_guard lock(mutex_);
    for (std::uint64_t i = first; i < first + count; ++i) table_[i].store(entry, std::memory_order_release);
    return write_entries(first, count);
  }

  // REQUIRES: mutex_ held; no entry of the run is pending.
  Result<void> write_entries(std::uint64_t first, std::uint64_t count) {
    return file_->write_at(table_offset(first), as_bytes(&table_[first], count * kIndexEntrySize));
  }

  // Writes `known` for those of `stored` whose record the last sync covered: still pending from before that sync.
  Result<void> publish(const std::vector<std::uint64_t>& stored, Entry pending_bit) {
    std::lock_guard lock(mutex_);
    const auto covered = [&](std::uint64_t extent) {
      return (table_[extent].load(std::memory_order_relaxed) & kPendingMask) == pending_bit;
    };
    for (std::size_t i = 0; i < stored.size();) {
      if (!covered(stored[i])) {
        ++i;
        continue;
      }
      std::size_t end = i;
      do {
        table_[stored[end]].fetch_and(static_cast<Entry>(~kPendingMask), std::memory_order_release);
        ++end;
      } while (end < stored.size() && stored[end] == stored[end - 1] + 1 && covered(stored[end]));
      if (auto written = write_entries(stored[i], end - i); !written) return written;
      i = end;
    }
    return {};
  }

  const std::unique_ptr<File> file_;
  const std::uint64_t disk_size_;
  const std::uint64_t extents_;
  const std::uint64_t record_base_;
  const std::unique_ptr<std::atomic<Entry>[]> table_;

  std::mutex sync_mutex_;  // one sync at a time; taken before mutex_
  // Of a failed sync: the cache may show what was lost, so every later sync fails, too.
  std::optional<Error> failed_;
  std::mutex mutex_;  // every change of the table, in memory and in the file; taken a few times an extent
  std::vector<std::uint64_t> pending_;  // extents stored since the last sync; may repeat, may be stale
  unsigned generation_ = 0;             // which pending bit store() sets now
  FileIdentity identity_;
};

}  // namespace

const ErrorCategory& index_category() noexcept {
  static const TableCategory category("index", kIndexErrors);
  return category;
}

Result<std::unique_ptr<DigestIndex>> create_digest_index(Storage& storage, std::string_view path,
                                                         std::uint64_t disk_size) {
  const auto write_header = [&](File& file) -> Result<void> {
    BH_RETURN_IF_ERROR(file.resize(file_size(extent_count(disk_size))));
    return file.write_at(0, encode_header(disk_size, {}));
  };
  BH_RETURN_IF_ERROR(create_whole_file(storage, path, write_header));
  BH_TRY(auto file, storage.open(path, OpenMode::write));
  return std::unique_ptr<DigestIndex>(std::make_unique<Index>(std::move(file), disk_size, FileIdentity{}));
}

Result<std::unique_ptr<DigestIndex>> open_digest_index(Storage& storage, std::string_view path,
                                                       std::uint64_t disk_size) {
  BH_TRY(auto file, storage.open(path, OpenMode::write));
  if (file->size() < kHeaderSize) return make_error(IndexErrc::damaged, std::string(path) + " is too short");
  BH_RETURN_IF_ERROR(sync_and_drop_cache(*file));
  std::array<std::byte, kHeaderCrcBytes> header;
  BH_RETURN_IF_ERROR(file->read_at(0, header));
  if (load_le<std::uint64_t>(&header[0]) != kIndexMagic || load_le<std::uint32_t>(&header[8]) != kVersion ||
      load_le<std::uint32_t>(&header[12]) != crc_without_field(header, 12) ||
      load_le<std::uint64_t>(&header[24]) != extent_count(load_le<std::uint64_t>(&header[16])))
    return make_error(IndexErrc::damaged, "header of " + std::string(path));
  if (const auto size = load_le<std::uint64_t>(&header[16]); size != disk_size)
    return make_error(IndexErrc::wrong_size, std::string(path) + " is for " + std::to_string(size) +
                                                 " bytes, the disk has " + std::to_string(disk_size));
  if (file->size() < file_size(extent_count(disk_size)))
    return make_error(IndexErrc::damaged, std::string(path) + " is cut off");
  auto index = std::make_unique<Index>(std::move(file), disk_size, load_identity(&header[32]));
  BH_RETURN_IF_ERROR(index->read_table());
  return std::unique_ptr<DigestIndex>(std::move(index));
}

}  // namespace backhaul
