#include "checksum/multi_buffer_hasher.h"

#include <fmt/format.h>

#include <cassert>
#include <cstdlib>
#include <cstring>
#include <string>

#include "checksum/ipsec_mb.h"
#include "checksum/sha256_stream.h"

namespace backhaul {
namespace {

struct FreeState {
  void operator()(IMB_MGR* state) const noexcept { free_mb_mgr(state); }
};
using State = std::unique_ptr<IMB_MGR, FreeState>;

constexpr std::size_t kDigestBytes = sizeof(Sha256);
// The library counts message lengths in 16 bits.
static_assert(kBlockSize <= 65534);

struct Lanes {
  std::string_view name;
  std::size_t count;
};

Lanes lanes_of(const IMB_MGR& state) noexcept {
  if (state.used_arch == IMB_ARCH_AVX512) return {"AVX512", 16};
  // Below AVX-512 the library prefers the SHA instructions to width.
  const bool sha_ni = (state.features & IMB_FEATURE_SHANI) != 0 && (state.flags & IMB_FLAG_SHANI_OFF) == 0;
  if (sha_ni) return {"SHA-NI", 2};
  if (state.used_arch == IMB_ARCH_AVX2) return {"AVX2", 8};
  if (state.used_arch == IMB_ARCH_AVX) return {"AVX", 4};
  return {"SSE", 4};
}

class MultiBufferHasher final : public BlockHasher {
 public:
  explicit MultiBufferHasher(State state) : state_(std::move(state)), lanes_(lanes_of(*state_)) {
    description_ = fmt::format("SHA-256 {} x{} (libipsec-mb {})", lanes_.name, lanes_.count, imb_get_version_str());
    const bool one_buffer_has_sha_ni = (state_->features & IMB_FEATURE_SHANI) != 0;
    short_tail_ = one_buffer_has_sha_ni ? lanes_.count / 2 : 2;
  }

  std::string_view description() const noexcept override { return description_; }

  void digest(std::span<const Bytes> blocks, std::span<BlockDigest> digests) override {
    assert(blocks.size() == digests.size());
    // A pass over the lanes takes the same time with one lane in use as with all: with SHA-NI the time of half as many
    // blocks one buffer at a time, without it of two. A last pass of no more blocks than that goes one buffer at a
    // time.
    const std::size_t tail = blocks.size() % lanes_.count;
    const std::size_t in_lanes = blocks.size() - (tail <= short_tail_ ? tail : 0);
    for (std::size_t i = 0; i < in_lanes; ++i) submit(blocks[i], digests[i], outputs_[i % outputs_.size()]);
    if (in_lanes != 0) {
      while (IMB_JOB* job = IMB_FLUSH_JOB(state_.get())) take(*job);
    }
    for (std::size_t i = in_lanes; i < blocks.size(); ++i) {
      one_buffer_.update(blocks[i]);
      const Sha256 full = one_buffer_.finish();
      std::memcpy(digests[i].bytes.data(), full.bytes.data(), sizeof(BlockDigest));
    }
  }

 private:
  using Output = std::array<std::uint8_t, kDigestBytes>;

  void submit(Bytes block, BlockDigest& digest, Output& output) {
    assert(block.size() <= kBlockSize);
    IMB_JOB* const job = IMB_GET_NEXT_JOB(state_.get());
    job->cipher_mode = IMB_CIPHER_NULL;
    job->cipher_direction = IMB_DIR_ENCRYPT;
    job->chain_order = IMB_ORDER_HASH_CIPHER;
    job->hash_alg = IMB_AUTH_SHA_256;
    // An empty block may have a null address, which the library refuses.
    job->src = block.empty() ? output.data() : reinterpret_cast<const std::uint8_t*>(block.data());
    job->hash_start_src_offset_in_bytes = 0;
    job->msg_len_to_hash_in_bytes = block.size();
    job->auth_tag_output = output.data();  // all 32 bytes: the library writes no less
    job->auth_tag_output_len_in_bytes = kDigestBytes;
    job->user_data = &digest;
    for (IMB_JOB* done = IMB_SUBMIT_JOB(state_.get()); done != nullptr; done = IMB_GET_COMPLETED_JOB(state_.get()))
      take(*done);
  }

  static void take(const IMB_JOB& job) {
    if (job.status != IMB_STATUS_COMPLETED) std::abort();  // our own job was malformed: a defect
    std::memcpy(static_cast<BlockDigest*>(job.user_data)->bytes.data(), job.auth_tag_output, sizeof(BlockDigest));
  }

  State state_;
  Lanes lanes_;
  std::string description_;
  std::size_t short_tail_ = 0;  // tails up to here are hashed one buffer at a time
  Sha256Stream one_buffer_;
  // The library returns jobs in order and holds fewer than this at once, so an output is free again when it is used
  // next.
  std::array<Output, IMB_MAX_JOBS> outputs_;
};

bool has(const IMB_MGR& state, std::uint64_t flags) noexcept { return (state.features & flags) == flags; }

// Sets the state up for a width; false if the CPU lacks it.
bool initialise(IMB_MGR& state, MultiBufferWidth width) noexcept {
  switch (width) {
    case MultiBufferWidth::automatic:
      if (!has(state, IMB_CPUFLAGS_SSE)) return false;
      init_mb_mgr_auto(&state, nullptr);
      return true;
    case MultiBufferWidth::avx512:
      if (!has(state, IMB_CPUFLAGS_AVX512)) return false;
      init_mb_mgr_avx512(&state);
      return true;
    case MultiBufferWidth::avx2:
      if (!has(state, IMB_CPUFLAGS_AVX2)) return false;
      init_mb_mgr_avx2(&state);
      return true;
    case MultiBufferWidth::sha_ni:
      if (!has(state, IMB_CPUFLAGS_SSE_T2)) return false;
      init_mb_mgr_sse(&state);
      return true;
    case MultiBufferWidth::sse:
      if (!has(state, IMB_CPUFLAGS_SSE)) return false;
      init_mb_mgr_sse(&state);
      return true;
  }
  return false;
}

}  // namespace

std::string_view to_string(MultiBufferWidth width) noexcept {
  switch (width) {
    case MultiBufferWidth::automatic: return "automatic";
    case MultiBufferWidth::avx512: return "avx512";
    case MultiBufferWidth::avx2: return "avx2";
    case MultiBufferWidth::sha_ni: return "sha_ni";
    case MultiBufferWidth::sse: return "sse";
  }
  return "unknown";
}

CpuFeatures detect_cpu_features() noexcept { return {.multi_buffer = ipsec_mb() != nullptr}; }

Result<std::unique_ptr<BlockHasher>> make_multi_buffer_hasher(MultiBufferWidth width) {
  const bool without_sha_ni = width == MultiBufferWidth::avx2 || width == MultiBufferWidth::sse;
  const bool detected = width == MultiBufferWidth::automatic;
  State state(alloc_mb_mgr(without_sha_ni ? IMB_FLAG_SHANI_OFF : 0));
  if (state == nullptr) return Error(BaseErrc::unsupported, "libipsec-mb could not allocate its state");
  if (!initialise(*state, width))
    return Error(BaseErrc::unsupported, fmt::format("this CPU lacks what multi-buffer SHA-256 needs{}{}",
                                                    detected ? "" : ": ", detected ? "" : to_string(width)));
  if (const int error = imb_get_errno(state.get()); error != 0)
    return Error(BaseErrc::unsupported, fmt::format("libipsec-mb did not start: {}", imb_get_strerror(error)));
  return std::unique_ptr<BlockHasher>(std::make_unique<MultiBufferHasher>(std::move(state)));
}

}  // namespace backhaul
