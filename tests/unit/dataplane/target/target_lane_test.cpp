// A target lane against sources that break the protocol: each frame is well-formed, the sequence is not. The answer is
// a named error, and nothing of the offending frame is written.
#include "dataplane/target/target_lane.h"

#include <gtest/gtest.h>

#include <set>

#include "transport/stream/transport_error.h"
#include "unit/dataplane/lane_peer.h"

namespace backhaul {
namespace {

using namespace testing;

// Extent 0 and 2 of the old disk are data, 1 is a hole, 3 is the tail of 700 bytes.
constexpr std::uint64_t kDiskSize = 3 * kExtentSize + 700;
constexpr std::uint64_t kExtent2 = 2 * kExtentSize;

enum class Session {
  delta,  // the source claims what it reads
  full,   // it sends everything, over an old disk
  blank,  // what it does not send is zero
};

class TargetLaneTest : public ::testing::Test {
 protected:
  void open(Session kind, VerifyMode verify = VerifyMode::written, sim::MemoryDirection to_source = {}) {
    if (kind != Session::blank) {
      Pattern pattern{Content(kDiskSize), {{0, kExtentSize}, {kExtent2, kExtentSize + 700}}};
      for (const auto& range : pattern.written)
        fill_noise(sites_.random, std::span(pattern.content).subspan(range.offset, range.length));
      make_disk(sites_.target, "disk", DiskFormat::raw, pattern);
    }
    OpenRequest request;
    request.disk = "disk";
    request.size = kDiskSize;
    request.sync = kind == Session::full ? SyncMode::full : SyncMode::delta;
    request.staging = kind == Session::full ? StagingChoice::clone : StagingChoice::automatic;
    request.verify = verify;
    auto control = store_.open(request, std::chrono::milliseconds(0), opened_);
    ASSERT_OK(control);
    control_.emplace(std::move(*control));
    ASSERT_EQ(opened_.compare, kind == Session::delta);
    ASSERT_EQ(opened_.blank, kind == Session::blank);
    auto use = store_.join(opened_.session, opened_.epoch);
    ASSERT_OK(use);
    use_.emplace(std::move(*use));
    std::tie(peer_stream_, stream_) = sim::make_memory_pair({}, to_source);
    lane_ = std::make_unique<TargetLane>(**use_, *stream_, *queue_, *hasher_, sites_.clock);
    peer_.emplace(*lane_, *queue_, *peer_stream_, opened_.epoch);
    before_ = staged();
  }
  ~TargetLaneTest() override {
    peer_.reset();
    queue_.reset();
  }
  Content staged() { return sites_.target.content(".disk.backhaul/staged"); }
  void expect_error(const std::vector<SentFrame>& frames, std::error_code code, std::string_view symbol) {
    const auto result = peer_->feed(frames);
    ASSERT_FALSE(result) << "not refused";
    EXPECT_EQ(result.error(), code) << result.error().to_string();
    EXPECT_EQ(result.error().symbol(), symbol);
    EXPECT_FALSE(result.error().fix().empty());
  }
  // Blocks of the staged disk that are not as they were.
  std::vector<std::uint64_t> written_blocks() {
    const auto now = staged();
    std::vector<std::uint64_t> blocks;
    for (std::uint64_t b = 0; b < block_count(kDiskSize); ++b) {
      const auto length = std::min(kBlockSize, kDiskSize - b * kBlockSize);
      if (std::memcmp(&now[b * kBlockSize], &before_[b * kBlockSize], length) != 0) blocks.push_back(b);
    }
    return blocks;
  }

