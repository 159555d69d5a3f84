// A storage in memory, under a seed: the second implementation of the disk seam. It does what a real one may do and
// seldom does, so that a test meets it: completions come out of order and late, a write takes place some time between
// its request and its completion, what was not synced is lost or torn at a power loss, the Nth operation fails.
//
// What it models of a power loss (crash()): of every write, zeroing and resize since the file's last sync, and of the
// queues' pending writes, each 512-byte sector is kept or lost on its own; later ones may survive earlier ones. Names
// (create, rename, remove, directories) are durable at once, as the seam promises. A file with unsynced changes may
// come back with the identity of its last sync, since a real inode's times may be lost too. What it does not model:
// symbolic links, permissions, damage to data that was synced.
//
// Thread-safe but for IoQueues, which belong to a thread each. One thread and one seed: the same run every time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/disk/io.h"

namespace backhaul::sim {

struct SimOptions {
  std::uint64_t seed = 1;
  bool reflink = false;  // clone() works
  std::uint32_t io_alignment = 4096;
  std::uint64_t space_bytes = kTiB;  // pages of 4096 bytes that files may take in all, then ENOSPC
  Clock* clock = nullptr;            // what a wait() with nothing to do sleeps by; null: the system's
};

struct SimCounters {
  std::uint64_t operations = 0;  // every call on Storage and File, and every request of a queue
  std::uint64_t bytes_read = 0, bytes_written = 0;
  std::uint64_t reads = 0, writes = 0, zeroings = 0, syncs = 0;
};

class SimState;

class SimStorage final : public Storage {
 public:
  explicit SimStorage(const SimOptions& options = {});
  ~SimStorage() override;

  // Queues may outlive the storage. REQUIRES for their requests: files of this storage.
  std::unique_ptr<IoQueue> make_queue(unsigned depth = 64);

  // Faults. An operation number counts from 1 and from now; an operation that fails changes nothing, a queue's
  // completes with the error.
  void fail_operation(std::uint64_t number, int error);
  // At that operation the power goes: it fails with EIO and so does everything after it, until restart().
  void crash_at_operation(std::uint64_t number);
  // Reads that touch the range fail until clear_faults(). The file need not exist yet.
  void fail_reads(std::string_view path, ByteRange range, int error);
  void set_space(std::uint64_t bytes);
  void clear_faults();

  // Power loss and restart in one: decides what is left, and every File and IoQueue from before is dead (EIO). No other
  // thread may be inside a call of a queue from before.
  void crash();
  // Whether crash_at_operation has struck; restart() then brings the storage back.
  bool crashed() const;
  void restart();

  // A look from outside, uncounted. Content as processes see it, and as a power loss that keeps nothing unsynced would
  // leave it. REQUIRES: the file exists.
  std::vector<std::byte> content(std::string_view path) const;
  std::vector<std::byte> durable_content(std::string_view path) const;
  std::size_t unsynced_changes(std::string_view path) const;
  SimCounters counters() const;
  void reset_counters();
  // A device of zeros that resize() refuses. REQUIRES: the path is free.
  void add_block_device(std::string_view path, std::uint64_t size);

  Result<Kind> kind(std::string_view path) override;
  Result<std::unique_ptr<File>> open(std::string_view path, OpenMode mode) override;
  Result<std::unique_ptr<File>> create(std::string_view path) override;
  Result<void> clone(std::string_view from, std::string_view to) override;
  Result<void> rename(std::string_view from, std::string_view to, bool replace) override;
  Result<void> remove(std::string_view path) override;
  Result<void> make_directory(std::string_view path) override;
  Result<void> remove_directory(std::string_view path) override;
  Result<std::vector<std::string>> list(std::string_view path) override;
  Result<std::uint64_t> free_space_bytes() override;

 private:
  std::shared_ptr<SimState> state_;
};

}  // namespace backhaul::sim
