// The source's lane: what was read is digested, compared and sent.
#include <algorithm>

#include "dataplane/source/source_lane.h"

namespace backhaul {

Bytes SourceLane::content_of(const Chunk& chunk) { return pool_.at(chunk.buffer).subspan(chunk.at, chunk.length); }

// Digests small chunks together, because the hasher is at its best with many blocks; never more than one large chunk's
// before they are sent, so that they are still in the processor's cache then.
void SourceLane::process_chunks(std::span<const std::uint32_t> chunks) {
  while (!chunks.empty()) {
    std::size_t count = 0;
    for (std::uint64_t bytes = 0; count < chunks.size(); ++count) {
      bytes += chunks_[chunks[count]].length;
      if (count > 0 && bytes > kChunkSize) break;
    }
    const auto group = chunks.first(count);
    digest_chunks(group);
    for (const auto number : group) send_chunk(number);
    chunks = chunks.subspan(count);
  }
}

// REQUIRES: no more blocks than one chunk has at most.
void SourceLane::digest_chunks(std::span<const std::uint32_t> chunks) {
  std::array<Bytes, kChunkSize / kBlockSize> blocks;
  std::array<BlockDigest*, kChunkSize / kBlockSize> places;
  std::array<BlockDigest, kChunkSize / kBlockSize> digests;
  std::size_t count = 0;
  for (const auto index : chunks) {
    const auto& chunk = chunks_[index];
    auto& open = *open_.at(chunk.extent);
    const auto content = content_of(chunk);
    auto number = static_cast<std::uint32_t>((chunk.offset - chunk.extent * kExtentSize) / kBlockSize);
    for (std::size_t at = 0; at < content.size(); at += kBlockSize, ++number) {
      const auto block = content.subspan(at, std::min<std::size_t>(kBlockSize, content.size() - at));
      if (is_zero(block)) continue;  // own digest is the zero digest already
      open.own_nonzero.set(number);
      blocks[count] = block;
      places[count++] = &open.own[number];
    }
  }
  if (!digest_) return;
  hasher_.digest(std::span(blocks).first(count), std::span(digests).first(count));
  for (std::size_t i = 0; i < count; ++i) *places[i] = digests[i];
}

bool SourceLane::block_differs(const Open& open, std::uint32_t number) const {
  const bool own = open.own_nonzero.test(number);
  if (!options_.compare) return own || !options_.blank;
  if (open.target_unknown) return true;
  const bool target = open.target_nonzero.test(number);
  return own != target || (own && open.own[number] != open.target[number]);
}

void SourceLane::send_chunk(std::uint32_t index) {
  const auto chunk = chunks_[index];
  free_chunks_.push_back(index);
  auto& open = *open_.at(chunk.extent);
  const auto content = content_of(chunk);
  const auto base = chunk.extent * kExtentSize;
  const auto end = chunk.offset + chunk.length;
  const auto number_at = [&](std::uint64_t at) { return static_cast<std::uint32_t>((at - base) / kBlockSize); };
  for (auto at = chunk.offset; at < end;) {
    const auto number = number_at(at);
    auto until = std::min(at + kBlockSize, end);
    if (!block_differs(open, number)) {
      at = until;
      continue;
    }
    const bool nonzero = open.own_nonzero.test(number);
    std::uint32_t blocks = 1;
    while (until < end && block_differs(open, number_at(until)) && open.own_nonzero.test(number_at(until)) == nonzero) {
      until = std::min(until + kBlockSize, end);
      ++blocks;
    }
    open.changed_blocks += blocks;
    session_.counters().blocks_changed += nonzero ? blocks : 0;
    if (nonzero)
      send_run(chunk.buffer, at, content.subspan(at - chunk.offset, until - at));
    else
      send_zero(at, until - at);
    at = until;
  }
  release(chunk.buffer);
  --open.chunks;
  end_if_complete(chunk.extent, open);
}

void SourceLane::send_run(std::uint32_t buffer, std::uint64_t offset, Bytes content) {
  auto header = make_header(FrameType::data, offset, content.size());
  session_.counters().payload_bytes += content.size();
  if (const auto spare = pool_.take()) {
    const auto size = compress(content, *spare);
    if (size > 0) {
      header.flags = kFrameZstd;
      header.raw_size = static_cast<std::uint32_t>(content.size());
      buffer_uses_[*spare] = 1;
      writer_.push(header, pool_.at(*spare).first(size), *spare);
      charge(size + kFrameHeaderSize);
      return;
    }
    pool_.give(*spare);
  }
  ++buffer_uses_[buffer];
  writer_.push(header, content, buffer);
  charge(content.size() + kFrameHeaderSize);
}

// Into the spare buffer; 0 when the raw content should be sent. `auto` compresses only while the link is what binds.
std::size_t SourceLane::compress(Bytes content, std::uint32_t spare) {
  if (options_.compress == CompressMode::off) return 0;
  const auto limit = options_.limit != nullptr ? options_.limit->bytes_per_s() : 0;
  if (options_.compress == CompressMode::automatic && !gauge_.compression_pays(limit)) return 0;
  const auto started = clock_.now();
  const auto size = compressor_.compress(content, pool_.at(spare));
  if (size > 0) gauge_.compressed(content.size(), size, clock_.now() - started);
  return size;
}

void SourceLane::send_zero(std::uint64_t offset, std::uint64_t length) {
  if (options_.compare) session_.counters().blocks_changed += div_up(length, kBlockSize);
  // One frame is either inside one extent or exactly whole extents; this one is inside.
  writer_.push(make_header(FrameType::zero, offset, length));
}

void SourceLane::charge(std::uint64_t bytes) {
  if (options_.limit == nullptr || options_.limit->unlimited()) return;
  not_before_ = std::max(not_before_, clock_.now() + options_.limit->charge(bytes));
}

void SourceLane::end_if_complete(std::uint64_t extent, Open& open) {
  if (!open.issued || open.chunks > 0 || open.ended) return;
  open.ended = true;
  writer_.push(make_header(FrameType::extent_end, extent * kExtentSize, extent_length(extent)));
}

void SourceLane::release(std::uint32_t buffer) {
  if (--buffer_uses_[buffer] == 0) pool_.give(buffer);
}

}  // namespace backhaul
