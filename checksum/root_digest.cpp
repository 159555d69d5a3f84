#include "checksum/root_digest.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <iterator>
#include <map>
#include <string_view>

#include "base/endian.h"
#include "checksum/sha256_stream.h"

namespace backhaul {
namespace {

constexpr std::string_view kPrefix{"backhaul-root-1\0", 16};

// Length of extent `index` (its true length, also of the last one).
std::uint64_t extent_bytes_at(std::uint64_t index, std::uint64_t disk_size) noexcept {
  return std::min(kExtentSize, disk_size - index * kExtentSize);
}

Sha256 compute_zero_extent_digest(std::uint64_t extent_bytes) noexcept {
  std::array<BlockDigest, kBlocksPerExtent> digests;
  const std::uint64_t whole = extent_bytes / kBlockSize;
  const std::uint64_t rest = extent_bytes % kBlockSize;
  if (whole != 0) std::fill_n(digests.begin(), whole, zero_block_digest());
  if (rest != 0) digests[whole] = zero_block_digest(rest);
  return extent_digest(std::span(digests).first(whole + (rest != 0 ? 1 : 0)));
}

}  // namespace

Sha256 extent_digest(std::span<const BlockDigest> block_digests) noexcept {
  return sha256(std::as_bytes(block_digests));
}

Sha256 zero_extent_digest(std::uint64_t extent_bytes) {
  assert(extent_bytes >= 1 && extent_bytes <= kExtentSize);
  static const Sha256 whole = compute_zero_extent_digest(kExtentSize);
  return extent_bytes == kExtentSize ? whole : compute_zero_extent_digest(extent_bytes);
}

struct RootDigest::State {
  // One extent with its digest, or a run of zero extents.
  struct Waiting {
    std::uint64_t count;
    bool zero;
    Sha256 digest;
  };

  explicit State(std::uint64_t size) : disk_size(size), extents(extent_count(size)) {
    std::array<std::byte, sizeof size> size_le;
    store_le(size_le.data(), size);
    root.update(as_bytes(kPrefix.data(), kPrefix.size()));
    root.update(size_le);
  }

  void put(std::uint64_t first, const Waiting& entry) {
    check_is_new(first, entry.count);
    if (first != next) {
      waiting.emplace(first, entry);
      return;
    }
    fold(entry);
    while (!waiting.empty() && waiting.begin()->first == next) {
      fold(waiting.begin()->second);
      waiting.erase(waiting.begin());
    }
  }

  void check_is_new(std::uint64_t first, std::uint64_t count) const {
    assert(first >= next && first <= extents && count <= extents - first);
    [[maybe_unused]] const auto after = waiting.lower_bound(first);
    assert(after == waiting.end() || first + count <= after->first);
    assert(after == waiting.begin() || std::prev(after)->first + std::prev(after)->second.count <= first);
  }

  void fold(const Waiting& entry) {
    if (entry.zero)
      fold_zeros(entry.count);
    else
      root.update(entry.digest.bytes);
    next += entry.count;
  }

  void fold_zeros(std::uint64_t count) {
    const std::uint64_t last_bytes = extent_bytes_at(extents - 1, disk_size);
    const bool short_last = next + count == extents && last_bytes != kExtentSize;
    std::array<Sha256, 256> piece;  // many at a time: a run may be millions of extents long
    std::uint64_t left = count - (short_last ? 1 : 0);
    std::fill_n(piece.begin(), std::min<std::uint64_t>(left, piece.size()), zero_extent_digest());
    while (left != 0) {
      const std::uint64_t now = std::min<std::uint64_t>(left, piece.size());
      root.update(std::as_bytes(std::span(piece).first(now)));
      left -= now;
    }
    if (short_last) root.update(zero_extent_digest(last_bytes).bytes);
  }

  std::uint64_t disk_size;
  std::uint64_t extents;
  std::uint64_t next = 0;
  bool finished = false;
  Sha256Stream root;
  std::map<std::uint64_t, Waiting> waiting;  // by first extent; came ahead of their turn
};

RootDigest::RootDigest(std::uint64_t disk_size_bytes) : state_(std::make_unique<State>(disk_size_bytes)) {}
RootDigest::RootDigest(RootDigest&&) noexcept = default;
RootDigest& RootDigest::operator=(RootDigest&&) noexcept = default;
RootDigest::~RootDigest() = default;

void RootDigest::add(std::uint64_t extent_index, const Sha256& digest) {
  state_->put(extent_index, {1, false, digest});
}

void RootDigest::add_zero_run(std::uint64_t first_extent, std::uint64_t count) {
  if (count != 0) state_->put(first_extent, {count, true, {}});
}

std::uint64_t RootDigest::next_extent() const noexcept { return state_->next; }

bool RootDigest::complete() const noexcept { return state_->next == state_->extents; }

Sha256 RootDigest::finish() {
  assert(complete() && !state_->finished);
  state_->finished = true;
  return state_->root.finish();
}

}  // namespace backhaul
