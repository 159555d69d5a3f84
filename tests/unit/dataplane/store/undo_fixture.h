// What the tests of undo share: a disk with random content, its undo log, and changes at random.
#pragma once

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "dataplane/store/undo.h"
#include "dataplane/store/undo_log.h"
#include "sim/sim_random.h"
#include "sim/sim_storage.h"

namespace backhaul::undo_fixture {

using sim::SimOptions;
using sim::SimRandom;
using sim::SimStorage;

inline constexpr std::uint64_t kChunk = kUndoChunkSize;
using Content = std::vector<std::byte>;

inline Content noise(SimRandom& random, std::size_t size) {
  Content content(size);
  for (std::size_t i = 0; i < size; i += 8) {
    const auto value = random.next() | 1;  // never all zeros
    std::memcpy(&content[i], &value, std::min<std::size_t>(8, size - i));
  }
  return content;
}

// A durable file "disk" of `size` bytes: noise, holes and written zeros in runs of up to four chunks.
inline Content make_disk(SimStorage& storage, SimRandom& random, std::uint64_t size) {
  auto file = storage.create("disk").value();
  EXPECT_TRUE(file->resize(size));
  for (std::uint64_t at = 0; at < size;) {
    const std::uint64_t length = std::min(size - at, (1 + random.below(4 * 16)) * 4096);
    const auto kind = random.below(3);
    if (kind == 0) {
      EXPECT_TRUE(file->write_at(at, noise(random, length)));
    }
    if (kind == 1) {
      EXPECT_TRUE(file->write_at(at, Content(length)));
    }
    at += length;
  }
  EXPECT_TRUE(file->sync());
  return storage.content("disk");
}

inline void make_log(SimStorage& storage) {
  auto file = storage.open("disk", OpenMode::write).value();
  const auto made = create_undo_log(storage, "undo", *file);
  ASSERT_TRUE(made) << made.error().to_string();
}

inline std::unique_ptr<File> open_undo(SimStorage& storage) {
  auto file = open_undo_file(storage, "undo", storage.open("disk", OpenMode::write).value());
  EXPECT_TRUE(file) << file.error().to_string();
  return std::move(file).value();
}

inline Result<void> restore(SimStorage& storage) {
  BH_TRY(auto file, storage.open("disk", OpenMode::write));
  return restore_undo_log(storage, "undo", *file);
}

inline void expect_restored(SimStorage& storage, const Content& old) {
  const auto restored = restore(storage);
  ASSERT_TRUE(restored) << restored.error().to_string();
  EXPECT_TRUE(storage.content("disk") == old);
  EXPECT_TRUE(storage.durable_content("disk") == old);
}

// One random change of the file; some by the way of IoQueue: prepare_write, then a write to the native file.
inline Result<void> change(File& file, SimRandom& random) {
  const std::uint64_t size = file.size();
  const std::uint64_t offset = random.below(size + 1);
  const std::uint64_t length = std::min(size - offset, random.below(6 * kChunk));
  switch (random.below(8)) {
    case 0: return file.zero_at(offset, length);
    case 1: return file.resize(random.below(2) == 0 ? offset : size + random.below(3 * kChunk));
    case 2: return file.sync();
    case 3:
    case 4: {
      std::vector<ByteRange> ranges;
      for (int i = 0; i < 5 && size > kChunk; ++i)
        ranges.push_back({random.below(size - kChunk), 1 + random.below(kChunk)});
      BH_RETURN_IF_ERROR(file.prepare_write(ranges));
      for (const auto& range : ranges)
        BH_RETURN_IF_ERROR(file.native().write_at(range.offset, noise(random, range.length)));
      return {};
    }
    default: return file.write_at(offset, noise(random, length));
  }
}

}  // namespace backhaul::undo_fixture
