// Differential: every SHA-256 kernel against OpenSSL's one-shot function, CRC-32C against the bitwise one, is_zero
// against a loop. The input is a plan of block lengths and the bytes to take them from:
//   u8 number of blocks (mod 48), then for each u16 little-endian length (mod kBlockSize + 1), the rest is content,
//   repeated as often as a block needs.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "base/endian.h"
#include "checksum/block_digest.h"
#include "checksum/crc32c.h"
#include "checksum/multi_buffer_hasher.h"
#include "tests/unit/checksum/reference.h"

namespace {

using namespace backhaul;

[[noreturn]] void differ(const char* what, std::size_t block, std::size_t bytes) {
  std::fprintf(stderr, "%s differs from the reference at block %zu of %zu bytes\n", what, block, bytes);
  std::abort();
}

const std::vector<std::unique_ptr<BlockHasher>>& hashers() {
  static const auto made = [] {
    std::vector<std::unique_ptr<BlockHasher>> list;
    if (auto hasher = make_block_hasher(HashKernel::one_buffer)) list.push_back(std::move(*hasher));
    for (const auto width : kMultiBufferWidths)
      if (auto hasher = make_multi_buffer_hasher(width)) list.push_back(std::move(*hasher));
    return list;
  }();
  return made;
}

// `length` bytes, at an odd address to catch what relies on alignment: content, repeated.
std::vector<std::byte> repeat(Bytes content, std::size_t length) {
  std::vector<std::byte> bytes(length + 1);
  if (content.empty()) return bytes;
  for (std::size_t at = 0; at < length; at += content.size())
    std::memcpy(bytes.data() + 1 + at, content.data(), std::min(content.size(), length - at));
  return bytes;
}

void check_crc(Bytes data, std::size_t cut) {
  const std::uint32_t expected = reference::crc32c(data);
  if (crc32c(data) != expected) differ("crc32c", 0, data.size());
  if (crc32c_extend(crc32c(data.first(cut)), data.subspan(cut)) != expected) differ("crc32c_extend", 0, data.size());
}

void check_zero(Bytes data) {
  bool zero = true;
  for (const std::byte byte : data) zero = zero && byte == std::byte{0};
  if (is_zero(data) != zero) differ("is_zero", 0, data.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes input = as_bytes(data, size);
  if (input.empty()) return 0;
  const std::size_t count = std::to_integer<std::size_t>(input[0]) % 48;
  input = input.subspan(1);
  std::vector<std::size_t> lengths;
  for (std::size_t i = 0; i < count && input.size() >= 2; ++i, input = input.subspan(2))
    lengths.push_back(load_le<std::uint16_t>(input.data()) % (kBlockSize + 1));

  check_crc(input, lengths.empty() ? input.size() / 2 : lengths[0] % (input.size() + 1));
  check_zero(input);

  std::vector<std::vector<std::byte>> contents;
  std::vector<Bytes> blocks;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    // Another part of the content for each block, so that a digest in the wrong place shows.
    contents.push_back(repeat(input.subspan(i % (input.size() + 1)), lengths[i]));
    blocks.push_back(Bytes(contents.back()).subspan(1));
  }
  std::vector<BlockDigest> expected;
  for (const Bytes block : blocks) expected.push_back(reference::block_digest(block));
  for (const auto& hasher : hashers()) {
    std::vector<BlockDigest> digests(blocks.size());
    hasher->digest(blocks, digests);
    for (std::size_t i = 0; i < blocks.size(); ++i)
      if (digests[i] != expected[i]) differ(hasher->description().data(), i, blocks[i].size());
  }
  return 0;
}
