// A sparse file in memory that a test can look into and edit below the File, with operations that fail from the N-th
// on. For power losses see tests/sim/.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "dataplane/disk/io.h"

namespace backhaul::testing {

// Content and size, value semantics; pages that were never written are holes.
struct MemoryImage {
  static constexpr std::uint64_t kPage = 4096;
  std::map<std::uint64_t, std::array<std::byte, kPage>> pages;
  std::uint64_t size = 0;

  void read(std::uint64_t offset, MutableBytes into) const {
    for (std::size_t done = 0; done < into.size();) {
      const auto at = offset + done, in_page = at % kPage;
      const auto count = std::min<std::size_t>(into.size() - done, kPage - in_page);
      if (const auto page = pages.find(at / kPage); page != pages.end())
        std::memcpy(into.data() + done, page->second.data() + in_page, count);
      else
        std::memset(into.data() + done, 0, count);
      done += count;
    }
  }
  void write(std::uint64_t offset, Bytes from) {
    for (std::size_t done = 0; done < from.size();) {
      const auto at = offset + done, in_page = at % kPage;
      const auto count = std::min<std::size_t>(from.size() - done, kPage - in_page);
      std::memcpy(pages[at / kPage].data() + in_page, from.data() + done, count);
      done += count;
    }
    size = std::max(size, offset + from.size());
  }
  void zero(std::uint64_t offset, std::uint64_t length) {
    auto page = pages.lower_bound(offset / kPage);
    while (page != pages.end() && page->first * kPage < offset + length) {
      const auto first = std::max(offset, page->first * kPage),
                 last = std::min(offset + length, (page->first + 1) * kPage);
      if (last - first == kPage) {
        page = pages.erase(page);
        continue;
      }
      std::memset(page->second.data() + first % kPage, 0, last - first);
      ++page;
    }
  }
  void resize(std::uint64_t new_size) {
    if (new_size < size) zero(new_size, size - new_size);
    size = new_size;
  }
};

// What outlives the File: shared with the test.
struct MemoryStore {
  std::mutex mutex;
  MemoryImage live;
  std::int64_t changes_until_failure = -1;  // writes, resizes and syncs; -1: never
  std::int64_t changes_done = 0;
};

class MemoryFile final : public File {
 public:
  explicit MemoryFile(std::shared_ptr<MemoryStore> store) : store_(std::move(store)) {}

  const std::string& name() const noexcept override { return name_; }
  std::uint64_t size() const noexcept override {
    const std::lock_guard lock(store_->mutex);
    return store_->live.size;
  }
  bool is_block_device() const noexcept override { return false; }
  std::uint32_t io_alignment() const noexcept override { return 512; }

  Result<void> read_at(std::uint64_t offset, MutableBytes into) override {
    const std::lock_guard lock(store_->mutex);
    if (offset > store_->live.size || into.size() > store_->live.size - offset)
      return make_error(std::make_error_code(std::errc::io_error), "read past the end");
    store_->live.read(offset, into);
    return {};
  }
  Result<void> write_at(std::uint64_t offset, Bytes from) override {
    const std::lock_guard lock(store_->mutex);
    BH_RETURN_IF_ERROR(count_change());
    store_->live.write(offset, from);
    return {};
  }
  Result<void> zero_at(std::uint64_t offset, std::uint64_t length) override {
    const std::lock_guard lock(store_->mutex);
    BH_RETURN_IF_ERROR(count_change());
    if (offset > store_->live.size || length > store_->live.size - offset)
      return make_error(std::make_error_code(std::errc::invalid_argument), "zeros past the end");
    store_->live.zero(offset, length);
    return {};
  }
  Result<void> resize(std::uint64_t size) override {
    const std::lock_guard lock(store_->mutex);
    BH_RETURN_IF_ERROR(count_change());
    store_->live.resize(size);
    return {};
  }
  Result<void> sync() override {
    const std::lock_guard lock(store_->mutex);
    return count_change();
  }
  Result<std::optional<ByteRange>> next_data(std::uint64_t from) override {
    const std::lock_guard lock(store_->mutex);
    const auto& pages = store_->live.pages;
    auto page = pages.lower_bound(from / MemoryImage::kPage);
    if (page == pages.end()) return std::optional<ByteRange>();
    const auto start = std::max(from, page->first * MemoryImage::kPage);
    auto end = page->first;
    for (; page != pages.end() && page->first == end; ++page) ++end;
    return std::optional(ByteRange{start, end * MemoryImage::kPage - start});
  }
  void drop_cache(std::uint64_t, std::uint64_t) noexcept override {}
  Result<FileIdentity> identity() override { return FileIdentity{}; }

 private:
  Result<void> count_change() {
    if (store_->changes_until_failure == 0) return Error::from_errno(EIO, "simulated");
    if (store_->changes_until_failure > 0) --store_->changes_until_failure;
    ++store_->changes_done;
    return {};
  }

  std::shared_ptr<MemoryStore> store_;
  std::string name_ = "memory";
};

// splitmix64: the same values for the same seed, everywhere.
class FixedRandom final : public Random {
 public:
  explicit FixedRandom(std::uint64_t seed = 1) : state_(seed) {}
  std::uint64_t next() override {
    auto z = state_ += 0x9E3779B97F4A7C15;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }

 private:
  std::uint64_t state_;
};

}  // namespace backhaul::testing
