#include "transport/frames/frame.h"

#include <fmt/format.h>
#include <algorithm>
#include <bit>
#include <limits>

#include "base/endian.h"
#include "checksum/crc32c.h"
#include "transport/stream/transport_error.h"

namespace backhaul {
namespace {

// docs/wire_protocol.md, section 2. Each field starts where the one before ends.
constexpr std::size_t kMagicAt = 0;
constexpr std::size_t kTypeAt = kMagicAt + 4;
constexpr std::size_t kFlagsAt = kTypeAt + 1;
constexpr std::size_t kReserved1At = kFlagsAt + 1;
constexpr std::size_t kEpochAt = kReserved1At + 2;
constexpr std::size_t kOffsetAt = kEpochAt + 8;
constexpr std::size_t kLengthAt = kOffsetAt + 8;
constexpr std::size_t kPayloadSizeAt = kLengthAt + 8;
constexpr std::size_t kRawSizeAt = kPayloadSizeAt + 4;
constexpr std::size_t kPayloadCrcAt = kRawSizeAt + 4;
constexpr std::size_t kAuxAt = kPayloadCrcAt + 4;
constexpr std::size_t kReserved2At = kAuxAt + 4;
constexpr std::size_t kHeaderCrcAt = kReserved2At + 12;
static_assert(kHeaderCrcAt + 4 == kFrameHeaderSize);
static_assert(kEpochAt % 8 == 0 && kOffsetAt % 8 == 0 && kLengthAt % 8 == 0 && kReserved2At % 8 == 0);
static_assert(kMaxControlPayloadSize <= kMaxPayloadSize && kMaxPayloadSize <= kExtentSize);

constexpr std::uint64_t kMaxEnd = std::numeric_limits<std::int64_t>::max();
constexpr std::uint32_t kBitmapSize = kBlocksPerExtent / 8;
constexpr std::uint32_t kDigestSize = 16;
constexpr std::uint32_t kExtentDigestSize = 32;

// Each type's rules: docs/wire_protocol.md, section 3, as a table.
struct Shape {
  FrameType type;
  std::string_view name;
  std::uint8_t flags;  // allowed ones
  bool ranged;         // offset and length are a range; otherwise both are zero
  std::uint32_t min_payload;
  std::uint32_t max_payload;
};
constexpr Shape kShapes[] = {
    {FrameType::hello, "hello", 0, false, 2, kMaxControlPayloadSize},
    {FrameType::open, "open", 0, false, 2, kMaxControlPayloadSize},
    {FrameType::opened, "opened", 0, false, 2, kMaxControlPayloadSize},
    {FrameType::join, "join", 0, false, 2, kMaxControlPayloadSize},
    {FrameType::joined, "joined", 0, false, 2, kMaxControlPayloadSize},
    {FrameType::finish, "finish", 0, false, 2, kMaxControlPayloadSize},
    {FrameType::finished, "finished", 0, false, 2, kMaxControlPayloadSize},
    {FrameType::cancel, "cancel", 0, false, 2, kMaxControlPayloadSize},
    {FrameType::cancelled, "cancelled", 0, false, 2, kMaxControlPayloadSize},
    {FrameType::error, "error", 0, false, 2, kMaxControlPayloadSize},
    {FrameType::ping, "ping", 0, false, 0, 0},
    {FrameType::pong, "pong", 0, false, 0, 0},
    {FrameType::progress, "progress", 0, false, 2, kMaxControlPayloadSize},
    {FrameType::query, "query", 0, false, 2, kMaxControlPayloadSize},
    {FrameType::status, "status", 0, false, 2, kMaxControlPayloadSize},
    {FrameType::swap, "swap", 0, false, 2, kMaxControlPayloadSize},
    {FrameType::swapped, "swapped", 0, false, 2, kMaxControlPayloadSize},
    {FrameType::release, "release", 0, false, 2, kMaxControlPayloadSize},
    {FrameType::released, "released", 0, false, 2, kMaxControlPayloadSize},
    {FrameType::offer, "offer", 0, false, 2, kMaxControlPayloadSize},
    {FrameType::claim, "claim", 0, true, 0, 0},
    {FrameType::digests, "digests", kFrameZeroRun | kFrameResumed, true, 0,
     kBitmapSize + kDigestSize* static_cast<std::uint32_t>(kBlocksPerExtent)},
    {FrameType::data, "data", kFrameZstd, true, 1, kMaxPayloadSize},
    {FrameType::zero, "zero", kFrameZeroRun, true, 0, 0},
    {FrameType::extent_end, "extent_end", kFrameHoleEnd, true, 0, 0},
    {FrameType::extent_done, "extent_done", kFrameZeroRun, true, 0, kExtentDigestSize},
    {FrameType::lane_end, "lane_end", 0, false, 0, 0},
};

const Shape* shape_of(FrameType type) noexcept {
  const auto* found =
      std::find_if(std::begin(kShapes), std::end(kShapes), [&](const Shape& s) { return s.type == type; });
  return found == std::end(kShapes) ? nullptr : found;
}

Error bad_frame(const FrameHeader& header, std::string_view what) {
  return make_error(TransportErrc::bad_frame, fmt::format("{} frame, offset {}, length {}: {}", to_string(header.type),
                                                          header.offset, header.length, what));
}

Result<void> check_sizes(const FrameHeader& header, const Shape& shape) {
  const auto limit = is_control(header.type) ? kMaxControlPayloadSize : kMaxPayloadSize;
  if (header.payload_size > limit)
    return make_error(TransportErrc::payload_too_large,
                      fmt::format("{} frame: payload_size {} is above {}", shape.name, header.payload_size, limit));
  if (header.raw_size > kMaxPayloadSize)
    return make_error(TransportErrc::payload_too_large,
                      fmt::format("{} frame: raw_size {} is above {}", shape.name, header.raw_size, kMaxPayloadSize));
  if (header.payload_size < shape.min_payload || header.payload_size > shape.max_payload)
    return bad_frame(header, "payload_size");
  const bool zstd = (header.flags & kFrameZstd) != 0;
  if (zstd ? header.raw_size <= header.payload_size : header.raw_size != header.payload_size)
    return bad_frame(header, "raw_size");
  if (header.payload_size == 0 && header.payload_crc != 0) return bad_frame(header, "payload_crc without a payload");
  return {};
}

// Rules of digests and extent_done, which are for one extent or for a run.
Result<void> check_answer(const FrameHeader& header) {
  const bool run = (header.flags & kFrameZeroRun) != 0;
  if (run && header.payload_size != 0) return bad_frame(header, "payload_size of a zero run");
  if (!run && header.length > kExtentSize) return bad_frame(header, "length above one extent");
  if (header.aux > block_count(header.length)) return bad_frame(header, "aux above the blocks of the range");
  const auto size = header.payload_size;
  if (header.type == FrameType::extent_done) {
    if (size != 0 && size != kExtentDigestSize) return bad_frame(header, "payload_size");
    return {};
  }
  if ((header.flags & kFrameResumed) == 0 && header.aux != 0) return bad_frame(header, "aux without the resumed flag");
  if (size != 0 && (size < kBitmapSize || (size - kBitmapSize) % kDigestSize != 0 ||
                    (size - kBitmapSize) / kDigestSize > block_count(header.length)))
    return bad_frame(header, "payload_size");
  return {};
}

Result<void> check_header(const FrameHeader& header) {
  const Shape* shape = shape_of(header.type);
  if (shape == nullptr)
    return make_error(TransportErrc::bad_frame, fmt::format("type {} is unknown", static_cast<unsigned>(header.type)));
  if ((header.flags & ~shape->flags) != 0) return bad_frame(header, fmt::format("flags {:#04x}", header.flags));
  BH_RETURN_IF_ERROR(check_sizes(header, *shape));
  if (shape->ranged) {
    if (header.length == 0) return bad_frame(header, "length");
    if (header.offset > kMaxEnd || header.length > kMaxEnd - header.offset)
      return bad_frame(header, "offset + length overflows");
  } else if (header.offset != 0 || header.length != 0) {
    return bad_frame(header, "offset or length of a frame without a range");
  }
  if (header.type == FrameType::digests || header.type == FrameType::extent_done) return check_answer(header);
  if (header.aux != 0) return bad_frame(header, "aux");
  if (header.type == FrameType::data && header.length != header.raw_size)
    return bad_frame(header, "raw_size is not the length");
  return {};
}

}  // namespace

std::string_view to_string(FrameType type) noexcept {
  const Shape* shape = shape_of(type);
  return shape == nullptr ? "unknown" : shape->name;
}

bool is_control(FrameType type) noexcept { return type >= FrameType::hello && type <= FrameType::offer; }

void encode_frame_header(const FrameHeader& header, std::span<std::byte, kFrameHeaderSize> into) noexcept {
  std::byte* at = into.data();
  std::memset(at, 0, kFrameHeaderSize);
  store_le(at + kMagicAt, kFrameMagic);
  store_le(at + kTypeAt, static_cast<std::uint8_t>(header.type));
  store_le(at + kFlagsAt, header.flags);
  store_le(at + kEpochAt, header.epoch);
  store_le(at + kOffsetAt, header.offset);
  store_le(at + kLengthAt, header.length);
  store_le(at + kPayloadSizeAt, header.payload_size);
  store_le(at + kRawSizeAt, header.raw_size);
  store_le(at + kPayloadCrcAt, header.payload_crc);
  store_le(at + kAuxAt, header.aux);
  store_le(at + kHeaderCrcAt, crc32c(into.first(kHeaderCrcAt)));
}

Result<FrameHeader> decode_frame_header(std::span<const std::byte, kFrameHeaderSize> from) {
  const std::byte* at = from.data();
  if (const auto magic = load_le<std::uint32_t>(at + kMagicAt); magic != kFrameMagic)
    return make_error(TransportErrc::bad_magic, fmt::format("magic is {:#010x}", magic));
  const auto stored = load_le<std::uint32_t>(at + kHeaderCrcAt);
  if (const auto computed = crc32c(from.first(kHeaderCrcAt)); computed != stored)
    return make_error(TransportErrc::bad_header_crc,
                      fmt::format("header_crc is {:#010x}, computed {:#010x}", stored, computed));
  FrameHeader header;
  header.type = static_cast<FrameType>(load_le<std::uint8_t>(at + kTypeAt));
  header.flags = load_le<std::uint8_t>(at + kFlagsAt);
  header.epoch = load_le<std::uint64_t>(at + kEpochAt);
  header.offset = load_le<std::uint64_t>(at + kOffsetAt);
  header.length = load_le<std::uint64_t>(at + kLengthAt);
  header.payload_size = load_le<std::uint32_t>(at + kPayloadSizeAt);
  header.raw_size = load_le<std::uint32_t>(at + kRawSizeAt);
  header.payload_crc = load_le<std::uint32_t>(at + kPayloadCrcAt);
  header.aux = load_le<std::uint32_t>(at + kAuxAt);
  if (load_le<std::uint16_t>(at + kReserved1At) != 0 || load_le<std::uint64_t>(at + kReserved2At) != 0 ||
      load_le<std::uint32_t>(at + kReserved2At + 8) != 0)
    return bad_frame(header, "reserved bytes");
  BH_RETURN_IF_ERROR(check_header(header));
  return header;
}

Result<void> check_frame_range(const FrameHeader& header, std::uint64_t disk_size_bytes) {
  const Shape* shape = shape_of(header.type);
  if (shape == nullptr || !shape->ranged) return {};
  const auto begin = header.offset;
  if (header.length == 0 || begin >= disk_size_bytes || header.length > disk_size_bytes - begin)
    return bad_frame(header, fmt::format("outside the disk of {} bytes", disk_size_bytes));
  const auto end = begin + header.length;
  const auto whole = [&](std::uint64_t unit) {
    return begin % unit == 0 && (end % unit == 0 || end == disk_size_bytes);
  };
  const bool zero_run = (header.flags & kFrameZeroRun) != 0;
  if (header.type == FrameType::data || (header.type == FrameType::zero && !zero_run)) {
    if (!whole(kBlockSize)) return bad_frame(header, "not in whole blocks");
    if (begin / kExtentSize != (end - 1) / kExtentSize) return bad_frame(header, "crosses an extent");
    return {};
  }
  if (!whole(kExtentSize)) return bad_frame(header, "not in whole extents");
  return {};
}

Result<void> check_payload(const FrameHeader& header, Bytes payload) {
  const auto computed = payload.empty() ? 0 : crc32c(payload);
  if (payload.size() != header.payload_size || computed != header.payload_crc)
    return make_error(TransportErrc::bad_payload_crc,
                      fmt::format("{} frame, offset {}, length {}: payload_crc is {:#010x}, computed {:#010x}",
                                  to_string(header.type), header.offset, header.length, header.payload_crc, computed));
  return {};
}

Result<void> check_digests_payload(const FrameHeader& header, Bytes payload) {
  if (payload.empty()) return {};
  if (payload.size() < kBitmapSize) return bad_frame(header, "digests shorter than their bitmap");
  const auto low = load_le<std::uint64_t>(payload.data());
  const auto high = load_le<std::uint64_t>(payload.data() + 8);
  const auto blocks = block_count(header.length);
  const auto past_end = [&](std::uint64_t word, std::uint64_t first) {
    return blocks >= first + 64 ? false : blocks <= first ? word != 0 : (word >> (blocks - first)) != 0;
  };
  if (past_end(low, 0) || past_end(high, 64)) return bad_frame(header, "bitmap names blocks past the extent's end");
  const auto count = static_cast<std::size_t>(std::popcount(low)) + static_cast<std::size_t>(std::popcount(high));
  if (payload.size() != kBitmapSize + count * kDigestSize)
    return bad_frame(
        header, fmt::format("{} digests for {} non-zero blocks", (payload.size() - kBitmapSize) / kDigestSize, count));
  return {};
}

}  // namespace backhaul
