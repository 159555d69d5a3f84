#include "transport/frames/frame.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/endian.h"
#include "checksum/block_digest.h"
#include "checksum/crc32c.h"
#include "transport/stream/transport_error.h"

namespace backhaul {
namespace {

using RawHeader = std::array<std::byte, kFrameHeaderSize>;
using Payload = std::vector<std::byte>;

Payload text(std::string_view value) {
  const auto bytes = as_bytes(value.data(), value.size());
  return {bytes.begin(), bytes.end()};
}

Payload counting(std::size_t size) {
  Payload bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i);
  return bytes;
}

// Blocks 0 and 127 are not zero.
Payload two_digests() {
  Payload bytes(16);
  bytes[0] = std::byte{0x01};
  bytes[15] = std::byte{0x80};
  const auto digests = counting(32);
  bytes.insert(bytes.end(), digests.begin(), digests.end());
  return bytes;
}

FrameHeader sealed(FrameHeader header, const Payload& payload) {
  header.payload_size = static_cast<std::uint32_t>(payload.size());
  if ((header.flags & kFrameZstd) == 0) header.raw_size = header.payload_size;
  header.payload_crc = payload.empty() ? 0 : crc32c(payload);
  return header;
}

RawHeader encoded(const FrameHeader& header) {
  RawHeader raw;
  encode_frame_header(header, raw);
  return raw;
}

// Changes bytes of a valid header and makes its CRC right again.
RawHeader patched(RawHeader raw, std::size_t at, std::uint8_t value) {
  raw[at] = std::byte{value};
  store_le(raw.data() + 60, crc32c(std::span(raw).first(60)));
  return raw;
}

struct Golden {
  FrameHeader header;
  Payload payload;
  const char* hex;
};

// The hexadecimal text was made by a bitwise CRC-32C and struct.pack of another language, from docs/wire_protocol.md
// alone.
const std::vector<Golden>& golden() {
  static const std::vector<Golden> vectors{
      {{.type = FrameType::hello},
       text(R"({"versions":[1,1],"features":["zstd"],"software":"backhaul 0.1.0"})"),
       "4248463101000000000000000000000000000000000000000000000000000000"
       "4200000042000000d227b61d00000000000000000000000000000000aa9d29d4"},
      {{.type = FrameType::ping, .epoch = 7},
       {},
       "424846310b000000070000000000000000000000000000000000000000000000"
       "0000000000000000000000000000000000000000000000000000000077a6048a"},
      {{.type = FrameType::query},
       text(R"({"disk":"vm/disk"})"),
       "424846310e000000000000000000000000000000000000000000000000000000"
       "12000000120000004a69cbc200000000000000000000000000000000179c3330"},
      {{.type = FrameType::swap},
       text(R"({"disk":"vm/disk","epoch":7})"),
       "4248463110000000000000000000000000000000000000000000000000000000"
       "1c0000001c0000000e21541a00000000000000000000000000000000a6af313b"},
      {{.type = FrameType::release},
       text(R"({"disk":"vm/disk","epoch":8})"),
       "4248463112000000000000000000000000000000000000000000000000000000"
       "1c0000001c000000f32b2dfd000000000000000000000000000000001805ba78"},
      {{.type = FrameType::offer},
       text(R"({"send":"job-17.os"})"),
       "4248463114000000000000000000000000000000000000000000000000000000"
       "14000000140000002ec9094a000000000000000000000000000000008564bab8"},
      {{.type = FrameType::claim, .epoch = 7, .offset = 3 * kExtentSize, .length = 2 * kExtentSize},
       {},
       "424846312000000007000000000000000000c000000000000000800000000000"
       "00000000000000000000000000000000000000000000000000000000e2ec1c8c"},
      {{.type = FrameType::digests,
        .flags = kFrameResumed,
        .epoch = 7,
        .offset = kExtentSize,
        .length = kExtentSize,
        .aux = 1},
       two_digests(),
       "4248463121040000070000000000000000004000000000000000400000000000"
       "3000000030000000443bcc64010000000000000000000000000000000c0ff0f7"},
      {{.type = FrameType::digests, .flags = kFrameZeroRun, .epoch = 7, .length = kTiB},
       {},
       "4248463121020000070000000000000000000000000000000000000000010000"
       "00000000000000000000000000000000000000000000000000000000b5059e07"},
      {{.type = FrameType::data, .epoch = 0x0102030405060708, .offset = kExtentSize + kBlockSize, .length = 512},
       counting(512),
       "4248463122000000080706050403020100804000000000000002000000000000"
       "00020000000200005aee10ae00000000000000000000000000000000a4a7c752"},
      {{.type = FrameType::data, .flags = kFrameZstd, .epoch = 7, .length = 65536, .raw_size = 65536},
       text("\x28\xb5\x2f\xfdnot a real one"),
       "4248463122010000070000000000000000000000000000000000010000000000"
       "1200000000000100cbb9df750000000000000000000000000000000037e81b46"},
      {{.type = FrameType::zero, .epoch = 7, .offset = kBlockSize, .length = 65536},
       {},
       "4248463123000000070000000000000000800000000000000000010000000000"
       "00000000000000000000000000000000000000000000000000000000e99154f1"},
      {{.type = FrameType::extent_end,
        .flags = kFrameHoleEnd,
        .epoch = 7,
        .offset = kExtentSize,
        .length = kExtentSize},
       {},
       "4248463124080000070000000000000000004000000000000000400000000000"
       "000000000000000000000000000000000000000000000000000000003e6e0713"},
      {{.type = FrameType::extent_done, .epoch = 7, .offset = kExtentSize, .length = kExtentSize, .aux = 128},
       counting(32),
       "4248463125000000070000000000000000004000000000000000400000000000"
       "20000000200000004e79dd46800000000000000000000000000000007636c9de"},
      {{.type = FrameType::lane_end, .epoch = 7},
       {},
       "4248463126000000070000000000000000000000000000000000000000000000"
       "000000000000000000000000000000000000000000000000000000008a9ef21a"},
  };
  return vectors;
}

TEST(FrameTest, encodes_the_golden_vectors) {
  for (const auto& vector : golden())
    EXPECT_EQ(to_hex(encoded(sealed(vector.header, vector.payload))), vector.hex) << to_string(vector.header.type);
}

TEST(FrameTest, decodes_the_golden_vectors) {
  for (const auto& vector : golden()) {
    RawHeader raw;
    for (std::size_t i = 0; i < raw.size(); ++i)
      raw[i] = static_cast<std::byte>(std::stoul(std::string(vector.hex + 2 * i, 2), nullptr, 16));
    const auto header = decode_frame_header(raw);
    ASSERT_TRUE(header) << header.error().to_string();
    EXPECT_EQ(*header, sealed(vector.header, vector.payload)) << to_string(vector.header.type);
    EXPECT_TRUE(check_payload(*header, vector.payload));
  }
}

TEST(FrameTest, notices_every_flipped_bit_of_a_header) {
  const auto good = encoded(sealed({.type = FrameType::data, .epoch = 7, .length = 512}, counting(512)));
  for (std::size_t bit = 0; bit < 8 * kFrameHeaderSize; ++bit) {
    auto raw = good;
    raw[bit / 8] ^= std::byte{1} << (bit % 8);
    const auto header = decode_frame_header(raw);
    ASSERT_FALSE(header) << "bit " << bit;
    EXPECT_EQ(header.error(), make_error_code(bit < 32 ? TransportErrc::bad_magic : TransportErrc::bad_header_crc));
  }
}

TEST(FrameTest, refuses_reserved_bytes_that_are_not_zero) {
  const auto good = encoded({.type = FrameType::lane_end, .epoch = 7});
  for (std::size_t at : {6, 7, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59})
    EXPECT_EQ(decode_frame_header(patched(good, at, 1)).error(), make_error_code(TransportErrc::bad_frame)) << at;
}

TEST(FrameTest, refuses_unknown_types) {
  const auto good = encoded({.type = FrameType::ping});
  for (unsigned type = 0; type < 256; ++type) {
    const bool known = (type >= 1 && type <= 20) || (type >= 32 && type <= 38);
    const auto header = decode_frame_header(patched(good, 4, static_cast<std::uint8_t>(type)));
    if (!known) {
      ASSERT_FALSE(header) << type;
      EXPECT_EQ(header.error(), make_error_code(TransportErrc::bad_frame));
      EXPECT_NE(header.error().cause().find("type"), std::string::npos);
    }
    EXPECT_EQ(to_string(static_cast<FrameType>(type)) == "unknown", !known) << type;
  }
}

struct Refused {
  const char* what;
  FrameHeader header;  // sizes as given, nothing filled in
  TransportErrc errc;
  const char* cause;
};

const Refused kRefused[] = {
    {"a flag of another type",
     {.type = FrameType::zero, .flags = kFrameZstd, .length = 1},
     TransportErrc::bad_frame,
     "flags"},
    {"an unknown flag", {.type = FrameType::claim, .flags = 0x80, .length = 1}, TransportErrc::bad_frame, "flags"},
    {"a flag on a control frame", {.type = FrameType::ping, .flags = kFrameZeroRun}, TransportErrc::bad_frame, "flags"},
    {"a control payload above its limit",
     {.type = FrameType::hello, .payload_size = kMaxControlPayloadSize + 1, .raw_size = kMaxControlPayloadSize + 1},
     TransportErrc::payload_too_large,
     "payload_size"},
    {"a data payload above its limit",
     {.type = FrameType::data,
      .length = kMaxPayloadSize + 1,
      .payload_size = kMaxPayloadSize + 1,
      .raw_size = kMaxPayloadSize + 1},
     TransportErrc::payload_too_large,
     "payload_size"},
    {"a raw size above the limit",
     {.type = FrameType::data, .flags = kFrameZstd, .length = 0xFFFFFFFF, .payload_size = 100, .raw_size = 0xFFFFFFFF},
     TransportErrc::payload_too_large,
     "raw_size"},
    {"a message without JSON", {.type = FrameType::open}, TransportErrc::bad_frame, "payload_size"},
    {"a ping with a payload",
     {.type = FrameType::ping, .payload_size = 2, .raw_size = 2},
     TransportErrc::bad_frame,
     "payload_size"},
    {"a claim with a payload",
     {.type = FrameType::claim, .length = 1, .payload_size = 1, .raw_size = 1},
     TransportErrc::bad_frame,
     "payload_size"},
    {"data without a payload", {.type = FrameType::data, .length = 512}, TransportErrc::bad_frame, "payload_size"},
    {"a raw size that differs without zstd",
     {.type = FrameType::data, .length = 512, .payload_size = 100, .raw_size = 512},
     TransportErrc::bad_frame,
     "raw_size"},
    {"zstd that does not shrink",
     {.type = FrameType::data, .flags = kFrameZstd, .length = 512, .payload_size = 512, .raw_size = 512},
     TransportErrc::bad_frame,
     "raw_size"},
    {"data whose length is not its size",
     {.type = FrameType::data, .length = 1024, .payload_size = 512, .raw_size = 512},
     TransportErrc::bad_frame,
     "raw_size"},
    {"a CRC without a payload",
     {.type = FrameType::zero, .length = 1, .payload_crc = 1},
     TransportErrc::bad_frame,
     "payload_crc"},
    {"an empty range", {.type = FrameType::claim}, TransportErrc::bad_frame, "length"},
    {"a range that wraps around",
     {.type = FrameType::zero, .offset = ~0ULL, .length = 2},
     TransportErrc::bad_frame,
     "overflows"},
    {"a range above 2^63",
     {.type = FrameType::zero, .offset = 1ULL << 62, .length = 1ULL << 62},
     TransportErrc::bad_frame,
     "overflows"},
    {"a range on a control frame", {.type = FrameType::ping, .offset = 1}, TransportErrc::bad_frame, "without a range"},
    {"a length on a control frame",
     {.type = FrameType::lane_end, .length = 1},
     TransportErrc::bad_frame,
     "without a range"},
    {"aux where none belongs", {.type = FrameType::zero, .length = 1, .aux = 1}, TransportErrc::bad_frame, "aux"},
    {"a zero run with digests",
     {.type = FrameType::digests, .flags = kFrameZeroRun, .length = kExtentSize, .payload_size = 32, .raw_size = 32},
     TransportErrc::bad_frame,
     "zero run"},
    {"digests of two extents",
     {.type = FrameType::digests, .length = 2 * kExtentSize},
     TransportErrc::bad_frame,
     "one extent"},
    {"digests that are not whole",
     {.type = FrameType::digests, .length = kExtentSize, .payload_size = 33, .raw_size = 33},
     TransportErrc::bad_frame,
     "payload_size"},
    {"digests shorter than the bitmap",
     {.type = FrameType::digests, .length = kExtentSize, .payload_size = 15, .raw_size = 15},
     TransportErrc::bad_frame,
     "payload_size"},
    {"more digests than an extent has blocks",
     {.type = FrameType::digests, .length = kExtentSize, .payload_size = 16 + 129 * 16, .raw_size = 16 + 129 * 16},
     TransportErrc::bad_frame,
     "payload_size"},
    {"more digests than the tail has blocks",
     {.type = FrameType::digests, .length = 512, .payload_size = 48, .raw_size = 48},
     TransportErrc::bad_frame,
     "payload_size"},
    {"shipped blocks without the resumed flag",
     {.type = FrameType::digests, .length = kExtentSize, .aux = 1},
     TransportErrc::bad_frame,
     "aux"},
    {"more shipped blocks than blocks",
     {.type = FrameType::digests, .flags = kFrameResumed, .length = kExtentSize, .aux = 129},
     TransportErrc::bad_frame,
     "aux"},
    {"an extent digest of 31 bytes",
     {.type = FrameType::extent_done, .length = kExtentSize, .payload_size = 31, .raw_size = 31},
     TransportErrc::bad_frame,
     "payload_size"},
    {"more zeroed blocks than blocks",
     {.type = FrameType::extent_done, .length = kExtentSize, .aux = 129},
     TransportErrc::bad_frame,
     "aux"},
};

TEST(FrameTest, refuses_fields_that_contradict_each_other) {
  for (const auto& refused : kRefused) {
    const auto header = decode_frame_header(encoded(refused.header));
    ASSERT_FALSE(header) << refused.what;
    EXPECT_EQ(header.error(), make_error_code(refused.errc)) << refused.what << ": " << header.error().to_string();
    EXPECT_NE(header.error().cause().find(refused.cause), std::string::npos)
        << refused.what << ": " << header.error().cause();
  }
}

TEST(FrameTest, notices_a_changed_payload) {
  const auto payload = counting(512);
  const auto header = sealed({.type = FrameType::data, .length = 512}, payload);
  for (std::size_t i = 0; i < payload.size(); i += 37) {
    auto changed = payload;
    changed[i] ^= std::byte{0x10};
    EXPECT_EQ(check_payload(header, changed).error(), make_error_code(TransportErrc::bad_payload_crc));
  }
  EXPECT_FALSE(check_payload(header, std::span(payload).first(511)));
}

TEST(FrameTest, checks_ranges_against_the_disk) {
  // Two extents, then one block and 100 bytes.
  constexpr std::uint64_t kSize = 2 * kExtentSize + kBlockSize + 100;
  const auto ok = [](FrameType type, std::uint64_t offset, std::uint64_t length) {
    return check_frame_range({.type = type, .offset = offset, .length = length}, kSize).has_value();
  };
  EXPECT_TRUE(ok(FrameType::data, 0, kBlockSize));
  EXPECT_TRUE(ok(FrameType::data, 2 * kExtentSize + kBlockSize, 100));
  EXPECT_TRUE(ok(FrameType::data, 2 * kExtentSize, kBlockSize + 100));
  EXPECT_FALSE(ok(FrameType::data, 0, 100)) << "short, and not at the end";
  EXPECT_FALSE(ok(FrameType::data, 512, kBlockSize)) << "not at a block";
  EXPECT_FALSE(ok(FrameType::data, kExtentSize - kBlockSize, 2 * kBlockSize)) << "crosses an extent";
  EXPECT_FALSE(ok(FrameType::data, 2 * kExtentSize + kBlockSize, 101)) << "behind the end";
  EXPECT_FALSE(ok(FrameType::data, kSize, 1));
  EXPECT_FALSE(ok(FrameType::data, ~0ULL, 1));

  EXPECT_TRUE(ok(FrameType::zero, kBlockSize, kExtentSize - kBlockSize));
  EXPECT_FALSE(ok(FrameType::zero, kBlockSize, kExtentSize)) << "crosses an extent";
  EXPECT_FALSE(ok(FrameType::zero, 0, kSize)) << "crosses extents without the zero run flag";
  const auto zero_run_ok = [](std::uint64_t offset, std::uint64_t length) {
    const FrameHeader run{.type = FrameType::zero, .flags = kFrameZeroRun, .offset = offset, .length = length};
    return check_frame_range(run, kSize).has_value();
  };
  EXPECT_TRUE(zero_run_ok(0, kSize));
  EXPECT_TRUE(zero_run_ok(kExtentSize, kExtentSize));
  EXPECT_FALSE(zero_run_ok(0, kBlockSize)) << "a run is of whole extents";
  EXPECT_FALSE(zero_run_ok(kBlockSize, kExtentSize));

  for (auto type : {FrameType::claim, FrameType::digests, FrameType::extent_end, FrameType::extent_done}) {
    EXPECT_TRUE(ok(type, kExtentSize, kExtentSize));
    EXPECT_TRUE(ok(type, 2 * kExtentSize, kBlockSize + 100));
    EXPECT_FALSE(ok(type, kBlockSize, kExtentSize));
    EXPECT_FALSE(ok(type, 0, kBlockSize));
    EXPECT_FALSE(ok(type, 2 * kExtentSize, kExtentSize));
  }
  EXPECT_TRUE(check_frame_range({.type = FrameType::lane_end}, kSize));
  EXPECT_FALSE(check_frame_range({.type = FrameType::claim, .length = 1}, 0)) << "an empty disk has no extents";
}

TEST(FrameTest, checks_digests_against_their_bitmap) {
  const FrameHeader whole{.type = FrameType::digests, .length = kExtentSize};
  EXPECT_TRUE(check_digests_payload(whole, {}));
  EXPECT_TRUE(check_digests_payload(whole, two_digests()));
  auto one_bit_more = two_digests();
  one_bit_more[3] = std::byte{0x10};
  EXPECT_FALSE(check_digests_payload(whole, one_bit_more));
  EXPECT_FALSE(check_digests_payload(whole, counting(15)));
  // Bit 127 is past the end of a shorter extent.
  EXPECT_FALSE(check_digests_payload({.type = FrameType::digests, .length = kExtentSize - kBlockSize}, two_digests()));
  EXPECT_TRUE(
      check_digests_payload({.type = FrameType::digests, .length = kExtentSize - kBlockSize + 1}, two_digests()));
  EXPECT_FALSE(check_digests_payload({.type = FrameType::digests, .length = 1}, two_digests()));
}

}  // namespace
}  // namespace backhaul
