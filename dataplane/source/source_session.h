// The source's end of a transfer: the queue of extents that all lanes take from, the counters, and the root digest.
// Lanes share it without a lock on the way of a block: extents are handed out by one atomic cursor; a short lock is
// taken once an extent when it is acknowledged. It outlives a lost link: what was acknowledged is done, what was not
// goes back to the queue.
#pragma once

#include <atomic>
#include <bitset>
#include <deque>
#include <mutex>
#include <optional>
#include <unordered_set>
#include <vector>

#include "checksum/root_digest.h"
#include "dataplane/disk/disk.h"
#include "dataplane/protocol/transfer.h"
#include "dataplane/store/disk_digests.h"

namespace backhaul {

// Sorted, merged ranges rounded outwards to blocks: all that a tracker says has changed.
class ChangedBlocks {
 public:
  // Error: EngineErrc::bad_extents_file when a range lies outside the disk.
  static Result<ChangedBlocks> make(std::vector<ByteRange> ranges, std::uint64_t disk_size);
  // Reads {"extents":[{"offset":..,"length":..}]}, or a bare array of such objects; entries with "type": 0 (clean, as
  // dirty-bitmap listings have it) are skipped.
  static Result<std::vector<ByteRange>> parse(std::string_view json);

  // The first extent at or after `from` with a changed block; nothing when there is none.
  std::optional<std::uint64_t> next_extent(std::uint64_t from) const;
  std::bitset<kBlocksPerExtent> blocks(std::uint64_t extent) const;
  std::uint64_t extents() const noexcept { return extents_; }
  std::uint64_t bytes() const noexcept { return bytes_; }

 private:
  std::vector<ByteRange> ranges_;
  std::uint64_t extents_ = 0, bytes_ = 0;
};

struct SourceCounters {
  std::atomic<std::uint64_t> bytes_read{0}, blocks_compared{0}, blocks_changed{0}, payload_bytes{0}, resumed_bytes{0},
      bytes_done{0};
};

class SourceSession {
 public:
  // REQUIRES: the disk has the target disk's size (it is opened with padding).
  // `base`: of what the target holds before a run with changed extents alone; null: not known, and then neither is the
  // root. Only used while the constructor runs. `keep_digests`: for take_digests().
  SourceSession(Disk& disk, VerifyMode verify, std::optional<ChangedBlocks> changed, const DiskDigests* base = nullptr,
                bool keep_digests = false);

  struct Item {
    std::uint64_t first = 0;
    std::uint64_t count = 1;
    bool hole = false;  // nothing to read in any of them
  };
  enum class Take { item, later, none };
  // The next item. `later`: too far ahead of the oldest open extent; ask again soon. `none`: nothing is left to hand
  // out (now).
  Result<Take> take(Item& item);
  // An unacknowledged item of a lane that ended goes back.
  void give_back(const Item& item);

  // Acknowledged. `digest`: the extent's, or null when no digests are made.
  void done(std::uint64_t extent, const Sha256* digest);
  void done_zero_run(std::uint64_t first, std::uint64_t count);
  std::uint64_t extents_left() const noexcept { return extents_total_ - extents_done_.load(); }
  bool all_done() const noexcept { return extents_done_.load() == extents_total_; }
  // What came back from the target differed: true when the extent may be sent once more.
  bool may_retry_mismatch(std::uint64_t extent);

  Disk& disk() noexcept { return disk_; }
  VerifyMode verify() const noexcept { return verify_; }
  const std::optional<ChangedBlocks>& changed() const noexcept { return changed_; }
  SourceCounters& counters() noexcept { return counters_; }
  // Bytes that the transfer covers (all of the disk, or what the changed extents touch).
  std::uint64_t bytes_total() const noexcept { return bytes_total_; }
  // The root digest by what was read and acknowledged; nothing when not every extent was digested.
  std::optional<Sha256> root_digest();
  // All extents' digests, under the same condition. REQUIRES: keep_digests, and root_digest() was asked for. Once.
  std::optional<DiskDigests> take_digests();

 private:
  bool digests_known() const noexcept { return digests_complete_ && all_done(); }  // REQUIRES: mutex_ held

  Disk& disk_;
  const VerifyMode verify_;
  const std::optional<ChangedBlocks> changed_;
  const std::uint64_t extents_;
  std::uint64_t extents_total_ = 0, bytes_total_ = 0;
  SourceCounters counters_;
  std::atomic<std::uint64_t> cursor_{0}, extents_done_{0}, folded_{0};
  std::atomic<std::size_t> returned_count_{0};
  std::mutex mutex_;
  std::deque<Item> returned_;
  RootDigest root_;  // without changed extents: its fold bounds how far lanes run ahead
  DiskDigests digests_;
  std::optional<Sha256> finished_root_;  // asked for again when a finish got lost
  bool digests_complete_ = true;
  std::unordered_set<std::uint64_t> mismatched_;
};

}  // namespace backhaul
