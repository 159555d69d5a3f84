#include "transport/frames/frame_io.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cstdlib>
#include <future>
#include <random>

#include "base/version.h"
#include "sim/memory_stream.h"
#include "transport/stream/transport_error.h"

namespace backhaul {
namespace {

using sim::make_memory_pair;
using sim::MemoryDirection;
using std::chrono::milliseconds;
using std::chrono::seconds;
namespace json = boost::json;

struct Received {
  FrameHeader header;
  std::vector<std::byte> payload;
};

std::vector<std::byte> block_of(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

const std::vector<std::vector<std::byte>>& payloads() {
  static const std::vector<std::vector<std::byte>> all{block_of(1, 1), block_of(511, 2), block_of(1000, 3)};
  return all;
}

// A little conversation: data frames with borrowed payloads, frames without, one with an owned payload.
void push_all(FrameWriter& writer) {
  writer.push({.type = FrameType::claim, .epoch = 3, .length = kExtentSize});
  for (std::size_t i = 0; i < payloads().size(); ++i)
    writer.push({.type = FrameType::data, .epoch = 3, .offset = i * kBlockSize, .length = payloads()[i].size()},
                payloads()[i], i);
  writer.push_owned({.type = FrameType::extent_done, .epoch = 3, .length = kExtentSize}, block_of(32, 4));
  writer.push({.type = FrameType::lane_end, .epoch = 3});
}
constexpr std::size_t kFramesPushed = 6;

// Runs both ends in turn in one thread until all frames arrived or an end failed.
Result<std::vector<Received>> converse(sim::MemoryPair& ends, FrameWriter& writer) {
  FrameReader reader(*ends.second);
  std::vector<Received> all;
  std::vector<std::byte> place;
  for (int turn = 0; turn < 100'000 && all.size() < kFramesPushed; ++turn) {
    BH_RETURN_IF_ERROR(writer.pump());
    BH_TRY(const auto step, reader.step());
    if (step == FrameReader::Step::need_buffer) {
      place.resize(reader.header().payload_size);
      reader.set_buffer(place);
    } else if (step == FrameReader::Step::frame) {
      const auto payload = reader.payload();
      all.push_back({reader.header(), {payload.begin(), payload.end()}});
    }
  }
  return all;
}

void expect_all(const std::vector<Received>& all) {
  ASSERT_EQ(all.size(), kFramesPushed);
  EXPECT_EQ(all[0].header.type, FrameType::claim);
  for (std::size_t i = 0; i < payloads().size(); ++i) {
    EXPECT_EQ(all[1 + i].header.offset, i * kBlockSize);
    EXPECT_EQ(all[1 + i].payload, payloads()[i]);
  }
  EXPECT_EQ(all[4].payload, block_of(32, 4));
  EXPECT_EQ(all[5].header.type, FrameType::lane_end);
}

TEST(FrameIoTest, frames_survive_any_size_of_move) {
  for (std::size_t move : {1, 2, 3, 63, 64, 65, 127, 1000, 100'000}) {
    auto ends = make_memory_pair({.max_write = move, .max_read = move == 63 ? 1 : move});
    FrameWriter writer(*ends.first);
    push_all(writer);
    auto all = converse(ends, writer);
    ASSERT_TRUE(all) << all.error().to_string();
    expect_all(*all);
    EXPECT_TRUE(writer.idle());
  }
}

TEST(FrameIoTest, frames_survive_a_small_window_and_delay) {
  auto ends = make_memory_pair({.window = 100, .delay_steps = 7});
  FrameWriter writer(*ends.first);
  push_all(writer);
  auto all = converse(ends, writer);
  ASSERT_TRUE(all) << all.error().to_string();
  expect_all(*all);
}

TEST(FrameIoTest, a_payload_is_released_only_after_its_last_byte_was_taken) {
  auto ends = make_memory_pair({.window = kFrameHeaderSize + 10});
  FrameWriter writer(*ends.first);
  const auto payload = block_of(11, 1);
  writer.push({.type = FrameType::data, .length = 11}, payload, 42);
  ASSERT_FALSE(*writer.pump());
  EXPECT_TRUE(writer.take_released().empty());
  std::byte drop[64];
  ASSERT_EQ(*ends.second->read_some(drop), 64U);
  ASSERT_TRUE(*writer.pump());
  EXPECT_EQ(writer.take_released(), std::vector<std::uint64_t>{42});
  EXPECT_TRUE(writer.take_released().empty());
}

// What the stream is told to expect is never more than what comes for certain: the rest of the frame.
TEST(FrameIoTest, what_is_expected_is_the_rest_of_the_frame) {
  struct Listening final : ByteStream {
    explicit Listening(ByteStream& stream) : inner(stream) {}
    Result<std::size_t> read_some(MutableBytes into) override { return inner.read_some(into); }
    Result<std::size_t> write_some(Bytes from) override { return inner.write_some(from); }
    Result<bool> flush() override { return inner.flush(); }
    PollHandle poll_handle() const noexcept override { return -1; }
    void expect_input(std::size_t bytes) noexcept override { expected = bytes; }
    bool has_buffered_input() const noexcept override { return inner.has_buffered_input(); }
    void close() noexcept override {}
    std::uint64_t wire_bytes_sent() const noexcept override { return 0; }
    std::uint64_t wire_bytes_received() const noexcept override { return 0; }
    std::string peer_name() const override { return {}; }
    ByteStream& inner;
    std::size_t expected = 12345;
  };
  const auto payload = block_of(1000, 1);
  auto whole = make_memory_pair();
  FrameWriter writer(*whole.first);
  writer.push({.type = FrameType::data, .length = payload.size()}, payload);
  ASSERT_TRUE(*writer.pump());
  std::vector<std::byte> raw(kFrameHeaderSize + payload.size());
  ASSERT_EQ(*whole.second->read_some(raw), raw.size());

  auto ends = make_memory_pair();
  Listening stream(*ends.second);
  FrameReader reader(stream);
  std::vector<std::byte> place(payload.size());
  EXPECT_EQ(*reader.step(), FrameReader::Step::blocked);
  EXPECT_EQ(stream.expected, 0U) << "nothing says that a frame comes";
  for (std::size_t at = 0; at < raw.size(); ++at) {
    ASSERT_EQ(*ends.first->write_some(Bytes(raw).subspan(at, 1)), 1U);
    auto step = reader.step();
    ASSERT_TRUE(step);
    if (*step == FrameReader::Step::need_buffer) {
      reader.set_buffer(place);
      step = reader.step();
    }
    if (at + 1 == raw.size()) {
      EXPECT_EQ(*step, FrameReader::Step::frame);
      break;
    }
    EXPECT_EQ(stream.expected, at + 1 < kFrameHeaderSize ? kFrameHeaderSize - at - 1 : raw.size() - at - 1);
  }
  EXPECT_EQ(place, payload);
}

// Raises N until nothing fails, and so visits every operation of both ends.
TEST(FrameIoTest, a_failure_at_any_operation_is_reported_and_never_a_wrong_frame) {
  for (const bool writer_fails : {true, false}) {
    bool passed = false;
    std::uint64_t n = 0;
    for (; !passed && n < 10'000; ++n) {
      auto ends = make_memory_pair({.max_write = 97, .max_read = 61});
      (writer_fails ? ends.first : ends.second)->fail_at(n);
      FrameWriter writer(*ends.first);
      push_all(writer);
      auto all = converse(ends, writer);
      if (all) {
        expect_all(*all);
        passed = true;
      } else {
        EXPECT_EQ(all.error(), make_error_code(TransportErrc::lost)) << all.error().to_string();
        EXPECT_EQ(all.error().retry(), Retry::later);
      }
    }
    EXPECT_TRUE(passed);
    EXPECT_GT(n, 20U) << "the operations were not visited";
  }
}

TEST(FrameIoTest, a_flip_of_any_bit_is_noticed_before_the_frame_is_used) {
  const char* given = std::getenv("BACKHAUL_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  SCOPED_TRACE("BACKHAUL_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  const std::uint64_t bytes = kFramesPushed * kFrameHeaderSize + 1 + 511 + 1000 + 32;
  for (int i = 0; i < 500; ++i) {
    const MemoryDirection::Flip flip{random() % bytes, static_cast<unsigned>(random() % 8)};
    auto ends = make_memory_pair({.flips = {flip}});
    FrameWriter writer(*ends.first);
    push_all(writer);
    auto all = converse(ends, writer);
    ASSERT_FALSE(all) << "offset " << flip.offset << " bit " << flip.bit;
    const auto code = all.error().code();
    EXPECT_TRUE(code == make_error_code(TransportErrc::bad_magic) ||
                code == make_error_code(TransportErrc::bad_header_crc) ||
                code == make_error_code(TransportErrc::bad_payload_crc))
        << all.error().to_string();
  }
}

TEST(FrameIoTest, a_link_cut_after_any_byte_gives_lost) {
  for (std::uint64_t cut = 0; cut < 700; cut += 13) {
    auto ends = make_memory_pair({.cut_after = cut});
    FrameWriter writer(*ends.first);
    push_all(writer);
    auto all = converse(ends, writer);
    ASSERT_FALSE(all);
    EXPECT_EQ(all.error(), make_error_code(TransportErrc::lost));
  }
}

struct Channels {
  std::unique_ptr<ControlChannel> a, b;
};
Channels make_channels(MemoryDirection up = {}, MemoryDirection down = {}) {
  auto ends = make_memory_pair(std::move(up), std::move(down));
  return {std::make_unique<ControlChannel>(std::move(ends.first)),
          std::make_unique<ControlChannel>(std::move(ends.second))};
}

TEST(ControlChannelTest, carries_messages_in_pieces) {
  auto channels = make_channels({.max_write = 3, .max_read = 2, .delay_steps = 2});
  ASSERT_TRUE(channels.a->send(FrameType::open, {{"disk", "web.vhdx"}, {"size", 1 << 30}}, 5, seconds(1)));
  auto message = channels.b->expect(FrameType::open, seconds(5));
  ASSERT_TRUE(message) << message.error().to_string();
  EXPECT_EQ(message->header.epoch, 5U);
  EXPECT_EQ(message->body.at("disk").as_string(), "web.vhdx");
  EXPECT_EQ(message->body.at("size").as_int64(), 1 << 30);
}

TEST(ControlChannelTest, answers_ping_and_skips_pong) {
  auto channels = make_channels();
  ASSERT_TRUE(channels.a->send(FrameType::ping, {}, 0, seconds(1)));
  ASSERT_TRUE(channels.a->send(FrameType::pong, {}, 0, seconds(1)));
  ASSERT_TRUE(channels.a->send(FrameType::joined, {}, 0, seconds(1)));
  ASSERT_TRUE(channels.b->expect(FrameType::joined, seconds(1)));
  ASSERT_TRUE(channels.b->send(FrameType::opened, {}, 0, seconds(1)));
  ASSERT_TRUE(channels.a->expect(FrameType::opened, seconds(1))) << "the pong was not skipped";
  EXPECT_EQ(channels.a->stream().wire_bytes_received(), 64U + 64U + 2U);
}

TEST(ControlChannelTest, waits_no_longer_than_told) {
  auto channels = make_channels();
  const auto message = channels.a->receive(milliseconds(20));
  ASSERT_FALSE(message);
  EXPECT_EQ(message.error(), make_error_code(BaseErrc::timed_out));
}

TEST(ControlChannelTest, a_send_into_a_full_window_times_out) {
  auto channels = make_channels({.window = 10});
  EXPECT_EQ(channels.a->send(FrameType::open, {}, 0, milliseconds(20)).error(), make_error_code(BaseErrc::timed_out));
}

TEST(ControlChannelTest, refuses_what_is_no_json_object_and_what_is_no_control_frame) {
  const auto receive = [](FrameHeader header, std::string_view payload) {
    auto ends = make_memory_pair();
    FrameWriter writer(*ends.first);
    writer.push(header, as_bytes(payload.data(), payload.size()));
    EXPECT_TRUE(*writer.pump());
    ControlChannel channel(std::move(ends.second));
    return channel.receive(milliseconds(50)).error();
  };
  const FrameHeader open{.type = FrameType::open};
  for (const char* text : {"[]", "12", "{\"a\":", "{} x", "{\"a\":\"\xff\"}", "\"text\""})
    EXPECT_EQ(receive(open, text), make_error_code(TransportErrc::bad_message)) << text;
  std::string deep = "{\"a\":" + std::string(40, '[') + std::string(40, ']') + "}";
  EXPECT_EQ(receive(open, deep), make_error_code(TransportErrc::bad_message)) << "nested too deep";
  EXPECT_EQ(receive({.type = FrameType::data, .length = 2}, "{}"), make_error_code(TransportErrc::unexpected_frame));
  EXPECT_EQ(receive({.type = FrameType::lane_end}, ""), make_error_code(TransportErrc::unexpected_frame));
}

TEST(ControlChannelTest, expect_names_what_came_instead) {
  auto channels = make_channels();
  ASSERT_TRUE(channels.a->send(FrameType::opened, {}, 0, seconds(1)));
  const auto message = channels.b->expect(FrameType::finished, seconds(1));
  ASSERT_FALSE(message);
  EXPECT_EQ(message.error(), make_error_code(TransportErrc::unexpected_frame));
  EXPECT_EQ(message.error().cause(), "opened instead of finished");
}

TEST(ControlChannelTest, an_error_frame_becomes_the_error_that_the_peer_meant) {
  auto channels = make_channels();
  const auto meant = Error::from_errno(ENOSPC, "write web.vhdx at 4096");
  ASSERT_TRUE(channels.a->send(FrameType::error, error_to_json(meant), 0, seconds(1)));
  channels.a.reset();
  const auto sent = channels.b->send(FrameType::open, {}, 0, seconds(1));
  ASSERT_FALSE(sent) << "the peer is gone";
  EXPECT_TRUE(sent.error().from_peer()) << "the peer's reason is worth more than: " << sent.error().to_string();
  EXPECT_EQ(sent.error().symbol(), "io.no_space");
  EXPECT_NE(sent.error().cause().find("web.vhdx"), std::string::npos);
  EXPECT_EQ(sent.error().fix(), meant.fix());
  EXPECT_EQ(sent.error().retry(), Retry::no);
}

TEST(ErrorJsonTest, keeps_symbol_cause_fix_and_retry) {
  const auto error = make_error(TransportErrc::lost, "10.0.0.1:7000");
  const auto back = error_from_json(error_to_json(error));
  EXPECT_EQ(back.symbol(), "transport.lost");
  EXPECT_NE(back.cause().find("10.0.0.1:7000"), std::string::npos);
  EXPECT_EQ(back.retry(), Retry::later);
  // Passed on by a third node it stays the same.
  const auto again = error_from_json(error_to_json(back));
  EXPECT_EQ(again.to_string(), back.to_string());
}

TEST(ErrorJsonTest, bounds_texts_and_makes_them_printable) {
  const std::string evil =
      std::string("\x1b[2J\r\n\x7f\xc2\x9b") + "\xff\xc0\xaf\xed\xa0\x80" + "\xe2\x82\xac" + std::string(5000, 'x');
  const auto error = error_from_json({{"symbol", "Not A Symbol"}, {"cause", evil}, {"fix", evil}, {"retry", 3}});
  EXPECT_EQ(error.symbol(), "base.peer_reported");
  EXPECT_EQ(error.cause().size(), 2048U);
  EXPECT_EQ(error.fix().size(), 2048U);
  EXPECT_EQ(error.cause().substr(0, 4 + 2 + 1 + 1), "?[2J????");
  EXPECT_NE(error.cause().find("\xe2\x82\xac"), std::string::npos) << "well-formed text stays";
  for (const char c : error.cause()) EXPECT_TRUE(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
  EXPECT_EQ(error.retry(), Retry::no);
  EXPECT_EQ(error_from_json({}).symbol(), "base.peer_reported");
  const auto payload = [](std::string_view text) { return error_from_payload(as_bytes(text.data(), text.size())); };
  EXPECT_EQ(payload(R"({"symbol":"io.no_space"})").symbol(), "io.no_space");
  for (const auto* text : {"", "[]", "7", "{", "nonsense"})
    EXPECT_EQ(payload(text), make_error_code(TransportErrc::bad_message)) << text;
}

TEST(ErrorJsonTest, a_text_is_never_cut_inside_a_character) {
  std::string text = "x";
  while (text.size() < 4000) text += "\xe2\x82\xac";
  const auto body = error_to_json(make_error(BaseErrc::internal, text));
  const auto& cause = body.at("cause").as_string();
  EXPECT_LE(cause.size(), 2048U);
  EXPECT_GE(cause.size(), 2045U);
  EXPECT_EQ(std::string_view(cause).substr(cause.size() - 3), "\xe2\x82\xac");
}

TEST(HelloTest, both_ends_may_speak_at_once) {
  auto channels = make_channels();
  auto other = std::async(std::launch::async, [&] { return exchange_hello(*channels.b, seconds(5)); });
  const auto mine = exchange_hello(*channels.a, seconds(5));
  const auto theirs = other.get();
  ASSERT_TRUE(mine && theirs);
  EXPECT_EQ(mine->version, kProtocolVersion);
  EXPECT_TRUE(mine->zstd);
  EXPECT_TRUE(theirs->zstd);
}

Result<Hello> hello_from(const json::object& body) {
  auto channels = make_channels();
  EXPECT_TRUE(channels.b->send(FrameType::hello, body, 0, seconds(1)));
  return exchange_hello(*channels.a, seconds(1));
}

TEST(HelloTest, names_the_program_and_its_version) {
  auto channels = make_channels();
  EXPECT_TRUE(channels.b->send(FrameType::hello, {{"versions", {1, 1}}}, 0, seconds(1)));
  ASSERT_TRUE(exchange_hello(*channels.a, seconds(1)));
  const auto ours = channels.b->expect(FrameType::hello, seconds(1));
  ASSERT_TRUE(ours);
  EXPECT_EQ(ours->body.at("software").as_string(), std::string("backhaul ") + kVersion);
}

TEST(HelloTest, agrees_on_the_highest_common_version_and_known_features) {
  const auto newer =
      hello_from({{"versions", {1, 9}}, {"features", {"teleport", 5, "zstd"}}, {"software", "backhaul 9"}});
  ASSERT_TRUE(newer) << newer.error().to_string();
  EXPECT_EQ(newer->version, 1);
  EXPECT_TRUE(newer->zstd);
  const auto plain = hello_from({{"versions", {1, 1}}});
  ASSERT_TRUE(plain);
  EXPECT_FALSE(plain->zstd);
}

TEST(HelloTest, refuses_a_peer_without_a_common_version) {
  EXPECT_EQ(hello_from({{"versions", {2, 9}}}).error(), make_error_code(TransportErrc::version_mismatch));
}

TEST(HelloTest, refuses_malformed_versions) {
  for (const auto& versions :
       std::initializer_list<json::value>{json::array{1}, json::array{1, 70000}, json::array{-1, 1}, json::array{0, 1},
                                          json::array{3, 1}, json::array{"1", "1"}, json::value(1), json::value()})
    EXPECT_EQ(hello_from({{"versions", versions}}).error(), make_error_code(TransportErrc::bad_message))
        << json::serialize(versions);
  EXPECT_EQ(hello_from({}).error(), make_error_code(TransportErrc::bad_message));
}

}  // namespace
}  // namespace backhaul
