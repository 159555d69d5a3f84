#include "dataplane/linux/linux_file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>

#include "dataplane/linux/linux_storage.h"

namespace backhaul {
namespace {

constexpr std::uint64_t kPage = 4096;

// Zeros to write where the system has nothing better. Static: no call allocates.
alignas(4096) constexpr std::byte kZeros[64 * 1024] = {};

int access_flags(OpenMode mode) { return (mode == OpenMode::write ? O_RDWR : O_RDONLY) | O_CLOEXEC; }

bool same_inode(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_rdev == b.st_rdev;
}

bool means_unsupported(int number) {
  return number == EOPNOTSUPP || number == EINVAL || number == ENOSYS || number == ENOTTY || number == ENODEV;
}

std::int64_t nanoseconds(const struct statx_timestamp& time) {
  return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

Error refuse_kind(const std::string& name) { return make_error(IoErrc::not_a_disk, name); }

}  // namespace

Error LinuxFile::failed(int number, const char* action, std::uint64_t offset) const {
  return Error::from_errno(number, std::string(action) + " " + name_ + " at " + std::to_string(offset));
}

LinuxFile::LinuxFile()
    : id_([] {
        static std::atomic<std::uint64_t> last{0};
        return ++last;
      }()) {}

Result<std::unique_ptr<LinuxFile>> LinuxFile::open(std::string name, OpenMode mode, const Opener& opener) {
  // Looks at the kind without opening: opening a FIFO would block, and opening a character device may act on it.
  const UniqueFd path(opener(O_PATH | O_CLOEXEC));
  if (path.get() < 0) return Error::from_errno(-path.get(), "open " + name);
  struct stat found {};
  if (::fstat(path.get(), &found) != 0) return Error::from_errno(errno, "look at " + name);
  if (!S_ISREG(found.st_mode) && !S_ISBLK(found.st_mode)) return refuse_kind(name);

  // O_EXCL on a block device refuses one that is mounted or otherwise claimed: its user's cache would be overwritten.
  const bool claim = S_ISBLK(found.st_mode) && mode == OpenMode::write;
  UniqueFd buffered(opener(access_flags(mode) | (claim ? O_EXCL : 0)));
  if (buffered.get() < 0) return Error::from_errno(-buffered.get(), "open " + name);
  struct stat opened {};
  if (::fstat(buffered.get(), &opened) != 0) return Error::from_errno(errno, "look at " + name);
  if (!same_inode(found, opened)) return Error::from_errno(EAGAIN, "open " + name + ", replaced meanwhile");
  return adopt(std::move(name), mode, std::move(buffered), opener);
}

Result<std::unique_ptr<LinuxFile>> LinuxFile::adopt(std::string name, OpenMode mode, UniqueFd buffered,
                                                    const Opener& opener) {
  struct stat status {};
  if (::fstat(buffered.get(), &status) != 0) return Error::from_errno(errno, "look at " + name);
  if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) return refuse_kind(name);

