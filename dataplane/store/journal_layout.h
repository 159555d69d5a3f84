// Constants of the three files that the target keeps beside a disk: session journal, digest index, undo log.
// Offsets and meanings: docs/journal_format.md. Writer and reader both take them from here.
#pragma once

#include <cstdint>

#include "base/endian.h"
#include "checksum/block_digest.h"
#include "checksum/crc32c.h"
#include "dataplane/disk/io.h"
#include "dataplane/store/undo.h"

namespace backhaul::journal_layout {

inline constexpr std::uint32_t kVersion = 1;
inline constexpr std::uint64_t kHeaderSize = 4096;
// All that matters in a header lies in its first sector, and its CRC covers just that.
inline constexpr std::uint64_t kHeaderCrcBytes = 512;
inline constexpr std::size_t kIdentitySize = 40;

// Magics are the ASCII text, read as a little-endian number.
inline constexpr std::uint64_t kSessionMagic = 0x314E'5353'4553'4842;  // "BHSESSN1"
inline constexpr std::uint64_t kIndexMagic = 0x3158'4947'4944'4842;    // "BHDIGIX1"
inline constexpr std::uint64_t kUndoMagic = 0x314C'4F44'4E55'4842;     // "BHUNDOL1"
inline constexpr std::uint32_t kUndoRecordMagic = 0x5255'4842;         // "BHUR"

inline constexpr std::uint64_t kSessionRecordSize = 128;

inline constexpr std::uint64_t kIndexTableOffset = kHeaderSize;
inline constexpr std::uint64_t kIndexEntrySize = 2;
inline constexpr std::uint64_t kIndexDigestBytes = kBlocksPerExtent * sizeof(BlockDigest);
inline constexpr std::uint64_t kIndexRecordSize = kIndexDigestBytes + 16;
static_assert(kIndexRecordSize == 2064);

inline constexpr std::uint64_t kUndoRecordHeaderSize = 4096;
inline constexpr std::uint64_t kUndoRecordHeaderUsed = 64;
inline constexpr std::uint64_t kUndoMaxDataChunks = 64;    // 4 MiB: one read, one buffer
inline constexpr std::uint64_t kUndoMaxRunChunks = 16384;  // 1 GiB of hole or zeros
inline constexpr std::uint64_t kUndoMaxFileSize = 1024 * kTiB;

inline void store_identity(std::byte* to, const FileIdentity& identity) noexcept {
  store_le(to, identity.device);
  store_le(to + 8, identity.inode);
  store_le(to + 16, identity.size);
  store_le(to + 24, identity.modified_ns);
  store_le(to + 32, identity.changed_ns);
}

inline FileIdentity load_identity(const std::byte* from) noexcept {
  return {load_le<std::uint64_t>(from), load_le<std::uint64_t>(from + 8), load_le<std::uint64_t>(from + 16),
          load_le<std::int64_t>(from + 24), load_le<std::int64_t>(from + 32)};
}

// The CRC of `bytes`, whose own CRC field of 4 bytes at `at` counts as zero. REQUIRES: at + 4 <= bytes.size().
inline std::uint32_t crc_without_field(Bytes bytes, std::size_t at) noexcept {
  constexpr std::byte kZeros[4] = {};
  return crc32c_extend(crc32c_extend(crc32c(bytes.first(at)), kZeros), bytes.subspan(at + 4));
}

}  // namespace backhaul::journal_layout