  TwoSites sites_{1};
  SimRandom random_{2};
  TargetStore store_{sites_.target, sim::sim_parts(sites_.target, sites_.clock, random_)};
  OpenedSession opened_;
  std::optional<SessionUse> control_, use_;
  std::unique_ptr<IoQueue> queue_ = sites_.target.make_queue();
  std::unique_ptr<BlockHasher> hasher_ = make_block_hasher(HashKernel::one_buffer).value();
  std::unique_ptr<sim::MemoryStream> peer_stream_, stream_;
  std::unique_ptr<TargetLane> lane_;
  std::optional<LanePeer> peer_;
  Content before_;
};

SentFrame claim(std::uint64_t offset, std::uint64_t length) { return frame(FrameType::claim, offset, length); }
struct Row {
  const char* what;
  Session session;
  std::vector<SentFrame> first;  // accepted
  std::vector<SentFrame> then;   // refused
  std::error_code code;
  const char* symbol;
  std::vector<std::uint64_t> written;  // blocks that `first` rightly changed
};

std::vector<Row> rows() {
  const std::error_code unexpected = TransportErrc::unexpected_frame, bad = TransportErrc::bad_frame;
  const char* const kUnexpected = "transport.unexpected_frame";
  const char* const kBad = "transport.bad_frame";
  const auto whole = [](std::uint64_t offset) {
    std::vector<SentFrame> frames;
    for (std::uint64_t at = 0; at < kExtentSize; at += kChunkSize)
      frames.push_back(data_frame(offset + at, kChunkSize));
    return frames;
  };
  auto sent_and_ended = whole(0);
  sent_and_ended.push_back(end(0, kExtentSize));
  sent_and_ended.push_back(lane_end());
  std::vector<std::uint64_t> blocks_of_extent_0(kBlocksPerExtent);
  for (std::uint64_t b = 0; b < kBlocksPerExtent; ++b) blocks_of_extent_0[b] = b;
  return {
      {"data without a claim", Session::delta, {}, {data_frame(0, kBlockSize)}, unexpected, kUnexpected, {}},
      {"data before the digests were sent",
       Session::delta,
       {},
       {claim(0, kExtentSize), data_frame(0, kBlockSize)},
       unexpected,
       kUnexpected,
       {}},
      {"zero without a claim", Session::delta, {}, {zero(0, kBlockSize)}, unexpected, kUnexpected, {}},
      {"the end of an extent without a claim", Session::delta, {}, {end(0, kExtentSize)}, unexpected, kUnexpected, {}},
      {"data after the end",
       Session::delta,
       {claim(0, kExtentSize), data_frame(0, kBlockSize), end(0, kExtentSize)},
       {data_frame(kBlockSize, kBlockSize)},
       unexpected,
       kUnexpected,
       {0}},
      {"zero after the end",
       Session::delta,
       {claim(0, kExtentSize), data_frame(0, kBlockSize), end(0, kExtentSize)},
       {zero(kBlockSize, kBlockSize)},
       unexpected,
       kUnexpected,
       {0}},
      {"a second end",
       Session::delta,
       {claim(0, kExtentSize), data_frame(0, kBlockSize), end(0, kExtentSize)},
       {end(0, kExtentSize)},
       unexpected,
       kUnexpected,
       {0}},
      {"a block twice",
       Session::delta,
       {claim(0, kExtentSize), data_frame(0, kBlockSize)},
       {data_frame(0, 2 * kBlockSize)},
       unexpected,
       kUnexpected,
       {0}},
      {"a block as data and as zero",
       Session::delta,
       {claim(0, kExtentSize), data_frame(0, kBlockSize)},
       {zero(0, kBlockSize)},
       unexpected,
       kUnexpected,
       {0}},
      {"a second claim", Session::delta, {claim(0, kExtentSize)}, {claim(0, kExtentSize)}, unexpected, kUnexpected, {}},
      {"a claim outside the disk", Session::delta, {}, {claim(4 * kExtentSize, kExtentSize)}, bad, kBad, {}},
      {"a claim past the end", Session::delta, {}, {claim(kExtent2, 2 * kExtentSize)}, bad, kBad, {}},
      {"a claim of half an extent", Session::delta, {}, {claim(0, kExtentSize / 2)}, bad, kBad, {}},
      {"data outside the disk",
       Session::delta,
       {claim(0, kDiskSize)},
       {data_frame(4 * kExtentSize, kBlockSize)},
       bad,
       kBad,
       {}},
      {"data past the tail",
       Session::delta,
       {claim(0, kDiskSize)},
       {data_frame(3 * kExtentSize, kBlockSize)},
       bad,
       kBad,
       {}},
      {"data that is not whole blocks",
       Session::delta,
       {claim(0, kDiskSize)},
       {data_frame(0, kBlockSize - 1)},
       bad,
       kBad,
       {}},
      {"data that crosses extents",
       Session::delta,
       {claim(0, kDiskSize)},
       {data_frame(kExtentSize - kBlockSize, 2 * kBlockSize)},
       bad,
       kBad,
       {}},
      {"data that does not decode",
       Session::delta,
       {claim(0, kExtentSize)},
       {bad_zstd(0)},
       TransportErrc::decompress_failed,
       "transport.decompress_failed",
       {}},
      {"zero over two extents without the flag",
       Session::delta,
       {claim(0, kDiskSize)},
       {zero(0, 2 * kExtentSize)},
       bad,
       kBad,
       {}},
      {"a zero run over a claimed extent",
       Session::delta,
       {claim(0, kExtentSize)},
       {zero(0, kExtentSize, kFrameZeroRun)},
       unexpected,
       kUnexpected,
       {}},
      {"a zero run of half an extent", Session::delta, {}, {zero(0, kExtentSize / 2, kFrameZeroRun)}, bad, kBad, {}},
      {"the end of a hole that was not sent",
       Session::delta,
       {},
       {end(0, kExtentSize, kFrameHoleEnd)},
       unexpected,
       kUnexpected,
       {}},
      {"the end of a hole longer than the one sent",
       Session::delta,
       {zero(kExtentSize, kExtentSize, kFrameZeroRun)},
       {end(kExtentSize, 2 * kExtentSize, kFrameHoleEnd)},
       unexpected,
       kUnexpected,
       {}},
      {"the end of a hole after other frames",
       Session::full,
       {zero(kExtentSize, kExtentSize, kFrameZeroRun), data_frame(kExtentSize, kBlockSize)},
       {end(kExtentSize, kExtentSize, kFrameHoleEnd)},
       unexpected,
       kUnexpected,
       {kBlocksPerExtent}},
      {"data in a hole that is not acknowledged",
       Session::full,
       {zero(kExtentSize, kExtentSize, kFrameZeroRun), end(kExtentSize, kExtentSize, kFrameHoleEnd)},
       {data_frame(kExtentSize, kBlockSize)},
       unexpected,
       kUnexpected,
       {}},
      {"the end of an extent that was not all sent",
       Session::full,
       {data_frame(0, kBlockSize)},
       {end(0, kExtentSize)},
       unexpected,
       kUnexpected,
       {0}},
      {"the end of an extent of which nothing was sent",
       Session::full,
       {},
       {end(0, kExtentSize)},
       unexpected,
       kUnexpected,
       {}},
      {"the end of a hole over what was sent",
       Session::blank,
       sent_and_ended,
       {end(0, kDiskSize, kFrameHoleEnd)},
       unexpected,
       kUnexpected,
       blocks_of_extent_0},
      {"the end of a hole over an open extent",
       Session::blank,
       {data_frame(0, kBlockSize)},
       {end(0, kExtentSize, kFrameHoleEnd)},
       unexpected,
       kUnexpected,
       {0}},
      {"a frame of an older run",
       Session::delta,
       {},
       {of_epoch(claim(0, kExtentSize), 99)},
       EngineErrc::session_fenced,
       "session.fenced",
       {}},
      {"data of a newer run",
       Session::delta,
       {claim(0, kExtentSize)},
       {of_epoch(data_frame(0, kBlockSize), 2)},
       EngineErrc::session_fenced,
       "session.fenced",
       {}},
      {"digests to a target",
       Session::delta,
       {},
       {frame(FrameType::digests, 0, kExtentSize, kFrameZeroRun)},
       unexpected,
       kUnexpected,
       {}},
      {"extent_done to a target",
       Session::delta,
       {},
       {frame(FrameType::extent_done, 0, kExtentSize)},
       unexpected,
       kUnexpected,
       {}},
      {"a second hello", Session::delta, {}, {text_frame(FrameType::hello, "{}")}, unexpected, kUnexpected, {}},
      {"a finish on a lane",
       Session::delta,
       {},
       {text_frame(FrameType::finish, "{\"swap\":true}")},
       unexpected,
       kUnexpected,
       {}},
      {"an error that is no object",
       Session::delta,
       {},
       {text_frame(FrameType::error, "[]")},
       TransportErrc::bad_message,
       "transport.bad_message",
       {}},
      {"an error",
       Session::delta,
       {},
       {text_frame(FrameType::error, R"({"symbol":"source.read_failed","cause":"c","fix":"f","retry":"no"})")},
       BaseErrc::peer_reported,
       "source.read_failed",
       {}},
  };
}

TEST_F(TargetLaneTest, RefusesFramesThatAreNotAllowed) {
  const auto all = rows();
  for (const auto& row : all) {
    SCOPED_TRACE(row.what);
    peer_.reset();
    lane_.reset();
    use_.reset();
    control_.reset();
    ASSERT_OK(store_.cancel("disk"));
    ASSERT_OK(sites_.target.remove("disk"));
    queue_ = sites_.target.make_queue();
    ASSERT_NO_FATAL_FAILURE(open(row.session));
    for (const auto& sent : row.first) ASSERT_OK(peer_->feed({sent}));
    expect_error(row.then, row.code, row.symbol);
    peer_.reset();  // waits for what is in flight
    EXPECT_EQ(written_blocks(), row.written);
    if (row.session == Session::blank) continue;
    // The old disk stands at its name all the while.
    const auto disk = sites_.target.content("disk");
    EXPECT_TRUE(std::equal(disk.begin(), disk.end(), before_.begin(), before_.end()));
  }
}

TEST_F(TargetLaneTest, RefusesMoreOpenExtentsThanASourceMayHave) {
  OpenRequest request;
  request.disk = "disk";
  request.size = (kMaxTargetExtents + 2) * kExtentSize;
  auto control = store_.open(request, std::chrono::milliseconds(0), opened_);
  ASSERT_OK(control);
  auto use = store_.join(opened_.session, opened_.epoch);
  ASSERT_OK(use);
  std::tie(peer_stream_, stream_) = sim::make_memory_pair();
  TargetLane lane(**use, *stream_, *queue_, *hasher_, sites_.clock);
  LanePeer peer(lane, *queue_, *peer_stream_, opened_.epoch);
  std::vector<SentFrame> frames;
  for (std::uint64_t extent = 0; extent < kMaxTargetExtents; ++extent)
    frames.push_back(data_frame(extent * kExtentSize, kBlockSize));
  ASSERT_OK(peer.feed(frames));
  const auto result = peer.feed({data_frame(kMaxTargetExtents * kExtentSize, kBlockSize)});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error(), make_error_code(TransportErrc::unexpected_frame));
}

TEST_F(TargetLaneTest, RefusesASourceThatReadsNoAnswers) {
  sim::MemoryDirection narrow;
  narrow.window = 100;
  ASSERT_NO_FATAL_FAILURE(open(Session::delta, VerifyMode::written, narrow));
  peer_->read_answers = false;
  const auto result = peer_->feed(std::vector<SentFrame>(5000, frame(FrameType::ping)));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error(), make_error_code(TransportErrc::unexpected_frame));
}

