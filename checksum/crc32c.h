// CRC-32C (Castagnoli, RFC 3720 appendix B.4; reflected, initial value and final xor all ones), by ISA-L.
// Pure functions, any thread.
#pragma once

#include <cstdint>

#include "base/buffer.h"

namespace backhaul {

// CRC-32C of `data`; crc32c("123456789") == 0xE3069283.
std::uint32_t crc32c(Bytes data) noexcept;

// Continues a CRC: crc32c_extend(crc32c(a), b) == crc32c(a + b); crc32c_extend(0, a) == crc32c(a).
std::uint32_t crc32c_extend(std::uint32_t crc, Bytes data) noexcept;

}  // namespace backhaul
