// A source lane against targets that break the protocol, and what it does with a correct one.
#include "dataplane/source/source_lane.h"

#include <gtest/gtest.h>

#include "transport/stream/transport_error.h"
#include "unit/dataplane/lane_peer.h"

namespace backhaul {
namespace {

using namespace testing;

// Extent 0 and 2 are data, 1 is a hole, 3 is a tail of 700 bytes with data.
constexpr std::uint64_t kDiskSize = 3 * kExtentSize + 700;
constexpr std::uint64_t kExtent2 = 2 * kExtentSize, kTail = 3 * kExtentSize;
constexpr std::uint64_t kEpoch = 5;

sim::MemoryDirection window(std::size_t bytes) {
  sim::MemoryDirection direction;
  direction.window = bytes;
  return direction;
}

class SourceLaneTest : public ::testing::Test {
 protected:
  SourceLaneTest() {
    Pattern pattern{Content(kDiskSize), {{0, kExtentSize}, {kExtent2, kExtentSize + 700}}};
    for (const auto& range : pattern.written)
      fill_noise(random_, std::span(pattern.content).subspan(range.offset, range.length));
    make_disk(storage_, "source", DiskFormat::raw, pattern);
    content_ = pattern.content;
    disk_ = open_disk(storage_.open("source", OpenMode::read).value(), OpenMode::read, random_).value();
  }
  ~SourceLaneTest() override { close(); }
  void close() {
    peer_.reset();
    queue_.reset();
    lane_.reset();
  }
  void open(bool compare, VerifyMode verify = VerifyMode::written) {
    close();
    session_ = std::make_unique<SourceSession>(*disk_, verify, std::nullopt);
    queue_ = storage_.make_queue();
    std::tie(peer_stream_, stream_) = sim::make_memory_pair({}, window(64 * kMiB));
    SourceLaneOptions options;
    options.epoch = kEpoch;
    options.compare = compare;
    options.blank = !compare;
    options.compress = CompressMode::off;
    lane_ = std::make_unique<SourceLane>(*session_, options, *stream_, *queue_, *hasher_, clock_);
    peer_.emplace(*lane_, *queue_, *peer_stream_, kEpoch);
  }
  // What the lane gave back can be taken again.
  std::uint64_t extents_left() {
    std::uint64_t count = 0;
    SourceSession::Item item;
    while (session_->take(item).value() == SourceSession::Take::item) count += item.count;
    return count;
  }

