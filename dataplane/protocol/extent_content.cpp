#include "dataplane/protocol/extent_content.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace backhaul {
namespace {

constexpr std::size_t kBitmapBytes = kBlocksPerExtent / 8;

}  // namespace

ExtentContent::ExtentContent(std::uint64_t length_bytes) {
  for (std::uint64_t block = 0, at = 0; at < length_bytes; ++block, at += kBlockSize)
    digests[block] = zero_block_digest(std::min(kBlockSize, length_bytes - at));
}

std::vector<std::byte> encode_digests(const ExtentContent& content) {
  std::vector<std::byte> payload(kBitmapBytes + content.nonzero.count() * sizeof(BlockDigest));
  auto* at = payload.data() + kBitmapBytes;
  for (std::size_t b = 0; b < kBlocksPerExtent; ++b) {
    if (!content.nonzero.test(b)) continue;
    payload[b / 8] |= static_cast<std::byte>(1U << (b % 8));
    std::memcpy(at, content.digests[b].bytes.data(), sizeof(BlockDigest));
    at += sizeof(BlockDigest);
  }
  return payload;
}

void decode_digests(Bytes payload, ExtentContent& content) noexcept {
  const auto* at = payload.data() + kBitmapBytes;
  for (std::size_t b = 0; b < kBlocksPerExtent; ++b) {
    if ((static_cast<unsigned>(payload[b / 8]) >> (b % 8) & 1U) == 0) continue;
    content.nonzero.set(b);
    std::memcpy(content.digests[b].bytes.data(), at, sizeof(BlockDigest));
    at += sizeof(BlockDigest);
  }
}

void DigestBatch::add(ExtentContent& content, std::uint32_t first_block, Bytes read) {
  for (auto block = first_block; !read.empty(); ++block) {
    const auto one = read.first(std::min<std::size_t>(kBlockSize, read.size()));
    read = read.subspan(one.size());
    if (is_zero(one)) {
      content.set_zero(block, one.size());
      continue;
    }
    assert(count_ < kMaxBlocks);
    content.nonzero.set(block);
    blocks_[count_] = one;
    places_[count_++] = &content.digests[block];
  }
}

void DigestBatch::digest(BlockHasher* hasher) {
  const auto count = std::exchange(count_, 0);
  if (hasher == nullptr) return;
  std::array<BlockDigest, kMaxBlocks> digests;
  hasher->digest(std::span(blocks_).first(count), std::span(digests).first(count));
  for (std::size_t i = 0; i < count; ++i) *places_[i] = digests[i];
}

}  // namespace backhaul
