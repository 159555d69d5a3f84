// A regular file or block device on Linux; internal to its room. Two descriptors of one inode: a buffered one for
// metadata and everything unaligned, and an O_DIRECT one for IoQueue, absent where the file system refuses O_DIRECT.
//
// Why both may be used on one file: the kernel writes dirty pages back before a direct read or write of their range and
// drops clean ones after a direct write, so each path sees the other. The exception is a page that is written both ways
// at the same time: its write-back could put old bytes over the direct write. So direct requests cover whole pages only
// (io_alignment() is never below 4096), and whatever touches a part of a page is buffered, where the page lock orders
// it.
#pragma once

#include <sys/stat.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "dataplane/disk/io.h"
#include "dataplane/linux/linux_read_ring.h"

namespace backhaul {

class LinuxFile final : public File {
 public:
  // open(2) flags in, descriptor or -errno out. Called several times for one file; the results are checked to be one
  // inode.
  using Opener = std::function<int(int flags)>;

  static Result<std::unique_ptr<LinuxFile>> open(std::string name, OpenMode mode, const Opener& opener);
  // Takes an open descriptor; `opener` adds the direct one.
  static Result<std::unique_ptr<LinuxFile>> adopt(std::string name, OpenMode mode, UniqueFd buffered,
                                                  const Opener& opener);

  const std::string& name() const noexcept override { return name_; }
  std::uint64_t size() const noexcept override { return size_.load(std::memory_order_relaxed); }
  bool is_block_device() const noexcept override { return is_block_device_; }
  std::uint32_t io_alignment() const noexcept override { return alignment_; }

  Result<void> read_at(std::uint64_t offset, MutableBytes into) override;
  Result<void> write_at(std::uint64_t offset, Bytes from) override;
  Result<void> read_all(std::span<const ReadPart> parts) override;
  Result<void> write_through(std::uint64_t offset, Bytes from) override;
  Result<void> zero_at(std::uint64_t offset, std::uint64_t length) override;
  Result<void> resize(std::uint64_t size) override;
  Result<void> sync() override;
  Result<std::optional<ByteRange>> next_data(std::uint64_t from) override;
  void drop_cache(std::uint64_t offset, std::uint64_t length) noexcept override;
  Result<FileIdentity> identity() override;

  std::uint64_t id() const noexcept { return id_; }  // unique in this process, never 0
  int buffered_fd() const noexcept { return buffered_.get(); }
  int direct_fd() const noexcept { return direct_.get(); }  // -1: none

  // A failed sync lost writes, and the kernel reports that once: from then on every sync of this File fails. 0: none
  // failed.
  int failed_sync() const noexcept { return failed_sync_.load(); }
  void remember_failed_sync(int number) noexcept { failed_sync_.store(number); }

 private:
  LinuxFile();
  Result<void> open_direct(OpenMode mode, const struct stat& status, const Opener& opener);
  Result<void> write_zeros(std::uint64_t offset, std::uint64_t length);
  Result<void> zero_device(std::uint64_t offset, std::uint64_t length);
  std::optional<ByteRange> remembered_data(std::uint64_t from);
  void remember_data(ByteRange run);
  void note_written(std::uint64_t end) noexcept;
  bool may_be_direct(std::uint64_t offset, Bytes memory) const noexcept;
  void announce(std::span<const ReadPart> parts) noexcept;
  std::unique_ptr<ReadRing> take_ring();
  Error failed(int number, const char* action, std::uint64_t offset) const;

  const std::uint64_t id_;
  std::string name_;
  UniqueFd buffered_, direct_;
  std::atomic<std::uint64_t> size_{0};
  std::uint32_t alignment_ = 4096;
  bool is_block_device_ = false;
  std::atomic<int> failed_sync_{0};
  std::mutex data_run_mutex_;
  ByteRange data_run_;  // of the last next_data; empty: nothing is remembered
  std::mutex rings_mutex_;
  std::vector<std::unique_ptr<ReadRing>> idle_rings_;  // one for each concurrent caller of read_all
};

}  // namespace backhaul
