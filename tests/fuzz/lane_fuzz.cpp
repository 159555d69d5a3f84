// What a peer of a lane can send: well-formed frames with right CRCs, in any order, with any range. Each input is a
// list of small commands, which are made into frames for a target lane over a simulated disk, and for a source lane. A
// lane may refuse; it may not crash, hang, write outside of what it was told, or say something of the disk that is not
// so.
#include <algorithm>
#include <vector>

#include "dataplane/source/source_lane.h"
#include "dataplane/target/target_lane.h"
#include "sim/memory_stream.h"
#include "sim/sim_storage.h"
#include "sim/sim_transfer.h"
#include "tests/fuzz/fuzz_input.h"
#include "transport/frames/frame_io.h"

namespace backhaul {
namespace {

using sim::SimClock;
using sim::SimOptions;
using sim::SimRandom;
using sim::SimStorage;

// Three extents and a tail that is no whole block.
constexpr std::uint64_t kDiskSize = 3 * kExtentSize + kBlockSize + 700;

// One frame from four bytes: type and oddities, where, how much, flags and payload.
struct Made {
  FrameHeader header;
  std::vector<std::byte> payload;
};
constexpr FrameType kTypes[] = {
    FrameType::claim,    FrameType::data,        FrameType::zero,        FrameType::extent_end,
    FrameType::lane_end, FrameType::ping,        FrameType::pong,        FrameType::error,
    FrameType::digests,  FrameType::extent_done, FrameType::hello,       FrameType::data,
    FrameType::claim,    FrameType::extent_end,  FrameType::extent_done, FrameType::digests};

std::uint64_t any_offset(std::uint8_t value) {
  if (value >= 0xF0) return value % 2 == 0 ? kDiskSize + value : std::uint64_t{value} * 511;
  return value % 4 * kExtentSize + (value / 4 % 4 == 0 ? 0 : value / 16 * kBlockSize);
}
std::uint64_t any_length(std::uint8_t value, std::uint64_t offset) {
  const auto rest = kDiskSize - std::min(offset, kDiskSize);
  if (value >= 0xF0) return std::uint64_t{value} * 4093;
  switch (value % 4) {
    case 0: return std::min(rest, kExtentSize);
    case 1: return std::min(rest, value / 4 % 4 * kExtentSize);
    case 2: return std::min(rest, (1 + value / 8) * kBlockSize);
    default: return rest;
  }
}

Made make_frame(Input& input) {
  Made made;
  auto& header = made.header;
  const auto first = input.next();
  header.type = kTypes[first % 16];
  if (header.type == FrameType::hello) header.type = static_cast<FrameType>(1 + first / 16);  // any control frame
  if (header.type == FrameType::cancelled) header.type = FrameType::swap;
  header.epoch = first >= 0xF8 ? 7 : 1;
  if (header.type == FrameType::lane_end || header.type == FrameType::ping || header.type == FrameType::pong)
    return made;
  if (is_control(header.type)) {
    for (auto count = input.next() % 64; count > 0; --count) made.payload.push_back(std::byte{input.next()});
    return made;
  }
  header.offset = any_offset(input.next());
  header.length = any_length(input.next(), header.offset);
  const auto last = input.next();
  switch (header.type) {
    case FrameType::data:
      made.payload.assign(std::min<std::uint64_t>(header.length, kMaxPayloadSize), std::byte{last});
      if (last % 16 == 15) {  // claims to be compressed, and is not
        header.flags = kFrameZstd;
        header.raw_size = static_cast<std::uint32_t>(made.payload.size());
        made.payload.resize(made.payload.size() / 2);
      }
      break;
    case FrameType::zero: header.flags = last % 2 != 0 ? kFrameZeroRun : 0; break;
    case FrameType::extent_end: header.flags = last % 3 == 1 ? kFrameHoleEnd : 0; break;
    case FrameType::extent_done:
      header.flags = last % 3 == 1 ? kFrameZeroRun : 0;
      header.aux = last % 5 == 1 ? last : 0;
      if (last % 2 == 0) made.payload.assign(32, std::byte{last});
      break;
    case FrameType::digests:
      header.flags = last % 3 == 1 ? kFrameZeroRun : last % 5 == 1 ? kFrameResumed : 0;
      if (header.flags == kFrameResumed) header.aux = last;
      if (last % 2 == 0) {
        made.payload.assign(16, std::byte{0});
        for (auto bits = last / 32; bits > 0; --bits) made.payload[input.next() % 16] |= std::byte{input.next()};
        std::size_t ones = 0;
        for (const auto byte : made.payload)
          ones += static_cast<std::size_t>(__builtin_popcount(static_cast<unsigned>(byte)));
        made.payload.resize(16 + 16 * ones + (last == 6 ? 16 : 0));
      }
      break;
    default: break;
  }
  return made;
}

// Feeds the frames, a few between two steps, until the lane refuses one or nothing happens any more.
void feed(Input input, Lane& lane, IoQueue& queue, ByteStream& peer) {
  FrameWriter writer(peer);
  std::vector<std::byte> answers(64 * 1024);
  int quiet = 0;
  for (int steps = 0; steps < 4000 && quiet < 30; ++steps) {
    for (int i = 0; i < 3 && !input.empty(); ++i) {
      auto made = make_frame(input);
      writer.push_owned(made.header, std::move(made.payload));
      quiet = 0;
    }
    if (!writer.pump()) return;
    while (const auto read = peer.read_some(answers)) {
      if (*read == 0) break;
      quiet = 0;
    }
    const auto completions = queue.wait(nullptr, Clock::Duration::zero());
    if (!completions) return;
    if (!completions->empty()) quiet = 0;
    const auto status = lane.step(*completions);
    if (!status) {
      require(!status.error().symbol().empty());
      return;
    }
    if (status->finished) return;
    ++quiet;
  }
}

void drain(IoQueue& queue) {
  while (queue.in_flight() > 0)
    if (!queue.wait(nullptr, std::chrono::seconds(1))) break;
}

// Data at the beginning and the end of each extent but the second, which is a hole.
constexpr ByteRange kData[] = {{0, 8 * kBlockSize},
                               {kExtentSize - 2 * kBlockSize, 2 * kBlockSize},
                               {2 * kExtentSize, 8 * kBlockSize},
                               {3 * kExtentSize - kBlockSize, 2 * kBlockSize},
                               {3 * kExtentSize + kBlockSize, 700}};
std::vector<std::byte> some_disk() {
  std::vector<std::byte> content(kDiskSize);
  for (const auto& range : kData)
    for (auto at = range.offset; at < range.end(); at += 8) content[at] = static_cast<std::byte>(1 + at / kBlockSize);
  return content;
}

void write_disk(SimStorage& storage, const char* path) {
  static const auto content = some_disk();
  auto file = storage.create(path).value();
  require(file->resize(kDiskSize).has_value());
  for (const auto& range : kData)
    require(file->write_at(range.offset, Bytes(content).subspan(range.offset, range.length)).has_value());
  require(file->sync().has_value());
}

BlockHasher& hasher() {
  static const auto one = make_block_hasher(HashKernel::one_buffer).value();
  return *one;
}

// What the index says is known must be what the disk holds, whatever was sent.
void check_records(TargetSession& session) {
  auto& index = session.index();
  for (std::uint64_t extent = 0; extent < extent_count(kDiskSize); ++extent) {
    const auto state = index.state(extent);
    if (state != ExtentState::known && state != ExtentState::zero) continue;
    ExtentDigests digests;
    if (state == ExtentState::known && !index.load(extent, digests).value()) continue;
    for (std::uint32_t b = 0; b < blocks_in_extent(kDiskSize, extent); ++b) {
      const auto number = extent * kBlocksPerExtent + b;
      std::vector<std::byte> block(block_length(kDiskSize, number));
      const auto segment = session.disk().map(number * kBlockSize, block.size());
      if (segment.kind == Segment::Kind::data)
        require(session.disk().file().read_at(segment.file_offset, block).has_value());
      BlockDigest digest = zero_block_digest(block.size());
      const Bytes bytes(block);
      if (!is_zero(bytes)) hasher().digest({&bytes, 1}, {&digest, 1});
      require(digest == (state == ExtentState::zero ? zero_block_digest(block.size()) : digests[b]));
    }
  }
}

void fuzz_target(std::uint8_t kind, Input input) {
  SimClock clock(std::chrono::milliseconds(1));
  SimStorage storage(SimOptions{.seed = 1, .reflink = true, .clock = &clock});
  SimRandom random(1);
  if (kind % 4 != 0) write_disk(storage, "disk");
  TargetStore store(storage, sim::sim_parts(storage, clock, random));
  OpenRequest request;
  request.disk = "disk";
  request.size = kDiskSize;
  if (kind % 4 == 2) request.sync = SyncMode::full;
  if (kind % 4 != 0) request.staging = kind % 8 < 4 ? StagingChoice::clone : StagingChoice::undo;
  OpenedSession opened;
  auto control = store.open(request, std::chrono::milliseconds(0), opened);
  require(control.has_value() && opened.epoch == 1);
  {
    auto [peer, stream] = sim::make_memory_pair();
    auto use = store.join(opened.session, opened.epoch);
    auto queue = storage.make_queue();
    TargetLane lane(**use, *stream, *queue, hasher(), clock);
    feed(input, lane, *queue, *peer);
    drain(*queue);
    queue.reset();
  }
  check_records(**control);
  if (kind % 4 == 0) return;
  // Whatever happened, a cancel gives the old disk back.
  { const auto gone = std::move(*control); }
  static const auto old = some_disk();
  require(store.cancel("disk").value());
  require(storage.content("disk") == old);
}

void fuzz_source(std::uint8_t kind, Input input) {
  SimClock clock(std::chrono::milliseconds(1));
  SimStorage storage(SimOptions{.seed = 2, .clock = &clock});
  SimRandom random(2);
  write_disk(storage, "source");
  const auto disk = open_disk(storage.open("source", OpenMode::read).value(), OpenMode::read, random).value();
  const auto verify = kind % 2 == 0 ? VerifyMode::written : VerifyMode::none;
  SourceSession session(*disk, verify, std::nullopt);
  auto [peer, stream] = sim::make_memory_pair();
  auto queue = storage.make_queue();
  SourceLaneOptions options;
  options.epoch = 1;
  options.compare = kind % 4 < 2;
  options.blank = !options.compare;
  options.compress = CompressMode::off;
  {
    SourceLane lane(session, options, *stream, *queue, hasher(), clock);
    feed(input, lane, *queue, *peer);
    drain(*queue);
    queue.reset();
  }
  // Every extent is acknowledged or can be taken again, and none is both.
  require(session.counters().bytes_done <= kDiskSize);
  std::uint64_t left = 0;
  SourceSession::Item item;
  while (session.take(item).value() == SourceSession::Take::item)
    left += std::min(item.count * kExtentSize, kDiskSize - item.first * kExtentSize);
  require(left + session.counters().bytes_done == kDiskSize);
}

}  // namespace
}  // namespace backhaul

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace backhaul;
  if (size == 0) return 0;
  // Long inputs only repeat; the lanes' limits have tests of their own.
  const Input input(as_bytes(data + 1, std::min<std::size_t>(size - 1, 400)));
  if (data[0] < 160)
    fuzz_target(data[0], input);
  else
    fuzz_source(data[0], input);
  return 0;
}
