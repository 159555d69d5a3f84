#include "dataplane/target/target_io.h"

#include <cerrno>

namespace backhaul {

TargetIo::TargetIo(TargetSession& session, IoQueue& queue, BlockHasher& hasher, TargetExtents& extents)
    : session_(session),
      queue_(queue),
      hasher_(hasher),
      extents_(extents),
      pool_(kLaneBuffers, kChunkSize),
      ops_(kLaneQueueDepth) {
  for (std::uint32_t i = kLaneQueueDepth; i > 0; --i) free_ops_.push_back(i - 1);
  queue_.register_memory(pool_.memory());
}

std::uint32_t TargetIo::start(const Op& op) {
  const auto number = free_ops_.back();
  free_ops_.pop_back();
  ops_[number] = op;
  return number;
}

void TargetIo::read(TargetExtent& extent, const ByteRange& chunk, std::uint64_t file_offset,
                    const BufferPool::Place& place) {
  ++extent.reads;
  queue_.read(session_.disk().file().native(), file_offset, pool_.at(place, chunk.length),
              start({&extent, chunk.offset, chunk.length, place}));
}

void TargetIo::write(TargetExtent& extent, std::uint64_t offset, std::uint64_t file_offset, std::uint32_t buffer,
                     Bytes content) {
  ++extent.writes;
  pool_.hold(buffer);
  queue_.write(session_.disk().file().native(), file_offset, content,
               start({&extent, offset, content.size(), {buffer, 0}, true}));
}

Result<void> TargetIo::complete(std::span<const Completion> completions) {
  // First give every op back, so that an error leaves nothing that looks in flight.
  std::optional<Error> failed;
  reads_.clear();
  for (const auto& completion : completions) {
    const auto& op = ops_[completion.tag];
    free_ops_.push_back(static_cast<std::uint32_t>(completion.tag));
    if (completion.error != 0 || completion.bytes < op.length) {
      const auto what = op.write ? "write target disk " : "read target disk ";
      if (!failed)
        failed = Error::from_errno(completion.error != 0 ? completion.error : EIO,
                                   what + session_.request().disk + " at " + std::to_string(op.offset));
    } else if (op.write) {
      pool_.release(op.place.buffer);
      --op.extent->writes;
    } else {
      reads_.push_back(op);
    }
  }
  if (failed) return std::move(*failed);
  digest_in_groups(
      std::span<const Op>(reads_), &hasher_,
      [&](DigestBatch& batch, const Op& op) {
        batch.add(op.extent->content, op.extent->block_at(op.offset), pool_.at(op.place, op.length));
      },
      [&](const Op& op) {
        pool_.release(op.place.buffer);
        if (--op.extent->reads == 0 && op.extent->state() == TargetExtentState::reading) extents_.answer(*op.extent);
      });
  return {};
}

Result<void> TargetIo::wait() {
  BH_TRY(const auto completions, queue_.wait(nullptr, std::chrono::seconds(1)));
  return complete(completions);
}

}  // namespace backhaul
