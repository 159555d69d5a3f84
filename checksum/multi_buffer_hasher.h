// SHA-256 of many blocks at once by libipsec-mb's job API. select_hash_kernel() and make_block_hasher() decide whether
// it is used; tests and benches run each width.
#pragma once

#include <array>
#include <memory>
#include <string_view>

#include "base/error.h"
#include "checksum/block_digest.h"

namespace backhaul {

// The library's implementations, by the CPU features that they need.
enum class MultiBufferWidth {
  automatic,  // the widest that this CPU has
  avx512,     // 16 lanes
  avx2,       // 8 lanes, SHA instructions not used
  sha_ni,     // 2 lanes with the SHA instructions
  sse,        // 4 lanes, SHA instructions not used
};
inline constexpr std::array kMultiBufferWidths = {MultiBufferWidth::automatic, MultiBufferWidth::avx512,
                                                  MultiBufferWidth::avx2, MultiBufferWidth::sha_ni,
                                                  MultiBufferWidth::sse};
std::string_view to_string(MultiBufferWidth width) noexcept;

// Each hasher owns one library state (200 KiB). Error: BaseErrc::unsupported if this CPU lacks the width.
Result<std::unique_ptr<BlockHasher>> make_multi_buffer_hasher(MultiBufferWidth width);

// What the library found in this CPU.
CpuFeatures detect_cpu_features() noexcept;

}  // namespace backhaul
