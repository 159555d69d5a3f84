// The content of one extent as an end of a transfer knows it: how it is made of what was read, and how it travels in a
// `digests` frame. A lane's; one thread.
#pragma once

#include <bitset>
#include <span>
#include <vector>

#include "checksum/block_digest.h"
#include "dataplane/protocol/transfer.h"

namespace backhaul {

using ExtentBlocks = std::bitset<kBlocksPerExtent>;

struct ExtentContent {
  // All zero.
  explicit ExtentContent(std::uint64_t length_bytes);
  void set_zero(std::uint32_t block, std::uint64_t length_bytes) {
    nonzero.reset(block);
    digests[block] = zero_block_digest(length_bytes);
  }

  ExtentDigests digests{};  // of a zero block the zero digest
  ExtentBlocks nonzero;
};

// The payload of a `digests` frame (docs/wire_protocol.md): a bit for each block, then the digests of those with one.
std::vector<std::byte> encode_digests(const ExtentContent& content);
// What it does not name stays as it was: zero. REQUIRES: check_digests_payload() took it, and it is not empty.
void decode_digests(Bytes payload, ExtentContent& content) noexcept;

// The blocks of several reads, digested together, because a hasher is at its best with many.
class DigestBatch {
 public:
  // `read` is the content of whole blocks (the disk's last may be short), from `first_block` of the extent on.
  // REQUIRES: no more blocks than a chunk has until the next digest(); both stay until then.
  void add(ExtentContent& content, std::uint32_t first_block, Bytes read);
  // Without a hasher it is only known which blocks are zero.
  void digest(BlockHasher* hasher);

 private:
  static constexpr std::size_t kMaxBlocks = kChunkSize / kBlockSize;
  std::array<Bytes, kMaxBlocks> blocks_;
  std::array<BlockDigest*, kMaxBlocks> places_;
  std::size_t count_ = 0;
};

// Takes reads in groups of one large chunk's bytes at most, so that they are still in the processor's cache when `done`
// is called: `add(batch, read)` for each of a group, the digests, then `done(read)` for each. A read has a `length` of
// one chunk at most.
template <typename Read, typename Add, typename Done>
void digest_in_groups(std::span<const Read> reads, BlockHasher* hasher, Add add, Done done) {
  DigestBatch batch;
  for (std::size_t first = 0; first < reads.size();) {
    std::size_t next = first;
    for (std::uint64_t bytes = 0; next < reads.size(); ++next) {
      bytes += reads[next].length;
      if (next > first && bytes > kChunkSize) break;
      add(batch, reads[next]);
    }
    batch.digest(hasher);
    for (; first < next; ++first) done(reads[first]);
  }
}

}  // namespace backhaul
