// The parts of a target lane, each by itself over a simulated disk: claims, writer, checkpoint.
#include <gtest/gtest.h>

#include "dataplane/target/target_checkpoint.h"
#include "dataplane/target/target_claims.h"
#include "sim/memory_stream.h"
#include "unit/dataplane/transfer_fixture.h"

namespace backhaul {
namespace {

using namespace testing;

constexpr std::uint64_t kPartsDisk = 3 * kExtentSize + 700;

class TargetPartsTest : public ::testing::Test {
 protected:
  using enum TargetExtentState;

  // The old disk: extent 0 begins with four blocks, the third of them zero; extent 1 is a hole, the rest is noise.
  TargetPartsTest() {
    Pattern pattern{Content(kPartsDisk), {{0, 4 * kBlockSize}, {2 * kExtentSize, kExtentSize + 700}}};
    for (const auto& range : pattern.written)
      fill_noise(sites_.random, std::span(pattern.content).subspan(range.offset, range.length));
    std::fill_n(pattern.content.begin() + 2 * kBlockSize, kBlockSize, std::byte{0});
    make_disk(sites_.target, "disk", DiskFormat::raw, pattern);
    OpenRequest request;
    request.disk = "disk";
    request.size = kPartsDisk;
    control_.emplace(store_.open(request, std::chrono::milliseconds(0), opened_).value());
    use_.emplace(store_.join(opened_.session, opened_.epoch).value());
    parts_.emplace(**use_, *stream_, *queue_, *hasher_, sites_.clock);
  }
  ~TargetPartsTest() override { queue_.reset(); }

  struct Parts {
    Parts(TargetSession& session, ByteStream& stream, IoQueue& queue, BlockHasher& hasher, Clock& clock)
        : frames(stream),
          extents(session, frames),
          io(session, queue, hasher, extents),
          claims(session, io, extents),
          writer(session, io),
          checkpoint(session, io, writer, extents, clock) {}
    FrameWriter frames;
    TargetExtents extents;
    TargetIo io;
    TargetClaims claims;
    TargetWriter writer;
    TargetCheckpoint checkpoint;
  };
  TargetSession& session() { return **use_; }
  Parts& parts() { return *parts_; }
  TargetExtent& extent(std::uint64_t number) { return *parts().extents.find(number); }
  // Claims the extent and waits for the answer.
  TargetExtent& answer(std::uint64_t number) {
    bool progressed = false;
    EXPECT_OK(parts().claims.add({number, 1}));
    EXPECT_OK(parts().claims.advance(progressed));
    while (extent(number).state() == reading) EXPECT_OK(parts().io.wait());
    return extent(number);
  }
  // Content of one byte for a block, written with the next flush.
  void send(TargetExtent& to, std::uint32_t block, std::byte value) {
    const ByteRange range{to.block_offset(block), to.block_length(block)};
    const auto place = parts().io.pool().place(range.length).value();
    const auto content = parts().io.pool().at(place, range.length);
    std::fill(content.begin(), content.end(), value);
    ASSERT_OK(to.receive(range));
    to.written.set(block);
    parts().writer.add(to, range, place);
  }
  std::byte staged(std::uint64_t offset) { return sites_.target.content(".disk.backhaul/staged")[offset]; }

