// What the tests of the sync engine share: disks with random content in simulated storages, and a look at what is on
// them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "dataplane/disk/disk.h"
#include "sim/sim_random.h"
#include "sim/sim_storage.h"
#include "sim/sim_transfer.h"

namespace backhaul::testing {

using Content = std::vector<std::byte>;
using sim::SimClock;
using sim::SimOptions;
using sim::SimRandom;
using sim::SimStorage;
using sim::SimTransfer;
using sim::SimTransferOptions;

#define EXPECT_OK(...)                                                     \
  do {                                                                     \
    const auto& expect_ok_result = (__VA_ARGS__);                          \
    EXPECT_TRUE(expect_ok_result) << expect_ok_result.error().to_string(); \
  } while (false)
#define ASSERT_OK(...)                                                     \
  do {                                                                     \
    const auto& assert_ok_result = (__VA_ARGS__);                          \
    ASSERT_TRUE(assert_ok_result) << assert_ok_result.error().to_string(); \
  } while (false)

inline void fill_noise(SimRandom& random, std::span<std::byte> into) {
  for (std::size_t i = 0; i < into.size(); i += 8) {
    const auto value = random.next() | 0x0101010101010101;  // no byte is zero
    std::memcpy(&into[i], &value, std::min<std::size_t>(8, into.size() - i));
  }
}

// Runs of holes, written zeros, noise, and text that compresses. `holes` of 4 parts are holes or zeros.
struct Pattern {
  Content content;
  std::vector<ByteRange> written;  // the rest are holes
};
inline Pattern random_pattern(SimRandom& random, std::uint64_t size, std::uint64_t longest_run = 1536 * kKiB) {
  Pattern pattern{Content(size), {}};
  for (std::uint64_t at = 0; at < size;) {
    const auto unit = random.one_in(3) ? std::uint64_t{512} : kBlockSize;
    const auto length = std::min(size - at, (1 + random.below(longest_run / unit)) * unit);
    const auto bytes = std::span(pattern.content).subspan(at, length);
    const auto kind = random.below(5);
    if (kind >= 2 && kind <= 3) fill_noise(random, bytes);
    if (kind == 4) std::fill(bytes.begin(), bytes.end(), static_cast<std::byte>(1 + random.below(255)));
    if (kind != 0) pattern.written.push_back({at, length});
    at += length;
  }
  return pattern;
}

// Changes some ranges: new noise, zeros, or a hole's worth of them. Gives the ranges that were touched.
inline std::vector<ByteRange> change_some(SimRandom& random, Pattern& pattern, unsigned count) {
  std::vector<ByteRange> touched;
  const std::uint64_t size = pattern.content.size();
  for (unsigned i = 0; i < count && size > 0; ++i) {
    const auto offset = random.below(size);
    const auto length = std::min(size - offset, 1 + random.below(random.one_in(3) ? 900 * kKiB : 3 * kBlockSize));
    const auto bytes = std::span(pattern.content).subspan(offset, length);
    if (random.one_in(3))
      std::fill(bytes.begin(), bytes.end(), std::byte{0});
    else
      fill_noise(random, bytes);
    pattern.written.push_back({offset, length});
    touched.push_back({offset, length});
  }
  return touched;
}

// A durable disk at `path`; a VHDX gets zeros behind the content up to its sector.
inline void make_disk(SimStorage& storage, const std::string& path, DiskFormat format, const Pattern& pattern,
                      std::uint32_t vhdx_block_size = 0) {
  SimRandom random(99);
  if (const auto slash = path.rfind('/'); slash != std::string::npos)
    ASSERT_OK(storage.make_directory(path.substr(0, slash)));
  ASSERT_OK(storage.remove(path));
  auto file = storage.create(path);
  ASSERT_OK(file);
  auto disk = create_disk(std::move(*file), {format, pattern.content.size(), vhdx_block_size, 512}, random);
  ASSERT_OK(disk);
  for (const auto& range : pattern.written) {
    for (std::uint64_t at = range.offset; at < range.end();) {
      const auto segment = (*disk)->allocate(at, range.end() - at);
      ASSERT_OK(segment);
      ASSERT_OK(
          (*disk)->file().write_at(segment->file_offset, std::span(pattern.content).subspan(at, segment->length)));
      at += segment->length;
    }
  }
  ASSERT_OK((*disk)->close());
}

// What a disk reads as, by its format.
inline Content disk_content(SimStorage& storage, const std::string& path, DiskFormat* format = nullptr) {
  SimRandom random(98);
  auto file = storage.open(path, OpenMode::read);
  EXPECT_OK(file);
  if (!file) return {};
  auto disk = open_disk(std::move(*file), OpenMode::read, random);
  EXPECT_OK(disk);
  if (!disk) return {};
  if (format != nullptr) *format = (*disk)->format();
  Content content((*disk)->size());
  for (std::uint64_t at = 0; at < content.size();) {
    const auto segment = (*disk)->map(at, content.size() - at);
    if (segment.kind == Segment::Kind::data) {
      EXPECT_OK((*disk)->file().read_at(segment.file_offset, std::span(content).subspan(at, segment.length)));
    }
    at += segment.length;
  }
  return content;
}

// The offset of the first difference; says equal when a disk of `content` has the padding of its format behind it.
inline ::testing::AssertionResult same_disk(const Content& disk, const Content& content) {
  if (disk.size() < content.size() || disk.size() - content.size() >= 4096)
    return ::testing::AssertionFailure() << "sizes " << disk.size() << " and " << content.size();
  const auto end = std::mismatch(content.begin(), content.end(), disk.begin());
  if (end.first != content.end())
    return ::testing::AssertionFailure() << "differ at " << end.first - content.begin() << " of " << content.size();
  for (auto at = content.size(); at < disk.size(); ++at)
    if (disk[at] != std::byte{0}) return ::testing::AssertionFailure() << "padding is not zero at " << at;
  return ::testing::AssertionSuccess();
}

// The root digest by the definition, one block after the other.
inline std::string root_of(const Content& content) {
  auto hasher = make_block_hasher(HashKernel::one_buffer).value();
  RootDigest root(content.size());
  for (std::uint64_t extent = 0; extent < extent_count(content.size()); ++extent) {
    std::vector<Bytes> blocks;
    const auto end = std::min<std::uint64_t>((extent + 1) * kExtentSize, content.size());
    for (auto at = extent * kExtentSize; at < end; at += kBlockSize)
      blocks.push_back(Bytes(content).subspan(at, std::min(kBlockSize, end - at)));
    std::vector<BlockDigest> digests(blocks.size());
    hasher->digest(blocks, digests);
    root.add(extent, extent_digest(digests));
  }
  return to_hex(root.finish());
}

// Blocks in which the two differ, the shorter one padded with zeros.
inline std::uint64_t blocks_that_differ(Content a, Content b) {
  const auto size = std::max(a.size(), b.size());
  a.resize(size);
  b.resize(size);
  std::uint64_t count = 0;
  for (std::size_t at = 0; at < size; at += kBlockSize)
    count += std::memcmp(&a[at], &b[at], std::min<std::size_t>(kBlockSize, size - at)) != 0 ? 1 : 0;
  return count;
}

// Two machines with a disk each.
struct TwoSites {
  explicit TwoSites(std::uint64_t seed, bool reflink = true, std::uint64_t target_space = kTiB)
      : source(SimOptions{.seed = seed * 2 + 1, .clock = &clock}),
        target(SimOptions{.seed = seed * 2 + 2, .reflink = reflink, .space_bytes = target_space, .clock = &clock}),
        random(seed) {}
  SimTransfer transfer(const SimTransferOptions& options) {
    return SimTransfer(source, "source", target, target, clock, options);
  }
  SimClock clock;
  SimStorage source, target;
  SimRandom random;
};

// No session directory and nothing that is not a disk, its digests or the memory of its last transfer.
inline void expect_no_leftovers(SimStorage& storage, const std::string& disk) {
  const auto names = storage.list("");
  ASSERT_OK(names);
  for (const auto& name : *names)
    EXPECT_TRUE(name == disk || name == "." + disk + ".digests" || name == "." + disk + ".last") << name;
}

}  // namespace backhaul::testing
