#include "checksum/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>

namespace backhaul {
namespace {

// ISA-L takes an int length. A multiple of a cache line keeps the later pieces as aligned as `data`.
constexpr std::size_t kMaxPiece = std::size_t{1} << 30;

}  // namespace

std::uint32_t crc32c(Bytes data) noexcept { return crc32c_extend(0, data); }

std::uint32_t crc32c_extend(std::uint32_t crc, Bytes data) noexcept {
  // ISA-L works on the raw register: the initial value and the final xor (both all ones) are ours.
  std::uint32_t raw = ~crc;
  while (!data.empty()) {
    const Bytes piece = data.first(std::min(data.size(), kMaxPiece));
    // The parameter lacks its const; ISA-L only reads.
    raw = crc32_iscsi(reinterpret_cast<unsigned char*>(const_cast<std::byte*>(piece.data())),
                      static_cast<int>(piece.size()), raw);
    data = data.subspan(piece.size());
  }
  return ~raw;
}

}  // namespace backhaul
