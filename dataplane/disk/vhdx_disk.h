// A VHDX file as a Disk. How it stays safe against a kill at any moment:
// - A new block lies at the end of the file, where nothing was, so it reads as zeros; its table entry changes in memory
// only.
// - checkpoint() syncs content first; then it writes the changed pages of the block table to the log, syncs, writes
// them in place, syncs.
// - The header names the log only after its first entry is durable, and no longer once the disk is closed.
// A reader after a kill finds the table of the last checkpoint, or replays it; file content behind its blocks is never
// used again.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <set>

#include "dataplane/disk/disk.h"
#include "dataplane/disk/vhdx_bat.h"
#include "dataplane/disk/vhdx_header.h"
#include "dataplane/disk/vhdx_log.h"
#include "dataplane/disk/vhdx_metadata.h"

namespace backhaul::vhdx {

class VhdxDisk final : public Disk {
 public:
  // Reads and checks everything; replays a pending log (into the file for writing, else in memory).
  // `just_created`: its write GUIDs are new already.
  static Result<std::unique_ptr<Disk>> open(std::unique_ptr<File> file, OpenMode mode, Random& random,
                                            bool just_created);

  DiskFormat format() const noexcept override {
    return metadata_.leave_blocks_allocated ? DiskFormat::vhdx_fixed : DiskFormat::vhdx;
  }
  std::uint64_t size() const noexcept override { return metadata_.disk_size; }
  std::uint32_t logical_sector_size() const noexcept override { return metadata_.logical_sector_size; }
  File& file() noexcept override { return *file_; }

  Segment map(std::uint64_t offset, std::uint64_t length) const noexcept override;
  Result<std::optional<ByteRange>> next_data(std::uint64_t from) const override;
  // The first call after an open for writing gives the file new write GUIDs, so whoever is about to write calls it even
  // for ranges that have a place.
  Result<Segment> allocate(std::uint64_t offset, std::uint64_t length) override;
  Result<void> checkpoint() override;
  Result<void> close() override;

 private:
  struct Batch {
    std::vector<LogWriter::Page> pages;
    std::uint64_t file_size = 0;
  };

  VhdxDisk(std::unique_ptr<File> file, OpenMode mode, Random& random)
      : file_(std::move(file)), mode_(mode), random_(random) {}

  Result<void> load();
  Result<void> replay_log(View& view);
  Result<void> check_changes_above(const View& view) const;
  Result<void> begin_changes();
  Result<void> give_place(std::uint64_t block);
  Result<void> checkpoint_locked();
  Result<Batch> take_batch(std::span<const std::uint64_t> pages);
  Result<void> commit(Batch batch);
  Result<void> write_in_place();
  ByteRange extend_run(ByteRange run, std::uint64_t file_offset, std::uint64_t data_end) const noexcept;

  std::unique_ptr<File> file_;
  const OpenMode mode_;
  Random& random_;
  DiskMetadata metadata_;
  BlockTable table_;

  std::atomic<bool> changing_ = false;  // the write GUIDs are those of this session

  std::mutex checkpoint_mutex_;  // taken before allocate_mutex_; guards these four, and orders checkpoints
  HeaderSlots headers_;
  LogWriter log_;
  bool log_live_ = false;                      // the header names our log
  std::vector<LogWriter::Page> logged_pages_;  // of the last entry, not yet durable in their place

  std::mutex allocate_mutex_;  // guards these two, and the file's growth
  std::uint64_t next_place_ = 0;
  std::set<std::uint64_t> dirty_pages_;  // of the block table
};

}  // namespace backhaul::vhdx
