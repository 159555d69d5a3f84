// A virtual disk inside a file: raw or VHDX. A format only translates addresses; content moves between IoQueue and the
// file directly, so no format stands on the path of a block. map() and allocate() may be called from all lanes at once;
// the others by one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "dataplane/disk/io.h"

namespace backhaul {

enum class DiskFormat { raw, vhdx, vhdx_fixed };
std::string_view to_string(DiskFormat format) noexcept;
std::optional<DiskFormat> parse_disk_format(std::string_view text) noexcept;

struct Segment {
  enum class Kind { data, zero };
  Kind kind = Kind::zero;
  std::uint64_t file_offset = 0;  // data only
  std::uint64_t length = 0;
};

class Disk {
 public:
  virtual ~Disk() = default;

  virtual DiskFormat format() const noexcept = 0;
  virtual std::uint64_t size() const noexcept = 0;
  virtual std::uint32_t logical_sector_size() const noexcept = 0;
  virtual File& file() noexcept = 0;

  // Where [offset, offset+length) lies: the first segment of it, with 0 < segment.length <= length. A `zero` segment
  // has no place in the file and reads as zeros. REQUIRES: the range is inside the disk and not empty. Lock-free when
  // nothing is being allocated.
  virtual Segment map(std::uint64_t offset, std::uint64_t length) const noexcept = 0;
  // The first run at or after `from` that may hold non-zero bytes (allocated by the format and not a hole of the file).
  virtual Result<std::optional<ByteRange>> next_data(std::uint64_t from) const = 0;

  // Like map(), but gives what has no place in the file one (never a `zero` segment). A new place reads as zeros until
  // written.
  virtual Result<Segment> allocate(std::uint64_t offset, std::uint64_t length) = 0;
  // Makes everything written and allocated so far durable, content before the metadata that refers to it. Any thread;
  // calls exclude each other inside.
  virtual Result<void> checkpoint() = 0;
  // checkpoint(), then leaves the file as a closed, clean disk of its format. The Disk is used no more.
  virtual Result<void> close() = 0;
};

struct DiskCreate {
  DiskFormat format = DiskFormat::raw;
  std::uint64_t size = 0;
  std::uint32_t vhdx_block_size = 0;        // 0: 2 MiB for dynamic up to 1 TiB, 32 MiB above and for fixed
  std::uint32_t logical_sector_size = 512;  // VHDX: 512 or 4096
};

// Turns an empty file (or, for raw, a block device of at least the size) into a disk. VHDX sizes are rounded up to the
// sector size.
Result<std::unique_ptr<Disk>> create_disk(std::unique_ptr<File> file, const DiskCreate& options, Random& random);
// Recognises the format by content (VHDX signature), not by name. For writing, a pending VHDX log is replayed into the
// file; for reading it is replayed in memory. `round_up_to` > 1 makes a raw disk appear padded with zeros to that
// multiple.
Result<std::unique_ptr<Disk>> open_disk(std::unique_ptr<File> file, OpenMode mode, Random& random,
                                        std::uint64_t round_up_to = 1);

}  // namespace backhaul