  std::unique_ptr<LinuxFile> file(new LinuxFile);
  file->name_ = std::move(name);
  file->buffered_ = std::move(buffered);
  file->is_block_device_ = S_ISBLK(status.st_mode);
  std::uint64_t size = static_cast<std::uint64_t>(status.st_size);
  if (file->is_block_device_ && ::ioctl(file->buffered_.get(), BLKGETSIZE64, &size) != 0)
    return Error::from_errno(errno, "ask the size of " + file->name_);
  file->size_ = size;
  BH_RETURN_IF_ERROR(file->open_direct(mode, status, opener));
  return file;
}

Result<void> LinuxFile::open_direct(OpenMode mode, const struct stat& status, const Opener& opener) {
  UniqueFd direct(opener(access_flags(mode) | O_DIRECT));
  // Without a direct descriptor IoQueue drops pages before it reads them, so readahead would only read twice.
  const auto stay_buffered = [this]() -> Result<void> {
    (void)::posix_fadvise(buffered_.get(), 0, 0, POSIX_FADV_RANDOM);
    return {};
  };
  if (direct.get() < 0) {
    if (means_unsupported(-direct.get())) return stay_buffered();
    return Error::from_errno(-direct.get(), "open " + name_ + " for direct I/O");
  }
  struct stat opened {};
  if (::fstat(direct.get(), &opened) != 0) return Error::from_errno(errno, "look at " + name_);
  if (!same_inode(status, opened)) return Error::from_errno(EAGAIN, "open " + name_ + ", replaced meanwhile");

  std::uint32_t alignment = kPage;
  if (is_block_device_) {
    int sector = 0;
    if (::ioctl(direct.get(), BLKSSZGET, &sector) == 0 && sector > 0)
      alignment = std::max(alignment, static_cast<std::uint32_t>(sector));
  }
#ifdef STATX_DIOALIGN
  struct statx limits {};
  if (::statx(direct.get(), "", AT_EMPTY_PATH, STATX_DIOALIGN, &limits) == 0 && (limits.stx_mask & STATX_DIOALIGN)) {
    // 0: this file refuses direct I/O (encrypted or verified content) though its file system took the flag.
    if (limits.stx_dio_offset_align == 0) return stay_buffered();
    alignment = std::max({alignment, limits.stx_dio_offset_align, limits.stx_dio_mem_align});
  }
#endif
  alignment_ = alignment;
  direct_ = std::move(direct);
  return {};
}

Result<void> LinuxFile::read_at(std::uint64_t offset, MutableBytes into) {
  while (!into.empty()) {
    const ssize_t got = ::pread(buffered_.get(), into.data(), into.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed(errno, "read", offset);
    if (got == 0) return make_error(IoErrc::unexpected_end, name_ + " at " + std::to_string(offset));
    into = into.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
  return {};
}

Result<void> LinuxFile::write_at(std::uint64_t offset, Bytes from) {
  while (!from.empty()) {
    const ssize_t put = ::pwrite(buffered_.get(), from.data(), from.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return failed(put < 0 ? errno : EIO, "write", offset);
    from = from.subspan(static_cast<std::size_t>(put));
    offset += static_cast<std::uint64_t>(put);
    note_written(offset);
  }
  return {};
}

// The page cache takes what a file system refuses, although it took O_DIRECT at open.
Result<void> LinuxFile::write_through(std::uint64_t offset, Bytes from) {
  if (!may_be_direct(offset, from)) return write_at(offset, from);
  const ssize_t put = ::pwrite(direct_.get(), from.data(), from.size(), static_cast<off_t>(offset));
  if (put < 0 && errno != EINVAL && errno != EINTR) return failed(errno, "write", offset);
  const auto done = static_cast<std::uint64_t>(std::max<ssize_t>(put, 0));
  note_written(offset + done);
  return write_at(offset + done, from.subspan(done));
}

bool LinuxFile::may_be_direct(std::uint64_t offset, Bytes memory) const noexcept {
  return direct_.get() >= 0 &&
         (offset | memory.size() | reinterpret_cast<std::uintptr_t>(memory.data())) % alignment_ == 0;
}

// The ring reads the parts that may be direct. read_at() reads the others, and those that the ring did not get whole:
// it also names the error.
Result<void> LinuxFile::read_all(std::span<const ReadPart> parts) {
  auto ring = parts.size() > 1 && direct_.get() >= 0 ? take_ring() : nullptr;
  if (!ring) {
    announce(parts);
    return File::read_all(parts);
  }
  std::vector<ReadPart> direct, rest;
  for (const auto& part : parts) (may_be_direct(part.offset, part.into) ? direct : rest).push_back(part);
  ring->read(direct_.get(), direct);
  for (std::size_t i = 0; i < direct.size(); ++i)
    if (!ring->whole()[i]) rest.push_back(direct[i]);
  {
    const std::lock_guard lock(rings_mutex_);
    idle_rings_.push_back(std::move(ring));
  }
  return File::read_all(rest);
}

std::unique_ptr<ReadRing> LinuxFile::take_ring() {
  {
    const std::lock_guard lock(rings_mutex_);
    if (!idle_rings_.empty()) {
      auto ring = std::move(idle_rings_.back());
      idle_rings_.pop_back();
      return ring;
    }
  }
  return ReadRing::make();
}

// Starts readahead, so that reads which go one by one through the page cache reach the device many at a time. A single
// one needs none.
void LinuxFile::announce(std::span<const ReadPart> parts) noexcept {
  if (parts.size() < 2) return;
  for (const auto& part : parts)
    (void)::posix_fadvise(buffered_.get(), static_cast<off_t>(part.offset), static_cast<off_t>(part.into.size()),
                          POSIX_FADV_WILLNEED);
}

void LinuxFile::note_written(std::uint64_t end) noexcept {
  std::uint64_t known = size_.load();
  while (end > known && !size_.compare_exchange_weak(known, end)) {
  }
}

Result<void> LinuxFile::write_zeros(std::uint64_t offset, std::uint64_t length) {
  while (length != 0) {
    const auto part = std::min<std::uint64_t>(length, sizeof kZeros);
    BH_RETURN_IF_ERROR(write_at(offset, Bytes(kZeros, part)));
    offset += part;
    length -= part;
  }
  return {};
}

// The device zeroes whole pages; writing zeroes the edges.
Result<void> LinuxFile::zero_device(std::uint64_t offset, std::uint64_t length) {
  const std::uint64_t end = offset + length;
  const std::uint64_t first = std::min(align_up(offset, alignment_), end);
  const std::uint64_t last = std::max(align_down(end, alignment_), first);
  BH_RETURN_IF_ERROR(write_zeros(offset, first - offset));
  if (last != first) {
    const auto at = static_cast<off_t>(first);
    const auto bytes = static_cast<off_t>(last - first);
    std::uint64_t range[2] = {first, last - first};
    // Punching also gives the space back, where the device can and promises zeros; BLKZEROOUT writes them inside the
    // device or the kernel.
    if (::fallocate(buffered_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, bytes) != 0 &&
        ::ioctl(buffered_.get(), BLKZEROOUT, range) != 0) {
      if (!means_unsupported(errno)) return failed(errno, "zero", first);
      BH_RETURN_IF_ERROR(write_zeros(first, last - first));
    }
  }
  return write_zeros(last, end - last);
}

Result<void> LinuxFile::zero_at(std::uint64_t offset, std::uint64_t length) {
  if (offset > size() || length > size() - offset)
    return make_error(BaseErrc::invalid_argument, "zero " + name_ + " past its end at " + std::to_string(offset));
  if (length == 0) return {};
  if (is_block_device_) return zero_device(offset, length);
  remember_data({});
  for (;;) {
    if (::fallocate(buffered_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                    static_cast<off_t>(length)) == 0)
      return {};
    if (errno != EINTR) break;
  }
  if (!means_unsupported(errno)) return failed(errno, "zero", offset);
  return write_zeros(offset, length);
}

Result<void> LinuxFile::resize(std::uint64_t size) {
  if (is_block_device_) return make_error(IoErrc::fixed_size, name_);
  while (::ftruncate(buffered_.get(), static_cast<off_t>(size)) != 0)
    if (errno != EINTR) return failed(errno, "resize", size);
  size_ = size;
  remember_data({});
  return {};
}

Result<void> LinuxFile::sync() {
  if (const int earlier = failed_sync(); earlier != 0) return Error::from_errno(earlier, "sync " + name_ + " again");
  while (::fdatasync(buffered_.get()) != 0) {
    if (errno == EINTR) continue;
    const int number = errno;
    remember_failed_sync(number);
    return Error::from_errno(number, "sync " + name_);
  }
  return {};
}

// The last run of data is remembered: a tmpfs looks at every page up to the next hole, so asking extent by extent would
// cost the square of the size. A hole made since may still count as data, never the reverse.
std::optional<ByteRange> LinuxFile::remembered_data(std::uint64_t from) {
  const std::lock_guard lock(data_run_mutex_);
  const std::uint64_t end = std::min(data_run_.end(), size());
  if (from < data_run_.offset || from >= end) return std::nullopt;
  return ByteRange{from, end - from};
}

void LinuxFile::remember_data(ByteRange run) {
  const std::lock_guard lock(data_run_mutex_);
  data_run_ = run;
}

Result<std::optional<ByteRange>> LinuxFile::next_data(std::uint64_t from) {
  if (const auto run = remembered_data(from)) return run;
  const std::uint64_t end = size();
  while (from < end) {
    const std::optional<ByteRange> all_data = ByteRange{from, end - from};
    if (is_block_device_) return all_data;

    const off_t data = ::lseek(buffered_.get(), static_cast<off_t>(from), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    if (data < 0 && means_unsupported(errno)) return all_data;
    if (data < 0) return failed(errno, "find data in", from);
    const off_t hole = ::lseek(buffered_.get(), data, SEEK_HOLE);
    if (hole < 0 && errno != ENXIO) return failed(errno, "find a hole in", static_cast<std::uint64_t>(data));

    const auto start = static_cast<std::uint64_t>(data);
    const auto stop = hole < 0 ? end : std::min(static_cast<std::uint64_t>(hole), end);
    if (start < stop) {
      const ByteRange run{start, stop - start};
      remember_data(run);
      return std::optional<ByteRange>(run);
    }
    from = std::max(start, from);  // punched between the two calls, or past our end: look again
    if (start >= end) break;
  }
  return std::optional<ByteRange>();
}

void LinuxFile::drop_cache(std::uint64_t offset, std::uint64_t length) noexcept {
  // Whole pages: the kernel keeps those that the range covers only in part.
  const std::uint64_t first = align_down(offset, kPage);
  const std::uint64_t last = align_up(offset + length, kPage);
  (void)::posix_fadvise(buffered_.get(), static_cast<off_t>(first), static_cast<off_t>(last - first),
                        POSIX_FADV_DONTNEED);
}

Result<FileIdentity> LinuxFile::identity() {
  struct statx status {};
  if (::statx(buffered_.get(), "", AT_EMPTY_PATH, STATX_BASIC_STATS, &status) != 0)
    return Error::from_errno(errno, "look at " + name_);
  FileIdentity identity;
  if (is_block_device_) {
    identity.device = ::makedev(status.stx_rdev_major, status.stx_rdev_minor);
    identity.size = size();
    return identity;
  }
  identity.device = ::makedev(status.stx_dev_major, status.stx_dev_minor);
  identity.inode = status.stx_ino;
  identity.size = status.stx_size;
  identity.modified_ns = nanoseconds(status.stx_mtime);
  identity.changed_ns = nanoseconds(status.stx_ctime);
  return identity;
}

Result<std::unique_ptr<File>> open_linux_file(const std::filesystem::path& path, OpenMode mode) {
  BH_TRY(auto file, LinuxFile::open(path.string(), mode, [&](int flags) {
           const int fd = ::open(path.c_str(), flags);
           return fd >= 0 ? fd : -errno;
         }));
  return std::unique_ptr<File>(std::move(file));
}

}  // namespace backhaul
