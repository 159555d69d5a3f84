#include "dataplane/source/source_sender.h"

#include <algorithm>

namespace backhaul {

SourceSender::SourceSender(SourceSession& session, const SourceLaneOptions& options, FrameWriter& writer,
                           BufferPool& pool, BlockHasher& hasher, Clock& clock)
    : session_(session),
      options_(options),
      writer_(writer),
      pool_(pool),
      hasher_(hasher),
      clock_(clock),
      headers_(options.epoch, session.disk().size()),
      digest_(options.compare || session.verify() != VerifyMode::none),
      compressor_(options.compress) {}

void SourceSender::send(std::span<const SourceChunk> chunks) {
  digest_in_groups(
      chunks, digest_ ? &hasher_ : nullptr,
      [&](DigestBatch& batch, const SourceChunk& chunk) {
        batch.add(chunk.extent->own, chunk.extent->block_at(chunk.offset), pool_.at(chunk.place, chunk.length));
      },
      [&](const SourceChunk& chunk) { send_chunk(chunk); });
}

bool SourceSender::differs(const SourceExtent& extent, std::uint32_t block) const {
  const bool own = extent.own.nonzero.test(block);
  if (!options_.compare) return own || !options_.blank;
  if (extent.target_unknown) return true;
  const bool target = extent.target.nonzero.test(block);
  return own != target || (own && extent.own.digests[block] != extent.target.digests[block]);
}

void SourceSender::send_chunk(const SourceChunk& chunk) {
  auto& extent = *chunk.extent;
  const auto content = pool_.at(chunk.place, chunk.length);
  const auto end = chunk.offset + chunk.length;
  for (auto at = chunk.offset; at < end;) {
    const auto block = extent.block_at(at);
    auto until = std::min(at + kBlockSize, end);
    if (!differs(extent, block)) {
      at = until;
      continue;
    }
    const bool nonzero = extent.own.nonzero.test(block);
    std::uint32_t blocks = 1;
    while (until < end && differs(extent, block + blocks) && extent.own.nonzero.test(block + blocks) == nonzero) {
      until = std::min(until + kBlockSize, end);
      ++blocks;
    }
    extent.changed_blocks += blocks;
    session_.counters().blocks_changed += nonzero ? blocks : 0;
    if (nonzero)
      send_run(chunk.place.buffer, at, content.subspan(at - chunk.offset, until - at));
    else
      send_zero(at, until - at);
    at = until;
  }
  pool_.release(chunk.place.buffer);
  --extent.chunks;
  end_if_complete(extent);
}

// The content of a hole is known: its own digests are the zero digests already.
void SourceSender::send_hole(SourceExtent& extent, std::uint64_t from, std::uint64_t to) {
  auto run_begin = to;
  for (auto at = from; at < to; at += kBlockSize) {
    if (differs(extent, extent.block_at(at))) {
      run_begin = std::min(run_begin, at);
      ++extent.changed_blocks;
      continue;
    }
    if (run_begin < at) send_zero(run_begin, at - run_begin);
    run_begin = to;
  }
  if (run_begin < to) send_zero(run_begin, to - run_begin);
}

void SourceSender::send_run(std::uint32_t buffer, std::uint64_t offset, Bytes content) {
  auto header = headers_.make(FrameType::data, ByteRange{offset, content.size()});
  session_.counters().payload_bytes += content.size();
  if (const auto spare = pool_.take()) {
    const auto size = compress(content, *spare);
    if (size > 0) {
      header.flags = kFrameZstd;
      header.raw_size = static_cast<std::uint32_t>(content.size());
      writer_.push(header, pool_.at(*spare).first(size), *spare);
      charge(size + kFrameHeaderSize);
      return;
    }
    pool_.release(*spare);
  }
  pool_.hold(buffer);
  writer_.push(header, content, buffer);
  charge(content.size() + kFrameHeaderSize);
}

// Into the spare buffer; 0 when the raw content should be sent. `auto` compresses only while the link is what binds.
std::size_t SourceSender::compress(Bytes content, std::uint32_t spare) {
  if (options_.compress == CompressMode::off) return 0;
  const auto limit = options_.limit != nullptr ? options_.limit->bytes_per_s() : 0;
  if (options_.compress == CompressMode::automatic && !gauge_.compression_pays(limit)) return 0;
  const auto started = clock_.now();
  const auto size = compressor_.compress(content, pool_.at(spare));
  if (size > 0) gauge_.compressed(content.size(), size, clock_.now() - started);
  return size;
}

void SourceSender::send_zero(std::uint64_t offset, std::uint64_t length) {
  if (options_.compare) session_.counters().blocks_changed += div_up(length, kBlockSize);
  // One frame is either inside one extent or exactly whole extents; this one is inside.
  writer_.push(headers_.make(FrameType::zero, ByteRange{offset, length}));
}

void SourceSender::charge(std::uint64_t bytes) {
  if (options_.limited()) not_before_ = std::max(not_before_, clock_.now() + options_.limit->charge(bytes));
}

void SourceSender::end_if_complete(SourceExtent& extent) {
  if (extent.state() != SourceExtentState::sending || extent.chunks > 0) return;
  extent.become(SourceExtentState::ended);
  writer_.push(headers_.make(FrameType::extent_end, extent));
}

Result<bool> SourceSender::pump(const ByteStream& stream, bool& progressed) {
  BH_TRY(const bool out, writer_.pump());
  gauge_.pushed(clock_.now(), stream.wire_bytes_sent(), !out);
  for (const auto token : writer_.take_released()) {
    pool_.release(static_cast<std::uint32_t>(token));
    progressed = true;
  }
  return out;
}

}  // namespace backhaul
