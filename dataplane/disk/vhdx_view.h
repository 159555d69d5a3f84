// A VHDX file as a reader of its metadata must see it: the file's bytes, and above them what a pending log would
// change. A disk opened for writing has the log replayed into the file, so nothing lies above it.
#pragma once

#include <cstdint>
#include <vector>

#include "base/error.h"
#include "dataplane/disk/io.h"
#include "dataplane/disk/vhdx_layout.h"

namespace backhaul::vhdx {

// Immutable once filled; then any thread.
class View {
 public:
  explicit View(File& file) : file_(&file), size_(file.size()) {}

  File& file() const noexcept { return *file_; }
  // The file's size, or what the log grows it to.
  std::uint64_t size() const noexcept { return size_; }

  // Whole length, or VhdxErrc::truncated.
  Result<void> read(std::uint64_t offset, MutableBytes into) const;

  // Later changes lie above earlier ones.
  void grow_to(std::uint64_t size) noexcept { size_ = size > size_ ? size : size_; }
  void add_zeros(ByteRange range) { changes_.push_back({range, {}}); }
  void add_page(std::uint64_t offset, Bytes page) {
    changes_.push_back({{offset, page.size()}, std::vector<std::byte>(page.begin(), page.end())});
  }

  struct Change {
    ByteRange range;
    std::vector<std::byte> content;  // empty: zeros
  };
  const std::vector<Change>& changes() const noexcept { return changes_; }

 private:
  File* file_;
  std::uint64_t size_;
  std::vector<Change> changes_;  // at most kMaxReplayedLog of pages, and the zero descriptors that fit such a log
};

}  // namespace backhaul::vhdx
