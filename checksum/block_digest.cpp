#include "checksum/block_digest.h"

#include <isa-l/mem_routines.h>

#include <cassert>
#include <cstdlib>
#include <cstring>
#include <string>

#include "checksum/multi_buffer_hasher.h"
#include "checksum/sha256_stream.h"

namespace backhaul {
namespace {

Sha256Stream& thread_stream() noexcept {
  thread_local Sha256Stream stream;
  return stream;
}

BlockDigest cut(const Sha256& full) noexcept {
  BlockDigest digest;
  std::memcpy(digest.bytes.data(), full.bytes.data(), sizeof digest);
  return digest;
}

class OneBufferHasher final : public BlockHasher {
 public:
  std::string_view description() const noexcept override { return "SHA-256 one buffer (OpenSSL EVP)"; }

  void digest(std::span<const Bytes> blocks, std::span<BlockDigest> digests) override {
    assert(blocks.size() == digests.size());
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      assert(blocks[i].size() <= kBlockSize);
      stream_.update(blocks[i]);
      digests[i] = cut(stream_.finish());
    }
  }

 private:
  Sha256Stream stream_;
};

}  // namespace

Sha256 sha256(Bytes data) noexcept {
  Sha256Stream& stream = thread_stream();
  stream.update(data);
  return stream.finish();
}

std::string to_hex(Bytes data) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * data.size());
  for (const std::byte byte : data) {
    text += kDigits[std::to_integer<unsigned>(byte) >> 4];
    text += kDigits[std::to_integer<unsigned>(byte) & 15];
  }
  return text;
}

std::string_view to_string(HashKernel kernel) noexcept {
  return kernel == HashKernel::multi_buffer ? "multi-buffer" : "one-buffer";
}

Result<HashKernel> choose_hash_kernel(const CpuFeatures& features, std::string_view wanted) {
  for (const HashKernel kernel : {HashKernel::multi_buffer, HashKernel::one_buffer})
    if (wanted == to_string(kernel)) return kernel;
  if (!wanted.empty())
    return Error(BaseErrc::invalid_argument,
                 "BACKHAUL_HASH_KERNEL is \"" + std::string(wanted) + "\"; it can be multi-buffer or one-buffer");
  // Each of the library's widths beats one buffer on the same CPU: 2.0 times with AVX-512 and 1.9 with two SHA-NI lanes
  // where OpenSSL has SHA-NI too; without it 3.4 times with AVX2 and 1.8 with SSE (bench/checksum_bench.cpp).
  return features.multi_buffer ? HashKernel::multi_buffer : HashKernel::one_buffer;
}

Result<HashKernel> select_hash_kernel() {
  static const Result<HashKernel> selected = [] {
    const char* const wanted = std::getenv("BACKHAUL_HASH_KERNEL");
    return choose_hash_kernel(detect_cpu_features(), wanted == nullptr ? "" : wanted);
  }();
  return selected;
}

Result<std::unique_ptr<BlockHasher>> make_block_hasher(HashKernel kernel) {
  if (kernel == HashKernel::multi_buffer) return make_multi_buffer_hasher(MultiBufferWidth::automatic);
  return std::unique_ptr<BlockHasher>(std::make_unique<OneBufferHasher>());
}

bool is_zero(Bytes data) noexcept {
  // The parameter lacks its const; ISA-L only reads.
  return data.empty() || isal_zero_detect(const_cast<std::byte*>(data.data()), data.size()) == 0;
}

BlockDigest zero_block_digest(std::uint64_t size_bytes) {
  assert(size_bytes >= 1 && size_bytes <= kBlockSize);
  static const std::array<std::byte, kBlockSize> zeros{};
  static const BlockDigest whole = cut(sha256(zeros));
  return size_bytes == kBlockSize ? whole : cut(sha256(std::span(zeros).first(size_bytes)));
}

}  // namespace backhaul