  TwoSites sites_{1};
  SimRandom random_{2};
  TargetStore store_{sites_.target, sim::sim_parts(sites_.target, sites_.clock, random_)};
  OpenedSession opened_;
  std::optional<SessionUse> control_, use_;
  std::unique_ptr<BlockHasher> hasher_ = make_block_hasher(HashKernel::one_buffer).value();
  std::unique_ptr<sim::MemoryStream> stream_ = sim::make_memory_pair().first;
  std::optional<Parts> parts_;
  std::unique_ptr<IoQueue> queue_ = sites_.target.make_queue();
};

TEST_F(TargetPartsTest, AClaimIsAnsweredWhenItsLastReadIsDone) {
  bool progressed = false;
  ASSERT_OK(parts().claims.add({0, 3}));
  ASSERT_OK(parts().claims.advance(progressed));
  EXPECT_EQ(extent(0).state(), reading);
  EXPECT_EQ(parts().extents.find(1), nullptr) << "a hole is answered at once and not under way";
  EXPECT_EQ(parts().frames.queued_frames(), 1U);
  while (extent(0).reads > 0 || extent(2).reads > 0) ASSERT_OK(parts().io.wait());
  EXPECT_EQ(extent(0).state(), answered);
  EXPECT_EQ(extent(2).state(), answered);
  EXPECT_EQ(parts().frames.queued_frames(), 3U);
  EXPECT_EQ(extent(0).content.nonzero.to_ulong(), 0b1011U);
  EXPECT_EQ(extent(0).content.digests[2], zero_block_digest());
  EXPECT_TRUE(extent(2).content.nonzero.all());
  EXPECT_EQ(parts().io.pool().free_count(), kLaneBuffers);
  ASSERT_OK(parts().claims.add({2, 1}));
  EXPECT_FALSE(parts().claims.advance(progressed)) << "claimed twice";
}

TEST_F(TargetPartsTest, ZeroesWhatIsNotZeroAndForgetsItsRecordBefore) {
  ASSERT_OK(session().index().store_durable(0, 0));
  ASSERT_OK(session().index().store_durable(1, 0));
  EXPECT_EQ(parts().writer.zero({0, 2 * kExtentSize}).value(), 3U);
  EXPECT_EQ(session().index().state(0), ExtentState::unknown);
  EXPECT_EQ(session().index().state(1), ExtentState::durable) << "nothing of it was changed";
  EXPECT_EQ(staged(0), std::byte{0});
  EXPECT_EQ(parts().writer.zero({0, 2 * kExtentSize}).value(), 0U);
  EXPECT_OK(parts().writer.check_zero({0, 2 * kExtentSize}));
  EXPECT_FALSE(parts().writer.check_zero({0, 3 * kExtentSize}));
}

TEST_F(TargetPartsTest, ContentIsWrittenByTheFlushAndItsBuffersComeBack) {
  auto& first = answer(0);
  auto& second = answer(2);
  send(first, 1, std::byte{7});
  send(first, 100, std::byte{8});
  send(second, 0, std::byte{9});
  EXPECT_EQ(first.writes + second.writes, 3U);
  EXPECT_EQ(queue_->in_flight(), 0U);
  ASSERT_OK(parts().writer.flush());
  EXPECT_EQ(first.writes + second.writes, 3U);
  while (first.writes + second.writes > 0) ASSERT_OK(parts().io.wait());
  EXPECT_EQ(staged(kBlockSize), std::byte{7});
  EXPECT_EQ(staged(100 * kBlockSize), std::byte{8});
  EXPECT_EQ(staged(2 * kExtentSize), std::byte{9});
  while (parts().io.pool().fits(kBlockSize)) parts().io.pool().release(parts().io.pool().place(kBlockSize)->buffer);
  EXPECT_EQ(parts().io.pool().free_count(), kLaneBuffers);
}

TEST_F(TargetPartsTest, WhatEndedWaitsForItsWritesThenForACheckpointAndIsRecordedBeforeItIsAcknowledged) {
  auto& checkpoint = parts().checkpoint;
  auto& under_way = answer(0);
  send(under_way, 1, std::byte{7});
  ASSERT_OK(parts().writer.flush());
  checkpoint.end(under_way);
  checkpoint.take_ended();
  EXPECT_EQ(under_way.state(), ended);
  EXPECT_FALSE(checkpoint.waiting());
  while (under_way.writes > 0) ASSERT_OK(parts().io.wait());
  checkpoint.take_ended();
  EXPECT_EQ(under_way.state(), written);
  EXPECT_TRUE(checkpoint.waiting());
  EXPECT_FALSE(checkpoint.due(false));
  EXPECT_TRUE(checkpoint.due(true));
  ASSERT_OK(checkpoint.end_hole({{1, 1}, 0}));
  sites_.clock.sleep_for(kCheckpointDelay);
  EXPECT_TRUE(checkpoint.due(false));
  const auto before = parts().frames.queued_frames();
  ASSERT_OK(checkpoint.run());
  EXPECT_TRUE(parts().extents.empty());
  EXPECT_FALSE(checkpoint.waiting());
  EXPECT_EQ(parts().frames.queued_frames(), before + 2);
  EXPECT_EQ(session().index().state(0), ExtentState::known);
  EXPECT_EQ(session().index().state(1), ExtentState::zero);
}

TEST_F(TargetPartsTest, WhatIsOnRecordAndDidNotChangeNeedsNoCheckpoint) {
  auto& read = answer(2);
  ASSERT_OK(session().index().store(2, read.content.digests, 0));
  parts().checkpoint.end(read);
  parts().checkpoint.take_ended();
  EXPECT_TRUE(parts().extents.empty());
  EXPECT_FALSE(parts().checkpoint.waiting());
}

}  // namespace
}  // namespace backhaul
