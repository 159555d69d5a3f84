// The disk seam: everything the data plane asks of an operating system's files. One implementation for Linux
// (dataplane/linux/linux_storage.h: io_uring and O_DIRECT), one simulated for tests (tests/sim/sim_storage.h: torn and
// lost writes under a seed). Engine, formats and staging see only this header; no Linux header is needed to compile
// them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/buffer.h"
#include "base/error.h"
#include "base/world.h"
#include "transport/stream/stream.h"

namespace backhaul {

struct ByteRange {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::uint64_t end() const noexcept { return offset + length; }
  friend bool operator==(const ByteRange&, const ByteRange&) = default;
};

// Changes whenever a file's content may have changed or the name leads to another file. A block device cannot tell: its
// times are 0, and equality then proves nothing. A power loss may take the times back to before the last writes.
struct FileIdentity {
  std::uint64_t device = 0, inode = 0, size = 0;
  std::int64_t modified_ns = 0, changed_ns = 0;
  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

enum class OpenMode { read, write /* and read */ };

class IoQueue;

struct ReadPart {
  std::uint64_t offset = 0;
  MutableBytes into;
};

// A regular file, a block device, or (read only) a server's export. Positional operations may run from several threads
// at once on disjoint ranges, also beside one resize that grows the file (a VHDX disk grows while lanes write);
// shrinking and destruction may not run beside anything else.
class File {
 public:
  virtual ~File() = default;

  virtual const std::string& name() const noexcept = 0;
  virtual std::uint64_t size() const noexcept = 0;
  virtual bool is_block_device() const noexcept = 0;
  // What IoQueue's direct path needs of offset, length and memory: 4096, or the device's larger sectors. IoQueue takes
  // other requests and unaligned ends through the page cache.
  virtual std::uint32_t io_alignment() const noexcept = 0;

  // Blocking, any alignment, whole length or an error (reading past the end is IoErrc::unexpected_end). For metadata.
  // Writing past the end makes a regular file longer.
  virtual Result<void> read_at(std::uint64_t offset, MutableBytes into) = 0;
  virtual Result<void> write_at(std::uint64_t offset, Bytes from) = 0;
  // Reads each part as read_at() does, many at once, and past the page cache where offset, length and memory have
  // io_alignment(). After an error the parts hold anything.
  virtual Result<void> read_all(std::span<const ReadPart> parts);
  // Writes as write_at() does, but past the page cache where offset, length and memory have io_alignment().
  virtual Result<void> write_through(std::uint64_t offset, Bytes from) { return write_at(offset, from); }
  // Makes the range read as zeros: punches a hole where it can, writes zeros where it cannot. Inside the file's size.
  virtual Result<void> zero_at(std::uint64_t offset, std::uint64_t length) = 0;
  // Grows (new bytes read as zeros, no space taken) or shrinks. IoErrc::fixed_size for block devices.
  virtual Result<void> resize(std::uint64_t size) = 0;
  // Everything written so far, by whatever path, is durable when this returns, the size included. A sync that
  // failed lost writes: from then on every sync of this File fails, IoQueue's too.
  virtual Result<void> sync() = 0;
  // The first run of data at or after `from`: {offset, length}; nothing when only a hole is left. Where the system
  // cannot tell, everything is data.
  virtual Result<std::optional<ByteRange>> next_data(std::uint64_t from) = 0;
  // Forgets cached clean pages of the range, so that a later read comes from the device. Best effort.
  virtual void drop_cache(std::uint64_t offset, std::uint64_t length) noexcept = 0;
  virtual Result<FileIdentity> identity() = 0;

  // Must be called before IoQueue writes to these ranges; write_at, zero_at and resize call it themselves. A plain file
  // does nothing here; an undo file makes the old content durable first (dataplane/store/undo.h).
  virtual Result<void> prepare_write(std::span<const ByteRange> ranges) {
    (void)ranges;
    return {};
  }
  // The file that IoQueue works on: itself, or what a decorator decorates.
  virtual File& native() noexcept { return *this; }
  // A queue for one lane, where the system's queue cannot read this native file. Null: the system's queue can.
  virtual Result<std::unique_ptr<IoQueue>> own_queue();
};

struct Completion {
  std::uint64_t tag = 0;
  int error = 0;            // errno value; 0 on success
  std::uint32_t bytes = 0;  // reads: less than asked only at the end of the file
};

struct PollRequest {
  PollHandle handle = -1;
  bool readable = false;
  bool writable = false;
};

// Asynchronous I/O of one lane; belongs to one thread. Requests are split or continued inside, so that a completion is
// for the whole request. The kernel holds the memory until the completion was returned.
class IoQueue {
 public:
  virtual ~IoQueue() = default;

