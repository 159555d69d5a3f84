#include "dataplane/scan/scan.h"

#include <algorithm>
#include <mutex>
#include <thread>

#include "checksum/root_digest.h"
#include "dataplane/disk/buffer_pool.h"
#include "dataplane/protocol/transfer.h"

namespace backhaul {
namespace {

// One thread's read-ahead: two extents of 4 MiB.
constexpr std::uint32_t kScanExtents = 2;

struct Shared {
  Disk& disk;
  const ScanOptions& options;
  std::uint64_t extents;
  std::mutex mutex;
  std::uint64_t cursor = 0;  // next extent to hand out
  RootDigest root;
  std::uint64_t covered_bytes = 0;
  bool failed = false;
  std::optional<Error> error;
};

void fail(Shared& shared, Error error) {
  const std::lock_guard lock(shared.mutex);
  if (!shared.failed) shared.error = std::move(error);
  shared.failed = true;
}

// The next extent to read, after adding the holes before it; nothing when none is left.
Result<std::optional<std::uint64_t>> claim(Shared& shared) {
  const std::lock_guard lock(shared.mutex);
  if (shared.options.stop != nullptr && shared.options.stop->load()) return make_error(BaseErrc::cancelled);
  while (!shared.failed && shared.cursor < shared.extents) {
    BH_TRY(const auto run, shared.disk.next_data(shared.cursor * kExtentSize));
    const auto first = run ? std::min(run->offset / kExtentSize, shared.extents) : shared.extents;
    if (first > shared.cursor) {
      const auto from = shared.cursor;
      shared.root.add_zero_run(from, first - from);
      if (shared.options.visit) BH_RETURN_IF_ERROR(shared.options.visit(from, first - from, nullptr));
      shared.covered_bytes += (first - from) * kExtentSize;
      shared.cursor = first;
      continue;
    }
    return std::optional<std::uint64_t>(shared.cursor++);
  }
  return std::optional<std::uint64_t>();
}

struct Slot {
  std::uint64_t extent = 0;
  unsigned reads_left = 0;
  bool busy = false;
};

class Scanner {
 public:
  Scanner(Shared& shared, IoQueue& queue, BlockHasher& hasher)
      : shared_(shared), queue_(queue), hasher_(hasher), memory_(kScanExtents * kExtentSize) {
    queue_.register_memory(memory_.span());
  }

  Result<void> run() {
    bool more = true;
    while (true) {
      for (std::uint32_t i = 0; i < kScanExtents && more; ++i) {
        if (slots_[i].busy) continue;
        BH_TRY(const auto extent, claim(shared_));
        more = extent.has_value();
        if (extent) BH_RETURN_IF_ERROR(start(i, *extent));
      }
      for (std::uint32_t i = 0; i < kScanExtents; ++i)
        if (slots_[i].busy && slots_[i].reads_left == 0) BH_RETURN_IF_ERROR(complete(i));
      const bool busy = std::any_of(slots_.begin(), slots_.end(), [](const Slot& slot) { return slot.busy; });
      if (!busy && !more) return {};
      if (queue_.in_flight() == 0) continue;
      BH_TRY(const auto completions, queue_.wait(nullptr, std::chrono::seconds(1)));
      for (const auto& completion : completions) {
        BH_RETURN_IF_ERROR(take(completion));
      }
    }
  }

 private:
  MutableBytes memory(std::uint32_t slot, std::uint64_t offset, std::uint64_t length) {
    return memory_.span().subspan(slot * kExtentSize + offset, length);
  }

  Result<void> start(std::uint32_t i, std::uint64_t extent) {
    auto& slot = slots_[i];
    slot = {extent, 0, true};
    const auto begin = extent * kExtentSize;
    const auto end = std::min(begin + kExtentSize, shared_.disk.size());
    auto at = begin;
    while (at < end) {
      const auto segment = shared_.disk.map(at, std::min(end - at, static_cast<std::uint64_t>(kChunkSize)));
      auto into = memory(i, at - begin, segment.length);
      if (segment.kind == Segment::Kind::zero) {
        std::fill(into.begin(), into.end(), std::byte{0});
      } else {
        while (queue_.in_flight() >= queue_.capacity()) BH_RETURN_IF_ERROR(reap());
        queue_.read(shared_.disk.file().native(), segment.file_offset, into, std::uint64_t{i} << 32 | segment.length);
        ++slot.reads_left;
      }
      at += segment.length;
    }
    return {};
  }

  Result<void> take(const Completion& completion) {
    const auto& name = shared_.disk.file().name();
    const auto extent = slots_[completion.tag >> 32].extent;
    if (completion.error != 0)
      return Error::from_errno(completion.error,
                               "read " + name + " in the extent at " + std::to_string(extent * kExtentSize));
    if (completion.bytes < static_cast<std::uint32_t>(completion.tag))
      return make_error(IoErrc::unexpected_end, name + " became shorter");
    --slots_[completion.tag >> 32].reads_left;
    return {};
  }

  Result<void> reap() {
    BH_TRY(const auto completions, queue_.wait(nullptr, std::chrono::seconds(1)));
    for (const auto& completion : completions) {
      BH_RETURN_IF_ERROR(take(completion));
    }
    return {};
  }

  Result<void> complete(std::uint32_t i) {
    auto& slot = slots_[i];
    const auto size = shared_.disk.size();
    const auto blocks = blocks_in_extent(size, slot.extent);
    ExtentDigests digests{};
    std::array<Bytes, kBlocksPerExtent> data;
    for (std::uint32_t b = 0; b < blocks; ++b)
      data[b] = memory(i, b * kBlockSize, block_length(size, slot.extent * kBlocksPerExtent + b));
    hasher_.digest(std::span(data).first(blocks), std::span(digests).first(blocks));
    if (shared_.options.visit) BH_RETURN_IF_ERROR(shared_.options.visit(slot.extent, 1, &digests));
    const auto digest = extent_digest(std::span(digests).first(blocks));
    slot.busy = false;
    const std::lock_guard lock(shared_.mutex);
    shared_.root.add(slot.extent, digest);
    shared_.covered_bytes += kExtentSize;
    if (shared_.options.progress) BH_RETURN_IF_ERROR(shared_.options.progress(std::min(shared_.covered_bytes, size)));
    return {};
  }

  Shared& shared_;
  IoQueue& queue_;
  BlockHasher& hasher_;
  AlignedBuffer memory_;
  std::array<Slot, kScanExtents> slots_{};
};

void scan_thread(Shared& shared, const DataplaneParts& parts) {
  auto queue = make_queue_for(shared.disk.file(), parts);
  if (!queue) return fail(shared, std::move(queue).error());
  auto hasher = parts.make_hasher();
  if (!hasher) return fail(shared, std::move(hasher).error());
  {
    Scanner scanner(shared, **queue, **hasher);
    auto result = scanner.run();
    // The memory must outlive what the kernel still fills.
    while ((*queue)->in_flight() > 0)
      if (!(*queue)->wait(nullptr, std::chrono::seconds(1))) break;
    if (!result) fail(shared, std::move(result).error());
    queue->reset();
  }
}

}  // namespace

Result<Sha256> scan_disk(Disk& disk, const DataplaneParts& parts, const ScanOptions& options) {
  Shared shared{disk, options, extent_count(disk.size()), {}, 0, RootDigest(disk.size()), 0, false, {}};
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < options.threads; ++i) threads.emplace_back([&] { scan_thread(shared, parts); });
  scan_thread(shared, parts);
  for (auto& thread : threads) thread.join();
  if (shared.failed) return std::move(*shared.error);
  return shared.root.finish();
}

}  // namespace backhaul
