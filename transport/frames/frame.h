// The frame: the unit of the wire protocol (docs/wire_protocol.md). A fixed 64-byte little-endian header, then
// `payload_size` bytes. The header carries its own CRC-32C, the payload another. Encoding and decoding are pure
// functions over bytes; nothing here does I/O. Reader and writer include this file; nothing else knows offsets.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/buffer.h"
#include "base/error.h"
#include "base/units.h"

namespace backhaul {

inline constexpr std::uint32_t kFrameMagic = 0x31464842;  // "BHF1" in wire order
inline constexpr std::size_t kFrameHeaderSize = 64;
inline constexpr std::uint32_t kMaxPayloadSize = 1 * kMiB;
inline constexpr std::uint32_t kMaxControlPayloadSize = 64 * kKiB;
inline constexpr std::uint16_t kProtocolVersion = 1;

enum class FrameType : std::uint8_t {
  // Control messages: the payload is one JSON object, at most kMaxControlPayloadSize; ping and pong have none.
  hello = 1,      // first frame of each side on each stream: versions and features
  open = 2,       // source -> target, control stream: start or go on with a transfer of one disk
  opened = 3,     // the answer
  join = 4,       // a lane joins a transfer
  joined = 5,     // the answer
  finish = 6,     // source -> target, control stream: everything is sent; verify and swap
  finished = 7,   // the answer
  cancel = 8,     // give the old disk back
  cancelled = 9,  // the answer
  error = 10,     // ends the stream: symbol, cause, fix
  ping = 11,      // either way, any time; answered with pong; both without effect
  pong = 12,
  progress = 13,  // target -> source, control stream, during finish: what it is doing
  query = 14,     // where does a disk stand?
  status = 15,    // the answer
  swap = 16,      // the staged disk becomes the disk, the old one is kept
  swapped = 17,   // the answer
  release = 18,   // what swap kept is no longer needed
  released = 19,  // the answer
  offer = 20,     // the dialling end offers to be the target: the other end may use the stream as if it had dialled

  // Data, on lanes. offset and length are bytes of the disk.
  claim = 32,        // source -> target: send digests of [offset, length); whole extents
  digests = 33,      // target -> source: answer to a claim, one extent or a run of zero extents
  data = 34,         // source -> target: new content of [offset, length), whole blocks but for the disk's tail
  zero = 35,         // source -> target: [offset, length) is zero
  extent_end = 36,   // source -> target: all of [offset, length) (whole extents) was sent on this lane
  extent_done = 37,  // target -> source: durable (and read back, if verified); carries digests unless verify is none
  lane_end = 38,     // source -> target: nothing more comes on this lane; the target acknowledges what is open
};

// Header flags.
inline constexpr std::uint8_t kFrameZstd = 0x01;     // payload is one zstd frame that decodes to raw_size bytes
inline constexpr std::uint8_t kFrameZeroRun = 0x02;  // digests/extent_done/zero: a run of whole, all-zero extents
inline constexpr std::uint8_t kFrameResumed = 0x04;  // digests: acknowledged in an earlier run of this transfer
inline constexpr std::uint8_t kFrameHoleEnd = 0x08;  // extent_end after `zero`s only: the whole range became zero

struct FrameHeader {
  FrameType type{};
  std::uint8_t flags = 0;
  std::uint64_t epoch = 0;         // the transfer's epoch; 0 before `opened`/`joined`
  std::uint64_t offset = 0;        // bytes into the disk
  std::uint64_t length = 0;        // bytes of the disk
  std::uint32_t payload_size = 0;  // bytes that follow on the wire
  std::uint32_t raw_size = 0;      // payload bytes after decompression; equals payload_size unless kFrameZstd
  std::uint32_t payload_crc = 0;   // CRC-32C of the payload as it is on the wire; 0 when there is none
  std::uint32_t aux = 0;           // digests/extent_done: blocks shipped in earlier runs / blocks zeroed now
  friend bool operator==(const FrameHeader&, const FrameHeader&) = default;
};

// Writes the 64 bytes; computes the header CRC. The caller has set payload_crc.
void encode_frame_header(const FrameHeader& header, std::span<std::byte, kFrameHeaderSize> into) noexcept;

// Checks magic, CRC, type, flags allowed for the type, sizes and limits, reserved bytes zero, and that offset + length
// does not overflow. Alignment rules that need the disk's size are check_frame_range's. Errors:
// TransportErrc::bad_magic, bad_header_crc, bad_frame, payload_too_large; the cause names the field.
Result<FrameHeader> decode_frame_header(std::span<const std::byte, kFrameHeaderSize> from);

// Checks offset and length of a data frame against the disk: inside it; `data` and `zero` in whole blocks inside one
// extent; zero runs, claim, digests, extent_end and extent_done in whole extents; only the disk's tail may be short.
Result<void> check_frame_range(const FrameHeader& header, std::uint64_t disk_size_bytes);

// Error: TransportErrc::bad_payload_crc.
Result<void> check_payload(const FrameHeader& header, Bytes payload);

// Checks that the payload of a `digests` frame has as many digests as its bitmap has bits, and no bit past the extent's
// last block. Error: TransportErrc::bad_frame.
Result<void> check_digests_payload(const FrameHeader& header, Bytes payload);

std::string_view to_string(FrameType type) noexcept;
bool is_control(FrameType type) noexcept;

}  // namespace backhaul