TEST_F(TargetLaneTest, AnswersEveryClaimAndPing) {
  ASSERT_NO_FATAL_FAILURE(open(Session::delta));
  ASSERT_OK(peer_->feed({claim(kExtent2, kExtentSize + 700), frame(FrameType::ping), claim(0, 2 * kExtentSize)}));
  EXPECT_EQ(peer_->count(FrameType::pong), 1U);
  std::set<std::uint64_t> offsets;
  for (const auto& answer : peer_->answers) {
    if (answer.header.type != FrameType::digests) continue;
    offsets.insert(answer.header.offset);
    EXPECT_OK(check_frame_range(answer.header, kDiskSize));
    EXPECT_OK(check_digests_payload(answer.header, answer.payload));
    EXPECT_EQ((answer.header.flags & kFrameZeroRun) != 0, answer.header.offset == kExtentSize);
  }
  EXPECT_EQ(offsets, (std::set<std::uint64_t>{0, kExtentSize, kExtent2, 3 * kExtentSize}));
}

TEST_F(TargetLaneTest, AcknowledgesOnlyWhatIsDurable) {
  ASSERT_NO_FATAL_FAILURE(open(Session::delta));
  ASSERT_OK(peer_->feed({claim(0, kExtentSize)}));
  ASSERT_OK(peer_->feed({data_frame(kBlockSize, kBlockSize), end(0, kExtentSize)}));
  EXPECT_EQ(peer_->count(FrameType::extent_done), 0U);
  ASSERT_OK(peer_->feed({lane_end()}));
  ASSERT_EQ(peer_->count(FrameType::extent_done), 1U);
  const auto durable = sites_.target.durable_content(".disk.backhaul/staged");
  EXPECT_EQ(durable[kBlockSize], std::byte{0x5A});
  EXPECT_EQ(peer_->answers.back().payload.size(), sizeof(Sha256));
  EXPECT_EQ((**use_).index().state(0), ExtentState::known);
  EXPECT_EQ((**use_).index().shipped(0), 1U);
}

