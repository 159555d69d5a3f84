// Bytes per second of each checksum, each beside its ceiling: the bare library call on the same bytes.
// CPU time is what counts on a shared machine: compare the CPU column and the rates, which are per CPU second.
#include <benchmark/benchmark.h>
#include <intel-ipsec-mb.h>
#include <isa-l/crc.h>

#include <cstring>
#include <vector>

#include "checksum/block_digest.h"
#include "checksum/crc32c.h"
#include "checksum/multi_buffer_hasher.h"
#include "checksum/root_digest.h"

namespace backhaul {
namespace {

// One extent of bytes that are not zero: fits the second-level cache of no core, as in a transfer.
AlignedBuffer extent_of_data() {
  AlignedBuffer buffer(kExtentSize);
  for (std::size_t i = 0; i < buffer.size(); ++i) buffer.data()[i] = static_cast<std::byte>(i * 131 + i / 251 + 1);
  return buffer;
}

std::vector<Bytes> blocks_of(const AlignedBuffer& buffer, std::size_t count) {
  std::vector<Bytes> blocks;
  for (std::size_t i = 0; i < count; ++i) blocks.push_back(buffer.span().subspan(i * kBlockSize, kBlockSize));
  return blocks;
}

void set_bytes(benchmark::State& state, std::uint64_t each) {
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(each));
}

void crc32c_bare_isal(benchmark::State& state) {
  AlignedBuffer buffer = extent_of_data();
  const int length = static_cast<int>(state.range(0));
  for (auto _ : state)
    benchmark::DoNotOptimize(~crc32_iscsi(reinterpret_cast<unsigned char*>(buffer.data()), length, ~0U));
  set_bytes(state, static_cast<std::uint64_t>(length));
}
BENCHMARK(crc32c_bare_isal)->Arg(4096)->Arg(kBlockSize)->Arg(kExtentSize);

void crc32c_ours(benchmark::State& state) {
  const AlignedBuffer buffer = extent_of_data();
  const Bytes data = buffer.span().first(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(crc32c(data));
  set_bytes(state, data.size());
}
BENCHMARK(crc32c_ours)->Arg(4096)->Arg(kBlockSize)->Arg(kExtentSize);

void sha256_bare_job_loop(benchmark::State& state) {
  const AlignedBuffer buffer = extent_of_data();
  const auto count = static_cast<std::size_t>(state.range(0));
  std::vector<Sha256> digests(count);
  IMB_MGR* const mgr = alloc_mb_mgr(0);
  init_mb_mgr_auto(mgr, nullptr);
  for (auto _ : state) {
    for (std::size_t i = 0; i < count; ++i) {
      IMB_JOB* job = IMB_GET_NEXT_JOB(mgr);
      job->cipher_mode = IMB_CIPHER_NULL;
      job->chain_order = IMB_ORDER_HASH_CIPHER;
      job->hash_alg = IMB_AUTH_SHA_256;
      job->src = reinterpret_cast<const std::uint8_t*>(buffer.data() + i * kBlockSize);
      job->hash_start_src_offset_in_bytes = 0;
      job->msg_len_to_hash_in_bytes = kBlockSize;
      job->auth_tag_output = reinterpret_cast<std::uint8_t*>(digests[i].bytes.data());
      job->auth_tag_output_len_in_bytes = sizeof(Sha256);
      for (job = IMB_SUBMIT_JOB(mgr); job != nullptr;) job = IMB_GET_COMPLETED_JOB(mgr);
    }
    while (IMB_FLUSH_JOB(mgr) != nullptr) continue;
    benchmark::DoNotOptimize(digests.data());
  }
  free_mb_mgr(mgr);
  set_bytes(state, count * kBlockSize);
}
BENCHMARK(sha256_bare_job_loop)->Arg(1)->Arg(8)->Arg(16)->Arg(20)->Arg(kBlocksPerExtent);

// What all cores together digest: the ceiling of whatever reads and digests. The rate is per second of wall time.
void sha256_bare_on_all_cores(benchmark::State& state) { sha256_bare_job_loop(state); }
BENCHMARK(sha256_bare_on_all_cores)->Arg(kBlocksPerExtent)->ThreadPerCpu()->UseRealTime();

void run_hasher(benchmark::State& state, Result<std::unique_ptr<BlockHasher>> hasher) {
  if (!hasher) return state.SkipWithError(hasher.error().to_string().c_str());
  state.SetLabel(std::string((*hasher)->description()));
  const AlignedBuffer buffer = extent_of_data();
  const auto blocks = blocks_of(buffer, static_cast<std::size_t>(state.range(0)));
  std::vector<BlockDigest> digests(blocks.size());
  for (auto _ : state) {
    (*hasher)->digest(blocks, digests);
    benchmark::DoNotOptimize(digests.data());
  }
  set_bytes(state, blocks.size() * kBlockSize);
}

void sha256_multi_buffer(benchmark::State& state) { run_hasher(state, make_block_hasher(HashKernel::multi_buffer)); }
BENCHMARK(sha256_multi_buffer)->Arg(1)->Arg(8)->Arg(16)->Arg(20)->Arg(kBlocksPerExtent);

void sha256_one_buffer(benchmark::State& state) { run_hasher(state, make_block_hasher(HashKernel::one_buffer)); }
BENCHMARK(sha256_one_buffer)->Arg(1)->Arg(kBlocksPerExtent);

template <MultiBufferWidth width>
void sha256_width(benchmark::State& state) {
  run_hasher(state, make_multi_buffer_hasher(width));
}
BENCHMARK_TEMPLATE(sha256_width, MultiBufferWidth::avx512)->Arg(kBlocksPerExtent);
BENCHMARK_TEMPLATE(sha256_width, MultiBufferWidth::avx2)->Arg(kBlocksPerExtent);
BENCHMARK_TEMPLATE(sha256_width, MultiBufferWidth::sha_ni)->Arg(kBlocksPerExtent);
BENCHMARK_TEMPLATE(sha256_width, MultiBufferWidth::sse)->Arg(kBlocksPerExtent);

void is_zero_of_zeros(benchmark::State& state) {
  const AlignedBuffer buffer(kExtentSize);
  const auto blocks = blocks_of(buffer, static_cast<std::size_t>(state.range(0)));
  for (auto _ : state)
    for (const Bytes block : blocks) benchmark::DoNotOptimize(is_zero(block));
  set_bytes(state, blocks.size() * kBlockSize);
}
BENCHMARK(is_zero_of_zeros)->Arg(1)->Arg(kBlocksPerExtent);

// The ceiling beside it: a read of the same bytes that stops at the first difference.
void is_zero_by_memcmp(benchmark::State& state) {
  const AlignedBuffer buffer(kExtentSize);
  const auto blocks = blocks_of(buffer, static_cast<std::size_t>(state.range(0)));
  for (auto _ : state)
    for (const Bytes block : blocks)
      benchmark::DoNotOptimize(std::memcmp(block.data(), block.data() + 1, block.size() - 1));
  set_bytes(state, blocks.size() * kBlockSize);
}
BENCHMARK(is_zero_by_memcmp)->Arg(1)->Arg(kBlocksPerExtent);

// Time per block of data: what the check costs where it does not help.
void is_zero_of_data(benchmark::State& state) {
  const AlignedBuffer buffer = extent_of_data();
  const Bytes block = buffer.span().first(kBlockSize);
  for (auto _ : state) benchmark::DoNotOptimize(is_zero(block));
}
BENCHMARK(is_zero_of_data);

// The rate is in bytes of disk, 4 MiB for each digest.
void extent_digest_per_extent(benchmark::State& state) {
  const std::vector<BlockDigest> digests(kBlocksPerExtent, zero_block_digest());
  for (auto _ : state) benchmark::DoNotOptimize(extent_digest(digests));
  set_bytes(state, kExtentSize);
}
BENCHMARK(extent_digest_per_extent);

void root_of_a_tebibyte_of_zeros(benchmark::State& state) {
  for (auto _ : state) {
    RootDigest root(kTiB);
    root.add_zero_run(0, extent_count(kTiB));
    benchmark::DoNotOptimize(root.finish());
  }
  set_bytes(state, kTiB);
}
BENCHMARK(root_of_a_tebibyte_of_zeros);

void make_multi_buffer(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(make_block_hasher(HashKernel::multi_buffer));
}
BENCHMARK(make_multi_buffer);

}  // namespace
}  // namespace backhaul

BENCHMARK_MAIN();