  // Offers memory for faster I/O (registered with the kernel); it must stay until the queue is gone. If the kernel
  // refuses to lock it, the queue logs that once and works without.
  virtual void register_memory(MutableBytes memory) = 0;

  // Reads come from the device, not the system's cache, where the system can do that. REQUIRES: in_flight() <
  // capacity(). A read may end past the file's end (short completion). Writes stay inside the size (else EINVAL). The
  // file stays open until the completion.
  virtual void read(File& file, std::uint64_t offset, MutableBytes into, std::uint64_t tag) = 0;
  virtual void write(File& file, std::uint64_t offset, Bytes from, std::uint64_t tag) = 0;
  // Covers the writes whose completions were returned before; others that are in flight may or may not be covered.
  virtual void sync(File& file, std::uint64_t tag) = 0;

  virtual unsigned in_flight() const noexcept = 0;
  virtual unsigned capacity() const noexcept = 0;

  // Submits what is queued, then waits until a completion is there, `poll` (optional) is ready, or `timeout` passed; a
  // zero timeout only looks. Returns the completions (valid until the next call); an empty span means poll or timeout.
  // The poll is armed for this call only and never outlives it: a handle may be closed between calls, and readiness is
  // never remembered. A handle of -1 makes the call return soon, since such a stream is always asked again.
  virtual Result<std::span<const Completion>> wait(const PollRequest* poll, Clock::Duration timeout) = 0;
};

inline Result<std::unique_ptr<IoQueue>> File::own_queue() { return std::unique_ptr<IoQueue>(); }

// A tree of files under one root, which no path can leave: absolute paths, "..", symbolic links that lead outside and
// names with control characters are IoErrc::outside_store. Paths are relative with '/'. Thread-safe.
class Storage {
 public:
  virtual ~Storage() = default;

  enum class Kind { none, file, directory, block_device, other };  // a symbolic link inside the root is `other`
  virtual Result<Kind> kind(std::string_view path) = 0;
  virtual Result<std::unique_ptr<File>> open(std::string_view path, OpenMode mode) = 0;
  // A new file of size 0, mode 0600. io.exists when there is one.
  virtual Result<std::unique_ptr<File>> create(std::string_view path) = 0;
  // A copy that shares its blocks with the original (reflink). IoErrc::clone_unsupported where the file system cannot;
  // nothing is left then.
  virtual Result<void> clone(std::string_view from, std::string_view to) = 0;
  // Atomic and durable: both directories are synced before it returns. Replaces `to` only when `replace`.
  virtual Result<void> rename(std::string_view from, std::string_view to, bool replace) = 0;
  // Gives `path` the owner, group and permissions of `like`, as far as this process may, so that whoever used the old
  // file can use its replacement. Does nothing where files have no owner.
  virtual Result<void> take_ownership(std::string_view path, std::string_view like) {
    (void)path;
    (void)like;
    return {};
  }
  // Durable. No error when it is not there.
  virtual Result<void> remove(std::string_view path) = 0;
  // Durable, with parents; no error when it is there.
  virtual Result<void> make_directory(std::string_view path) = 0;
  // The directory with the files in it (no subdirectories); durable; no error when it is not there.
  virtual Result<void> remove_directory(std::string_view path) = 0;
  // Names in a directory, sorted; "" is the root.
  virtual Result<std::vector<std::string>> list(std::string_view path) = 0;
  virtual Result<std::uint64_t> free_space_bytes() = 0;
};

enum class IoErrc {
  unexpected_end = 1,  // a read past the end of a file
  outside_store,       // a path that leaves the store, or is no plain name
  clone_unsupported,   // the file system cannot share blocks between files
  fixed_size,          // a block device cannot change its size
  not_a_disk,          // the path is a directory, socket or the like
  uring_unavailable,   // the kernel refuses io_uring
  too_small,           // a block device is smaller than the disk that should lie on it
};
const ErrorCategory& io_category() noexcept;
inline std::error_code make_error_code(IoErrc value) { return {static_cast<int>(value), io_category()}; }

// What every Storage asks of a path before it looks: relative, '/' between names, no empty name, ".", "..", control
// character, no name above 255 and no path above 4095 bytes; else IoErrc::outside_store. Symbolic links are the
// implementation's to confine.
Result<void> check_store_path(std::string_view path);

}  // namespace backhaul

template <>
struct std::is_error_code_enum<backhaul::IoErrc> : std::true_type {};
