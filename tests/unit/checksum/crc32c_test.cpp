#include "checksum/crc32c.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/unit/checksum/reference.h"

namespace backhaul {
namespace {

using reference::random_bytes;
using reference::text_bytes;

std::array<std::byte, 32> filled(int first, int step) {
  std::array<std::byte, 32> bytes;
  for (int i = 0; i < 32; ++i) bytes[static_cast<std::size_t>(i)] = static_cast<std::byte>(first + i * step);
  return bytes;
}

// RFC 3720 appendix B.4 lists the CRC as bytes in the order they are sent; here as the little-endian number.
TEST(Crc32c, GivesTheVectorsOfRfc3720) {
  EXPECT_EQ(crc32c(filled(0x00, 0)), 0x8A9136AAU);
  EXPECT_EQ(crc32c(filled(0xFF, 0)), 0x62A8AB43U);
  EXPECT_EQ(crc32c(filled(0x00, 1)), 0x46DD794EU);
  EXPECT_EQ(crc32c(filled(0x1F, -1)), 0x113FDB5CU);
  const std::array<unsigned char, 48> scsi_read = {
      0x01, 0xC0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
      0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18,
      0x28, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00};
  EXPECT_EQ(crc32c(as_bytes(scsi_read.data(), scsi_read.size())), 0xD9963A56U);
}

TEST(Crc32c, GivesTheCheckValue) { EXPECT_EQ(crc32c(text_bytes("123456789")), 0xE3069283U); }

TEST(Crc32c, OfNothingIsZero) {
  EXPECT_EQ(crc32c({}), 0U);
  EXPECT_EQ(crc32c_extend(0x12345678, {}), 0x12345678U);
}

TEST(Crc32c, AgreesWithBitByBitAtEveryLengthAndAlignment) {
  const auto data = random_bytes(5000, 1);
  for (std::size_t offset : {0, 1, 3, 7, 8, 15}) {
    for (std::size_t length = 0; length < 300; ++length) {
      const Bytes part = Bytes(data).subspan(offset, length);
      ASSERT_EQ(crc32c(part), reference::crc32c(part)) << "offset " << offset << " length " << length;
    }
    const Bytes rest = Bytes(data).subspan(offset);
    ASSERT_EQ(crc32c(rest), reference::crc32c(rest)) << "offset " << offset;
  }
}

TEST(Crc32c, AgreesWithBitByBitOnABlock) {
  const auto data = random_bytes(kBlockSize, 2);
  EXPECT_EQ(crc32c(data), reference::crc32c(data));
}

TEST(Crc32c, GoesOnWhereverTheDataIsCut) {
  const auto data = random_bytes(777, 3);
  const std::uint32_t whole = reference::crc32c(data);
  for (std::size_t cut = 0; cut <= data.size(); ++cut)
    ASSERT_EQ(crc32c_extend(crc32c(Bytes(data).first(cut)), Bytes(data).subspan(cut)), whole) << "cut at " << cut;
}

TEST(Crc32c, ExtendOfZeroStartsAnew) {
  const auto data = random_bytes(100, 4);
  EXPECT_EQ(crc32c_extend(0, data), crc32c(data));
}

}  // namespace
}  // namespace backhaul