TEST_F(TargetLaneTest, ACheckpointComesByItselfAfterAWhile) {
  ASSERT_NO_FATAL_FAILURE(open(Session::delta));
  ASSERT_OK(peer_->feed({claim(0, kExtentSize)}));
  ASSERT_OK(peer_->feed({data_frame(0, kBlockSize), end(0, kExtentSize)}));
  EXPECT_EQ(peer_->count(FrameType::extent_done), 0U);
  sites_.clock.sleep_for(kCheckpointDelay);
  ASSERT_OK(peer_->feed({}));
  EXPECT_EQ(peer_->count(FrameType::extent_done), 1U);
}

TEST_F(TargetLaneTest, ACancelledSessionWritesNothingMore) {
  ASSERT_NO_FATAL_FAILURE(open(Session::delta));
  ASSERT_OK(peer_->feed({claim(0, kExtentSize)}));
  (**use_).revoke(EngineErrc::session_cancelled);
  expect_error({data_frame(0, kBlockSize)}, EngineErrc::session_cancelled, "session.cancelled");
  EXPECT_EQ(written_blocks(), std::vector<std::uint64_t>{});
}

TEST_F(TargetLaneTest, AStreamThatEndsInTheMiddleIsAnErrorAndOneAtTheEndIsNot) {
  ASSERT_NO_FATAL_FAILURE(open(Session::delta));
  ASSERT_OK(peer_->feed({claim(0, kExtentSize)}));
  ASSERT_OK(peer_->feed({end(0, kExtentSize), lane_end()}));
  peer_->end();
  EXPECT_OK(peer_->feed({}));
  peer_.reset();
  lane_.reset();
  std::tie(peer_stream_, stream_) = sim::make_memory_pair();
  lane_ = std::make_unique<TargetLane>(**use_, *stream_, *queue_, *hasher_, sites_.clock);
  peer_.emplace(*lane_, *queue_, *peer_stream_, opened_.epoch);
  ASSERT_OK(peer_->feed({claim(0, kExtentSize)}));
  peer_->end();
  const auto result = peer_->feed({});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error(), make_error_code(TransportErrc::closed));
}

}  // namespace
}  // namespace backhaul
