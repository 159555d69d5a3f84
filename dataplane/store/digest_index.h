// The digest index: what is known of every extent of one target disk, kept in a file beside it
// (docs/journal_format.md). It is at once the record of what is durable (and so must not be sent again after a crash)
// and the digests that spare the target a read in the next round. At most 0.06 % of the disk; sparse where the disk is.
// Memory: two bytes an extent (512 KiB for each TiB). Thread-safe: lanes work on disjoint extents; sync() may be called
// by any.
#pragma once

#include <array>
#include <memory>

#include "checksum/block_digest.h"
#include "dataplane/disk/io.h"

namespace backhaul {

enum class ExtentState : std::uint8_t {
  unknown = 0,  // nothing is known: read it
  known = 1,    // durable, and the record holds the digests of what was read back
  zero = 2,     // durable, every byte is zero; has no record
  durable = 3,  // durable, content not digested (verification was off)
};

class DigestIndex {
 public:
  virtual ~DigestIndex() = default;
  virtual std::uint64_t disk_size() const noexcept = 0;

  virtual ExtentState state(std::uint64_t extent) const noexcept = 0;
  // Blocks that were shipped for this extent in this transfer (all runs), at most kBlocksPerExtent.
  virtual std::uint8_t shipped(std::uint64_t extent) const noexcept = 0;
  // The record of a `known` extent. A record that fails its check makes the extent unknown and gives false.
  virtual Result<bool> load(std::uint64_t extent, ExtentDigests& digests) = 0;

  // Written at once, durable with the next sync(). The caller has made the content durable before.
  virtual Result<void> store(std::uint64_t extent, const ExtentDigests& digests, std::uint8_t shipped) = 0;
  virtual Result<void> store_durable(std::uint64_t extent, std::uint8_t shipped) = 0;
  virtual Result<void> store_zero_run(std::uint64_t first, std::uint64_t count) = 0;
  // Makes an extent unknown again before it is overwritten; the caller calls sync() before the write.
  virtual Result<void> forget(std::uint64_t extent) = 0;
  virtual Result<void> sync() = 0;
  // Sets all shipped counts to 0: a new transfer of the same disk begins.
  virtual Result<void> reset_shipped() = 0;

  // The identity of the disk file that the index describes; set at the end of a transfer, checked at the start of the
  // next.
  virtual Result<void> set_identity(const FileIdentity& identity) = 0;
  virtual Result<FileIdentity> identity() = 0;
};

Result<std::unique_ptr<DigestIndex>> create_digest_index(Storage& storage, std::string_view path,
                                                         std::uint64_t disk_size);
// Errors: IndexErrc::damaged, wrong_size; the caller may then remove it and create a new one.
Result<std::unique_ptr<DigestIndex>> open_digest_index(Storage& storage, std::string_view path,
                                                       std::uint64_t disk_size);

enum class IndexErrc {
  damaged = 1,  // the header is unusable
  wrong_size,   // the index describes a disk of another size
};
const ErrorCategory& index_category() noexcept;
inline std::error_code make_error_code(IndexErrc value) { return {static_cast<int>(value), index_category()}; }

}  // namespace backhaul

template <>
struct std::is_error_code_enum<backhaul::IndexErrc> : std::true_type {};
