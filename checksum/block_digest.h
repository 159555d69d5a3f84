// Digests of blocks: SHA-256 (FIPS 180-4) cut to its first 128 bits. Callers digest many blocks at once: a batch keeps
// the multi-buffer lanes full. A BlockHasher belongs to one lane's thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/buffer.h"
#include "base/error.h"
#include "base/units.h"

namespace backhaul {

struct BlockDigest {
  std::array<std::byte, 16> bytes{};
  friend bool operator==(const BlockDigest&, const BlockDigest&) = default;
};
static_assert(sizeof(BlockDigest) == 16);
using ExtentDigests = std::array<BlockDigest, kBlocksPerExtent>;  // a short last extent uses the first ones

struct Sha256 {
  std::array<std::byte, 32> bytes{};
  friend bool operator==(const Sha256&, const Sha256&) = default;
};

// SHA-256 of `data` in one go (OpenSSL). For metadata and roots, not for the path of a block.
Sha256 sha256(Bytes data) noexcept;
// Lower-case hexadecimal.
std::string to_hex(Bytes data);
inline std::string to_hex(const Sha256& digest) { return to_hex(std::span(digest.bytes)); }
inline std::string to_hex(const BlockDigest& digest) { return to_hex(std::span(digest.bytes)); }

enum class HashKernel {
  multi_buffer,  // libipsec-mb's job API, the widest its CPU detection allows
  one_buffer,    // OpenSSL EVP, one block after the other
};
std::string_view to_string(HashKernel kernel) noexcept;

// The CPU features that decide between the kernels.
struct CpuFeatures {
  bool multi_buffer = false;  // the least that libipsec-mb asks for: SSE4.2, AES-NI, PCLMULQDQ
};
// select_hash_kernel()'s rule as a pure function. `wanted` is a kernel's name, or empty.
Result<HashKernel> choose_hash_kernel(const CpuFeatures& features, std::string_view wanted);

// The kernel for this CPU. BACKHAUL_HASH_KERNEL=multi-buffer|one-buffer overrides the CPU features; an unknown name in
// it is an error. Decided once.
Result<HashKernel> select_hash_kernel();

class BlockHasher {
 public:
  virtual ~BlockHasher() = default;
  // What runs below ("SHA-256 AVX512 x16 (libipsec-mb 1.3.0)"), for the log.
  virtual std::string_view description() const noexcept = 0;
  // digests[i] = digest of blocks[i]. REQUIRES: as many digests as blocks; each block has 0 to
  // kBlockSize bytes (they may differ in length).
  virtual void digest(std::span<const Bytes> blocks, std::span<BlockDigest> digests) = 0;
};

// Error: BaseErrc::unsupported if the kernel cannot run here.
Result<std::unique_ptr<BlockHasher>> make_block_hasher(HashKernel kernel);

// Whether every byte is zero. Stops at the first that is not.
bool is_zero(Bytes data) noexcept;

// Digest of a block of `size_bytes` zero bytes (1 to kBlockSize). A whole block's is computed once.
BlockDigest zero_block_digest(std::uint64_t size_bytes = kBlockSize);

}  // namespace backhaul
