// What both ends' lanes share of an extent: its place, its frames' headers, the chunks in which its content moves.
#include "dataplane/protocol/lane_extent.h"

#include <gtest/gtest.h>

#include "unit/dataplane/expect_transition_death.h"
#include "unit/dataplane/transfer_fixture.h"

namespace backhaul {
namespace {

using namespace testing;

constexpr std::uint64_t kLaneDisk = 2 * kExtentSize + kBlockSize + 700;

enum class Light { red, green };
constexpr std::string_view to_string(Light light) noexcept { return light == Light::red ? "red" : "green"; }
constexpr bool may_follow(Light from, Light to) noexcept { return from == Light::red && to == Light::green; }

TEST(LaneExtent, TheLastOneIsAsLongAsTheDisk) {
  const LaneExtent<Light> whole(kLaneDisk, 1, Light::red), last(kLaneDisk, 2, Light::red);
  EXPECT_EQ(ByteRange(whole), (ByteRange{kExtentSize, kExtentSize}));
  EXPECT_EQ(ByteRange(last), (ByteRange{2 * kExtentSize, kBlockSize + 700}));
  EXPECT_EQ(last.blocks(), 2U);
  EXPECT_EQ(last.block_length(0), kBlockSize);
  EXPECT_EQ(last.block_length(1), 700U);
  EXPECT_EQ(last.block_at(last.offset + kBlockSize), 1U);
  EXPECT_EQ(last.block_end({last.offset + kBlockSize, 700}), 2U);
  EXPECT_EQ(whole.block_end({whole.offset, kExtentSize}), kBlocksPerExtent);
}

TEST(LaneExtent, OnlyAStepOfTheTableChangesTheState) {
  LaneExtent<Light> extent(kLaneDisk, 1, Light::red);
  EXPECT_TRANSITION_DEATH(extent.become(Light::red));
  extent.become(Light::green);
  EXPECT_EQ(extent.state(), Light::green);
  EXPECT_TRANSITION_DEATH(extent.become(Light::red));
}

TEST(LaneExtent, ARunSurvivesItsHeader) {
  const LaneHeaders headers(7, kLaneDisk);
  for (const ExtentRun run : {ExtentRun{0, 1}, ExtentRun{1, 2}, ExtentRun{2, 1}}) {
    const auto header = headers.make(FrameType::claim, run);
    EXPECT_OK(check_frame_range(header, kLaneDisk));
    EXPECT_EQ(header.epoch, 7U);
    EXPECT_EQ(extents_of(header), run);
    EXPECT_TRUE(run.contains(run.first) && run.contains(run.end() - 1) && !run.contains(run.end()));
  }
  EXPECT_EQ(headers.make(FrameType::extent_end, ExtentRun{1, 2}, kFrameHoleEnd),
            (FrameHeader{.type = FrameType::extent_end,
                         .flags = kFrameHoleEnd,
                         .epoch = 7,
                         .offset = kExtentSize,
                         .length = kExtentSize + kBlockSize + 700}));
}

TEST(LaneExtent, ChunksAreBlocksOfDataInsideOneChunkOfTheDisk) {
  SimRandom random(5);
  SimStorage storage(SimOptions{.seed = 5});
  // Data from the middle of a block, over a chunk's end; and the tail.
  Pattern pattern{Content(kLaneDisk, std::byte{1}),
                  {{kChunkSize - kBlockSize - 512, 2 * kBlockSize}, {kLaneDisk - 700, 700}}};
  make_disk(storage, "disk", DiskFormat::raw, pattern);
  const auto disk = open_disk(storage.open("disk", OpenMode::read).value(), OpenMode::read, random).value();
  const auto next = [&](std::uint64_t at, std::uint64_t end) { return next_chunk(*disk, at, end).value(); };
  EXPECT_EQ(next(0, kExtentSize), (ByteRange{kChunkSize - 2 * kBlockSize, 2 * kBlockSize}));
  EXPECT_EQ(next(kChunkSize, kExtentSize), (ByteRange{kChunkSize, kBlockSize}));
  EXPECT_EQ(next(0, kChunkSize - kBlockSize), (ByteRange{kChunkSize - 2 * kBlockSize, kBlockSize}));
  EXPECT_EQ(next(0, kChunkSize - 2 * kBlockSize), std::nullopt);
  EXPECT_EQ(next(kExtentSize, 2 * kExtentSize), std::nullopt);
  EXPECT_EQ(next(2 * kExtentSize, kLaneDisk), (ByteRange{kLaneDisk - 700, 700}));
  const auto segment = map_chunk(*disk, {kLaneDisk - 700, 700}).value();
  EXPECT_EQ(segment.kind, Segment::Kind::data);
  EXPECT_EQ(segment.file_offset, kLaneDisk - 700);
}

}  // namespace
}  // namespace backhaul
