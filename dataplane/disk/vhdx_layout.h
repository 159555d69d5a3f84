// The fixed-size structures and constants of a VHDX file, each with its section of [MS-VHDX]. All integers are
// little-endian; the structures have no padding and are loaded and stored by memcpy. Reader, writer and tests include
// this one header.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "base/buffer.h"
#include "base/endian.h"
#include "base/units.h"
#include "base/world.h"

namespace backhaul::vhdx {

// A GUID as it lies in the file: the first three fields little-endian, the last eight bytes in order.
struct Guid {
  std::array<std::uint8_t, 16> bytes{};
  bool is_zero() const noexcept { return *this == Guid{}; }
  friend bool operator==(const Guid&, const Guid&) = default;
};
static_assert(sizeof(Guid) == 16);

constexpr Guid make_guid(std::uint32_t a, std::uint16_t b, std::uint16_t c, std::array<std::uint8_t, 8> d) {
  Guid guid;
  for (unsigned i = 0; i < 4; ++i) guid.bytes[i] = static_cast<std::uint8_t>(a >> (8 * i));
  for (unsigned i = 0; i < 2; ++i) guid.bytes[4 + i] = static_cast<std::uint8_t>(b >> (8 * i));
  for (unsigned i = 0; i < 2; ++i) guid.bytes[6 + i] = static_cast<std::uint8_t>(c >> (8 * i));
  for (unsigned i = 0; i < 8; ++i) guid.bytes[8 + i] = d[i];
  return guid;
}

// A version 4 (random) GUID, RFC 4122 section 4.4.
inline Guid random_guid(Random& random) {
  Guid guid;
  store_le(guid.bytes.data(), random.next());
  store_le(guid.bytes.data() + 8, random.next());
  guid.bytes[7] = static_cast<std::uint8_t>((guid.bytes[7] & 0x0F) | 0x40);
  guid.bytes[8] = static_cast<std::uint8_t>((guid.bytes[8] & 0x3F) | 0x80);
  return guid;
}

// A signature as the integer that its letters make in the file.
constexpr std::uint32_t signature4(const char (&text)[5]) {
  std::uint32_t value = 0;
  for (unsigned i = 0; i < 4; ++i) value |= static_cast<std::uint32_t>(static_cast<unsigned char>(text[i])) << (8 * i);
  return value;
}
constexpr std::uint64_t signature8(const char (&text)[9]) {
  std::uint64_t value = 0;
  for (unsigned i = 0; i < 8; ++i) value |= static_cast<std::uint64_t>(static_cast<unsigned char>(text[i])) << (8 * i);
  return value;
}

// 2.1, 2.2: the header section is the first MiB; every region, and every block, is aligned to 1 MiB.
inline constexpr std::uint64_t kAlignment = kMiB;
inline constexpr std::uint64_t kHeaderSectionSize = kMiB;
inline constexpr std::uint64_t kFileIdentifierOffset = 0;
inline constexpr std::array<std::uint64_t, 2> kHeaderOffsets = {64 * kKiB, 128 * kKiB};
inline constexpr std::array<std::uint64_t, 2> kRegionTableOffsets = {192 * kKiB, 256 * kKiB};
inline constexpr std::uint64_t kRegionTableSize = 64 * kKiB;
inline constexpr std::uint64_t kHeaderSize = 4 * kKiB;

// 2.2.1 File Type Identifier
inline constexpr std::uint64_t kFileSignature = signature8("vhdxfile");
struct FileIdentifier {
  std::uint64_t signature = kFileSignature;
  std::array<char16_t, 256> creator{};  // UTF-16, ended by 0 when shorter
};
static_assert(sizeof(FileIdentifier) == 520);

// 2.2.2 Headers. The checksum is the CRC-32C of the 4 KiB with the checksum field zero.
inline constexpr std::uint32_t kHeaderSignature = signature4("head");
inline constexpr std::uint16_t kHeaderVersion = 1;
inline constexpr std::uint16_t kLogVersion = 0;
struct Header {
  std::uint32_t signature = kHeaderSignature;
  std::uint32_t checksum = 0;
  std::uint64_t sequence_number = 0;  // the valid header with the greater one is current
  Guid file_write_guid;               // new before the first change of the file after an open
  Guid data_write_guid;               // new before the first change of what a guest can see
  Guid log_guid;                      // zero: the log is empty and must not be replayed
  std::uint16_t log_version = kLogVersion;
  std::uint16_t version = kHeaderVersion;
  std::uint32_t log_length = 0;  // multiple of 1 MiB
  std::uint64_t log_offset = 0;  // multiple of 1 MiB, at least 1 MiB
  std::array<std::uint8_t, 4016> reserved{};
  friend bool operator==(const Header&, const Header&) = default;
};
static_assert(sizeof(Header) == kHeaderSize);

// 2.2.3 Region Table. The checksum covers the whole 64 KiB with the checksum field zero.
inline constexpr std::uint32_t kRegionSignature = signature4("regi");
inline constexpr std::uint32_t kMaxRegions = 2047;
struct RegionTableHeader {
  std::uint32_t signature = kRegionSignature;
  std::uint32_t checksum = 0;
  std::uint32_t entry_count = 0;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(RegionTableHeader) == 16);
struct RegionTableEntry {
  Guid id;
  std::uint64_t file_offset = 0;
  std::uint32_t length = 0;
  std::uint32_t flags = 0;
};
static_assert(sizeof(RegionTableEntry) == 32);
inline constexpr std::uint32_t kRegionRequired = 1;
inline constexpr Guid kBatRegion =
    make_guid(0x2DC27766, 0xF623, 0x4200, {0x9D, 0x64, 0x11, 0x5E, 0x9B, 0xFD, 0x4A, 0x08});
inline constexpr Guid kMetadataRegion =
    make_guid(0x8B7CA206, 0x4790, 0x4B9A, {0xB8, 0xFE, 0x57, 0x5F, 0x05, 0x0F, 0x88, 0x6E});

// 2.3 Log: a ring of 4 KiB sectors.
inline constexpr std::uint32_t kLogSector = 4096;
// 2.3.1.1 Log Entry Header. The checksum covers the whole entry with the checksum field zero.
inline constexpr std::uint32_t kLogEntrySignature = signature4("loge");
struct LogEntryHeader {
  std::uint32_t signature = kLogEntrySignature;
  std::uint32_t checksum = 0;
  std::uint32_t entry_length = 0;     // multiple of 4 KiB, descriptors and data sectors included
  std::uint32_t tail = 0;             // log offset of the first entry that a replay up to this one needs
  std::uint64_t sequence_number = 0;  // above 0; one more than that of the entry before
  std::uint32_t descriptor_count = 0;
  std::uint32_t reserved = 0;
  Guid log_guid;                          // that of the header; other entries are leftovers
  std::uint64_t flushed_file_offset = 0;  // the file had at least this size, durably
  std::uint64_t last_file_offset = 0;     // everything allocated lies below; a replay grows the file to it
};
static_assert(sizeof(LogEntryHeader) == 64);
// 2.3.1.2 and 2.3.1.3: zero and data descriptor, 32 bytes each, right behind the header.
inline constexpr std::uint32_t kZeroDescriptorSignature = signature4("zero");
inline constexpr std::uint32_t kDataDescriptorSignature = signature4("desc");
struct LogDescriptor {
  std::uint32_t signature = 0;
  std::uint32_t trailing_bytes = 0;  // data: the last 4 bytes of the 4 KiB
  std::uint64_t leading_bytes = 0;   // data: the first 8 bytes of the 4 KiB; zero: a length, a multiple of 4 KiB
  std::uint64_t file_offset = 0;     // multiple of 4 KiB
  std::uint64_t sequence_number = 0;
};
static_assert(sizeof(LogDescriptor) == 32);
// 2.3.1.4 Data Sector: bytes 8 to 4091 of the 4 KiB, between marks that show a torn write.
inline constexpr std::uint32_t kDataSectorSignature = signature4("data");
struct LogDataSector {
  std::uint32_t signature = kDataSectorSignature;
  std::uint32_t sequence_high = 0;
  std::array<std::uint8_t, 4084> data{};
  std::uint32_t sequence_low = 0;
};
static_assert(sizeof(LogDataSector) == kLogSector);
// Descriptors that fit the entry's first sector, behind the header.
inline constexpr std::uint32_t kDescriptorsInFirstSector =
    (kLogSector - sizeof(LogEntryHeader)) / sizeof(LogDescriptor);
static_assert(kDescriptorsInFirstSector == 126);

// 2.4 Blocks, 2.5 BAT. An entry: state in bits 0-2, bits 3-19 reserved, file offset in MiB in bits 20-63.
inline constexpr std::uint32_t kMinBlockSize = 1 * kMiB;
inline constexpr std::uint32_t kMaxBlockSize = 256 * kMiB;
inline constexpr std::uint64_t kSectorsPerBitmapBlock = std::uint64_t{1} << 23;  // bits in a 1 MiB sector bitmap block
inline constexpr std::uint64_t kBatEntrySize = 8;
inline constexpr std::uint64_t kBatStateMask = 0x7;
inline constexpr std::uint64_t kBatOffsetMask = ~(kMiB - 1);
enum class BlockState : std::uint8_t {  // 2.5.1.1; a sector bitmap entry (2.5.1.2) knows 0 and 6
  not_present = 0,
  undefined = 1,
  zero = 2,
  unmapped = 3,
  fully_present = 6,
  partially_present = 7,  // differencing disks only
};

// 2.6.1 Metadata Table: 64 KiB at the start of the metadata region; item offsets count from the region's start.
inline constexpr std::uint64_t kMetadataSignature = signature8("metadata");
inline constexpr std::uint32_t kMetadataTableSize = 64 * kKiB;
inline constexpr std::uint32_t kMaxMetadataEntries = 2047;
inline constexpr std::uint32_t kMaxMetadataItemSize = kMiB;
struct MetadataTableHeader {
  std::uint64_t signature = kMetadataSignature;
  std::uint16_t reserved = 0;
  std::uint16_t entry_count = 0;
  std::array<std::uint8_t, 20> reserved2{};
};
static_assert(sizeof(MetadataTableHeader) == 32);
struct MetadataTableEntry {
  Guid id;
  std::uint32_t offset = 0;
  std::uint32_t length = 0;
  std::uint32_t flags = 0;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(MetadataTableEntry) == 32);
inline constexpr std::uint32_t kMetadataIsUser = 1;
inline constexpr std::uint32_t kMetadataIsVirtualDisk = 2;
inline constexpr std::uint32_t kMetadataIsRequired = 4;

// 2.6.2 Known Metadata Items
inline constexpr Guid kFileParametersItem =
    make_guid(0xCAA16737, 0xFA36, 0x4D43, {0xB3, 0xB6, 0x33, 0xF0, 0xAA, 0x44, 0xE7, 0x6B});
inline constexpr Guid kVirtualDiskSizeItem =
    make_guid(0x2FA54224, 0xCD1B, 0x4876, {0xB2, 0x11, 0x5D, 0xBE, 0xD8, 0x3B, 0xF4, 0xB8});
inline constexpr Guid kVirtualDiskIdItem =
    make_guid(0xBECA12AB, 0xB2E6, 0x4523, {0x93, 0xEF, 0xC3, 0x09, 0xE0, 0x00, 0xC7, 0x46});
inline constexpr Guid kLogicalSectorSizeItem =
    make_guid(0x8141BF1D, 0xA96F, 0x4709, {0xBA, 0x47, 0xF2, 0x33, 0xA8, 0xFA, 0xAB, 0x5F});
inline constexpr Guid kPhysicalSectorSizeItem =
    make_guid(0xCDA348C7, 0x445D, 0x4471, {0x9C, 0xC9, 0xE9, 0x88, 0x52, 0x51, 0xC5, 0x56});
inline constexpr Guid kParentLocatorItem =
    make_guid(0xA8D35F2D, 0xB30B, 0x454D, {0xAB, 0xF7, 0xD3, 0xD8, 0x48, 0x34, 0xAB, 0x0C});
struct FileParameters {  // 2.6.2.1
  std::uint32_t block_size = 0;
  std::uint32_t flags = 0;
};
static_assert(sizeof(FileParameters) == 8);
inline constexpr std::uint32_t kLeaveBlocksAllocated = 1;  // a fixed disk
inline constexpr std::uint32_t kHasParent = 2;
inline constexpr std::uint64_t kMaxDiskSize = 64 * kTiB;  // 2.6.2.2

// Loads a structure from bytes; the caller has checked that they are enough.
template <class T>
T load(Bytes bytes, std::size_t offset = 0) noexcept {
  static_assert(std::is_trivially_copyable_v<T> && std::endian::native == std::endian::little);
  T value;
  std::memcpy(static_cast<void*>(&value), bytes.data() + offset, sizeof value);
  return value;
}
template <class T>
void store(MutableBytes bytes, std::size_t offset, const T& value) noexcept {
  static_assert(std::is_trivially_copyable_v<T> && std::endian::native == std::endian::little);
  std::memcpy(bytes.data() + offset, &value, sizeof value);
}

}  // namespace backhaul::vhdx
