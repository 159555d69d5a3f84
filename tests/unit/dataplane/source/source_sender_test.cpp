// A source lane's sender by itself: of what was read it sends what differs, and gives every buffer back.
#include "dataplane/source/source_sender.h"

#include <gtest/gtest.h>

#include "sim/memory_stream.h"
#include "unit/dataplane/transfer_fixture.h"

namespace backhaul {
namespace {

using namespace testing;

class SourceSenderTest : public ::testing::Test {
 protected:
  SourceSenderTest() {
    make_disk(storage_, "source", DiskFormat::raw, {Content(kExtentSize), {}});
    disk_ = open_disk(storage_.open("source", OpenMode::read).value(), OpenMode::read, random_).value();
    session_.emplace(*disk_, VerifyMode::written, std::nullopt);
  }
  void open(bool compare, bool blank = false) {
    options_.compare = compare;
    options_.blank = blank;
    options_.compress = CompressMode::off;
    sender_.emplace(*session_, options_, writer_, pool_, *hasher_, clock_);
  }
  // An extent whose reads are all issued, and a chunk of four blocks of it: 1, 2, 3, and one of zeros.
  SourceChunk chunk_of(SourceExtent& extent) {
    SourceChunk chunk{&extent, 0, 4 * kBlockSize, pool_.place(4 * kBlockSize).value(), 0};
    const auto content = pool_.at(chunk.place, chunk.length);
    for (std::size_t at = 0; at < content.size(); ++at) content[at] = static_cast<std::byte>((at / kBlockSize + 1) % 4);
    ++extent.chunks;
    return chunk;
  }
  // What is queued goes out, and nobody uses a buffer any more.
  void expect_all_given_back() {
    bool progressed = false;
    EXPECT_TRUE(sender_->pump(*stream_.first, progressed).value());
    EXPECT_TRUE(pool_.place(pool_.at(0U).size())) << "of another buffer";
    EXPECT_EQ(pool_.free_count(), kLaneBuffers - 1);
  }

  SimClock clock_;
  SimStorage storage_{SimOptions{.seed = 3, .clock = &clock_}};
  SimRandom random_{4};
  std::unique_ptr<Disk> disk_;
  std::optional<SourceSession> session_;
  SourceLaneOptions options_;
  std::unique_ptr<BlockHasher> hasher_ = make_block_hasher(HashKernel::one_buffer).value();
  sim::MemoryPair stream_ = sim::make_memory_pair();
  FrameWriter writer_{*stream_.first};
  BufferPool pool_{kLaneBuffers, kChunkSize};
  std::optional<SourceSender> sender_;
};

TEST_F(SourceSenderTest, SendsOnlyWhatTheTargetDoesNotHave) {
  open(true);
  SourceExtent extent(kExtentSize, 0, SourceExtentState::sending, ExtentBlocks().set());
  const auto chunk = chunk_of(extent);
  // The target has the first block, something else for the second, nothing for the third, and no zeros for the fourth.
  const auto content = Bytes(pool_.at(chunk.place, kBlockSize));
  hasher_->digest({&content, 1}, {&extent.target.digests[0], 1});
  extent.target.nonzero = ExtentBlocks(0b1011);
  sender_->send({&chunk, 1});
  EXPECT_EQ(extent.state(), SourceExtentState::ended);
  EXPECT_EQ(writer_.queued_frames(), 3U);  // data of two blocks, zero, extent_end
  EXPECT_EQ(session_->counters().payload_bytes, 2 * kBlockSize);
  EXPECT_EQ(session_->counters().blocks_changed, 3U);
  EXPECT_EQ(extent.changed_blocks, 3U);
  expect_all_given_back();
}

TEST_F(SourceSenderTest, WithoutComparingItSendsAllThatABlankDiskDoesNotHave) {
  open(false, true);
  SourceExtent extent(kExtentSize, 0, SourceExtentState::reading, ExtentBlocks().set());
  const auto chunk = chunk_of(extent);
  sender_->send({&chunk, 1});
  EXPECT_EQ(extent.state(), SourceExtentState::reading) << "more of it is to be read";
  EXPECT_EQ(writer_.queued_frames(), 1U);
  EXPECT_EQ(session_->counters().payload_bytes, 3 * kBlockSize);
  sender_->send_hole(extent, 4 * kBlockSize, kExtentSize);
  EXPECT_EQ(writer_.queued_frames(), 1U);
  extent.become(SourceExtentState::sending);
  sender_->end_if_complete(extent);
  EXPECT_EQ(extent.state(), SourceExtentState::ended);
  EXPECT_EQ(writer_.queued_frames(), 2U);
  expect_all_given_back();
}

TEST_F(SourceSenderTest, OfAHoleItSendsTheRunsThatTheTargetHolds) {
  open(true);
  SourceExtent extent(kExtentSize, 0, SourceExtentState::reading, ExtentBlocks().set());
  extent.target.nonzero = ExtentBlocks(0b1100110);
  sender_->send_hole(extent, 0, kExtentSize);
  EXPECT_EQ(writer_.queued_frames(), 2U);
  EXPECT_EQ(extent.changed_blocks, 4U);
}

}  // namespace
}  // namespace backhaul
