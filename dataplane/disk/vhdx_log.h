// The log of a VHDX file ([MS-VHDX] 2.3): a ring of entries, each a set of whole 4 KiB pages to write elsewhere.
// Finding and replaying what another run left, and writing our own entries.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"
#include "dataplane/disk/io.h"
#include "dataplane/disk/vhdx_layout.h"
#include "dataplane/disk/vhdx_view.h"

namespace backhaul::vhdx {

// A pending log above this is refused: its pages may have to be held in memory. Hyper-V and QEMU make logs of 1 MiB.
inline constexpr std::uint64_t kMaxReplayedLog = 64 * kMiB;

// A pending log. Reads the file only; one thread.
class PendingLog {
 public:
  // Finds the active sequence (2.3.2, 2.3.3). REQUIRES: header.log_guid is not zero and the log lies inside the file.
  // Errors: bad_log (no valid sequence, or a change that no log may make), truncated (the file is shorter than it was
  // when the log was written).
  static Result<PendingLog> find(File& file, const Header& header);

  // Writes the changes into the file and syncs it. The caller then clears the header's log GUID. May be run again after
  // a crash.
  Result<void> replay(File& file) const;
  // Lays the changes above the file.
  Result<void> replay(View& view) const;

  std::size_t entry_count() const noexcept { return entries_.size(); }

 private:
  struct Entry {
    std::uint32_t offset;  // in the log
    LogEntryHeader header;
  };
  // Where the changes of a replay go: `page` has 4 KiB, or is empty for zeros.
  class Receiver {
   public:
    virtual ~Receiver() = default;
    virtual Result<void> grow_to(std::uint64_t size) = 0;
    virtual Result<void> change(ByteRange range, Bytes page) = 0;
  };
  class CheckingReceiver;
  class FileReceiver;
  class ViewReceiver;

  Result<void> read_ring(std::uint64_t position, MutableBytes into) const;
  // The entry at `position`, or nothing when there is no valid one.
  Result<std::optional<Entry>> read_entry(std::uint32_t position);
  Result<std::vector<Entry>> read_sequence(std::uint32_t tail);
  Result<void> find_active_sequence();
  Result<void> replay(Receiver& receiver) const;
  Result<void> replay_entry(const Entry& entry, Receiver& receiver) const;
  Result<void> replay_descriptor(const Entry& entry, const LogDescriptor& descriptor, std::uint32_t& sector,
                                 Receiver& receiver) const;
  Error bad_log(std::string_view fact) const;

  File* file_ = nullptr;
  Guid guid_;
  std::uint64_t log_offset_ = 0;
  std::uint32_t log_length_ = 0;
  // Bytes that checksums may still read: hostile entries that all overlap must not take hours.
  std::uint64_t budget_bytes_ = 0;
  std::vector<Entry> entries_;  // of the active sequence, from tail to head
  std::uint64_t grown_size_ = 0;
};

// Writes log entries of one session. Every entry's pages are in place before the next entry is written, so each entry
// is its own tail. An entry takes less than half of the smallest log, so the one before stays whole until the new one
// is.
class LogWriter {
 public:
  struct Page {
    std::uint64_t file_offset;
    std::vector<std::byte> content;  // kLogSector bytes
  };
  static constexpr std::size_t kMaxPages = kDescriptorsInFirstSector;
  static_assert(2 * (1 + kMaxPages) * kLogSector <= kMiB);

  LogWriter() = default;
  LogWriter(std::uint64_t log_offset, std::uint32_t log_length, const Guid& guid)
      : log_offset_(log_offset), log_length_(log_length), guid_(guid) {}

  const Guid& guid() const noexcept { return guid_; }

  // One entry of 1 to kMaxPages pages, and a sync. `file_size` is durable already: a replay may rely on it. After an
  // error the next call writes over the failed entry.
  Result<void> write(File& file, std::span<const Page> pages, std::uint64_t file_size);

 private:
  std::uint64_t log_offset_ = 0;
  std::uint32_t log_length_ = 0;
  Guid guid_;
  std::uint32_t head_ = 0;
  std::uint64_t sequence_number_ = 1;
};

}  // namespace backhaul::vhdx