  SimClock clock_;
  SimStorage storage_{SimOptions{.seed = 3, .clock = &clock_}};
  SimRandom random_{4};
  Content content_;
  std::unique_ptr<Disk> disk_;
  std::unique_ptr<SourceSession> session_;
  std::unique_ptr<IoQueue> queue_;
  std::unique_ptr<BlockHasher> hasher_ = make_block_hasher(HashKernel::one_buffer).value();
  std::unique_ptr<sim::MemoryStream> peer_stream_, stream_;
  std::unique_ptr<SourceLane> lane_;
  std::optional<LanePeer> peer_;
};

SentFrame digests(std::uint64_t offset, std::uint64_t length, std::uint8_t flags = 0, Content payload = {}) {
  return frame(FrameType::digests, offset, length, flags, std::move(payload));
}
SentFrame done(std::uint64_t offset, std::uint64_t length, std::uint8_t flags = 0, Content payload = {}) {
  return frame(FrameType::extent_done, offset, length, flags, std::move(payload));
}
// A bitmap with one bit, and `count` digests.
Content bitmap(unsigned bit, std::size_t count) {
  Content payload(16 + 16 * count);
  payload[bit / 8] = static_cast<std::byte>(1U << (bit % 8));
  return payload;
}

struct Row {
  const char* what;
  bool compare;
  std::vector<SentFrame> first, then;
  std::error_code code;
  const char* symbol;
};

std::vector<Row> rows() {
  const std::error_code unexpected = TransportErrc::unexpected_frame, bad = TransportErrc::bad_frame;
  const char* const kUnexpected = "transport.unexpected_frame";
  const char* const kBad = "transport.bad_frame";
  const auto zeros = digests(0, kExtentSize, kFrameZeroRun);
  return {
      {"digests that were never asked for", false, {}, {zeros}, unexpected, kUnexpected},
      {"digests of a hole", true, {}, {digests(kExtentSize, kExtentSize, kFrameZeroRun)}, unexpected, kUnexpected},
      {"a run of digests that reaches into a hole",
       true,
       {},
       {digests(0, 2 * kExtentSize, kFrameZeroRun)},
       unexpected,
       kUnexpected},
      {"digests twice", true, {zeros}, {zeros}, unexpected, kUnexpected},
      {"digests outside the disk", true, {}, {digests(4 * kExtentSize, kExtentSize, kFrameZeroRun)}, bad, kBad},
      {"digests of half an extent", true, {}, {digests(0, kExtentSize / 2, kFrameZeroRun)}, bad, kBad},
      {"a bitmap past the disk's end", true, {}, {digests(kTail, 700, 0, bitmap(1, 1))}, bad, kBad},
      {"fewer digests than bits", true, {}, {digests(0, kExtentSize, 0, bitmap(3, 0))}, bad, kBad},
      {"more digests than bits", true, {}, {digests(0, kExtentSize, 0, bitmap(3, 2))}, bad, kBad},
      {"the acknowledgement of an extent that is not claimed",
       true,
       {},
       {done(kExtentSize, kExtentSize, 0, Content(32))},
       unexpected,
       kUnexpected},
      {"the acknowledgement of an extent that did not end",
       true,
       {},
       {done(0, kExtentSize, 0, Content(32))},
       unexpected,
       kUnexpected},
      {"the acknowledgement of a run that was not sent",
       true,
       {},
       {done(0, kExtentSize, kFrameZeroRun)},
       unexpected,
       kUnexpected},
      {"the acknowledgement of a part of a run",
       true,
       {},
       {done(kExtentSize, 2 * kExtentSize, kFrameZeroRun)},
       unexpected,
       kUnexpected},
      {"an acknowledgement without a digest", true, {zeros}, {done(0, kExtentSize)}, bad, kBad},
      {"a claim to a source", true, {}, {frame(FrameType::claim, 0, kExtentSize)}, unexpected, kUnexpected},
      {"data to a source", true, {}, {data_frame(0, kBlockSize)}, unexpected, kUnexpected},
      {"a finished on a lane", true, {}, {text_frame(FrameType::finished, "{}")}, unexpected, kUnexpected},
      {"an error that is no object",
       true,
       {},
       {text_frame(FrameType::error, "17")},
       TransportErrc::bad_message,
       "transport.bad_message"},
      {"an error",
       true,
       {},
       {text_frame(FrameType::error, R"({"symbol":"io.no_space","cause":"c","fix":"f","retry":"no"})")},
       BaseErrc::peer_reported,
       "io.no_space"},
  };
}

TEST_F(SourceLaneTest, RefusesFramesThatAreNotAllowed) {
  for (const auto& row : rows()) {
    SCOPED_TRACE(row.what);
    open(row.compare);
    ASSERT_OK(peer_->feed({}));
    ASSERT_OK(peer_->feed(row.first));
    const auto result = peer_->feed(row.then);
    ASSERT_FALSE(result) << "not refused";
    EXPECT_EQ(result.error(), row.code) << result.error().to_string();
    EXPECT_EQ(result.error().symbol(), row.symbol);
    close();
    EXPECT_EQ(extents_left(), 4U);  // nothing was acknowledged, so everything is there for the next lane
  }
}

TEST_F(SourceLaneTest, ReadsNothingBeforeTheTargetsDigestsAreThere) {
  open(true);
  ASSERT_OK(peer_->feed({}));
  EXPECT_EQ(peer_->count(FrameType::claim), 2U);  // extent 0; 2 and 3 in one
  EXPECT_EQ(peer_->count(FrameType::data), 0U);
  EXPECT_EQ(session_->counters().bytes_read, 0U);
  ASSERT_OK(peer_->feed({digests(kTail, 700, kFrameZeroRun)}));
  EXPECT_EQ(session_->counters().bytes_read, 700U);
  EXPECT_EQ(peer_->count(FrameType::data), 1U);
  EXPECT_EQ(peer_->count(FrameType::extent_end), 2U);  // the hole and the tail
}

TEST_F(SourceLaneTest, SendsEverythingWhenTheTargetHasNoDigests) {
  open(true);
  ASSERT_OK(peer_->feed({}));
  ASSERT_OK(peer_->feed({digests(0, kExtentSize)}));
  EXPECT_EQ(session_->counters().payload_bytes, kExtentSize);
}

TEST_F(SourceLaneTest, SendsAnExtentOnceMoreWhenItsDigestDiffersAndThenGivesUp) {
  open(false);
  ASSERT_OK(peer_->feed({}));
  const auto wrong = done(kTail, 700, 0, Content(32));
  ASSERT_OK(peer_->feed({wrong}));
  EXPECT_EQ(session_->counters().payload_bytes, 2 * kExtentSize + 2 * 700);
  const auto result = peer_->feed({wrong});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error(), make_error_code(EngineErrc::verify_mismatch));
  EXPECT_NE(result.error().cause().find(std::to_string(kTail)), std::string::npos);
}

TEST_F(SourceLaneTest, RefusesATargetThatOnlyPings) {
  open(true);
  std::tie(peer_stream_, stream_) = sim::make_memory_pair({}, window(100));
  SourceLaneOptions options;
  options.epoch = kEpoch;
  close();
  queue_ = storage_.make_queue();
  lane_ = std::make_unique<SourceLane>(*session_, options, *stream_, *queue_, *hasher_, clock_);
  peer_.emplace(*lane_, *queue_, *peer_stream_, kEpoch);
  peer_->read_answers = false;
  const auto result = peer_->feed(std::vector<SentFrame>(40'000, frame(FrameType::ping)));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error(), make_error_code(TransportErrc::unexpected_frame));
}

}  // namespace
}  // namespace backhaul
