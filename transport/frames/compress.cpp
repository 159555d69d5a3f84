#include "transport/frames/compress.h"

#include <zstd.h>

#include <fmt/format.h>
#include <algorithm>
#include <array>

#include "base/endian.h"
#include "base/units.h"
#include "transport/stream/transport_error.h"

namespace backhaul {
namespace {

// A frame's window never needs to be larger than the largest payload.
constexpr std::uint64_t kMaxWindow = kMiB;

constexpr int kAutomaticLevel = -1;  // about twice as fast as level 1, for somewhat less
constexpr int kZstdLevel = 1;

// `automatic` tries this much of a payload; after a failed try it waits for 1, 2, ... 32 MiB. Data that does not shrink
// thus costs compression of 32 KiB per MiB at most, and soon a thirtieth of that.
constexpr std::size_t kSampleSize = 32 * kKiB;
constexpr std::uint64_t kFirstPause = kMiB;
constexpr std::uint64_t kLongestPause = 32 * kMiB;

constexpr std::array<std::string_view, 3> kModes{"auto", "off", "zstd"};

// The largest compressed size that is sent: seven eighths of the raw one.
std::size_t worth_while(std::size_t raw_size) { return raw_size - raw_size / 8 - (raw_size % 8 != 0 ? 1 : 0); }

// The window that a frame asks for (RFC 8878, section 3.1.1.1); 0 when the header is cut off or is none.
std::uint64_t window_of(Bytes frame) {
  constexpr std::uint32_t kZstdMagic = 0xFD2FB528;
  if (frame.size() < 6 || load_le<std::uint32_t>(frame.data()) != kZstdMagic) return 0;
  const auto descriptor = std::to_integer<unsigned>(frame[4]);
  const bool single_segment = (descriptor & 0x20) != 0;
  if (single_segment) return std::max<std::uint64_t>(1, ZSTD_getFrameContentSize(frame.data(), frame.size()));
  const auto window = std::to_integer<unsigned>(frame[5]);
  const std::uint64_t base = std::uint64_t{1} << (10 + (window >> 3));
  return base + base / 8 * (window & 7);
}

}  // namespace

struct Compressor::State {
  CompressMode mode;
  ZSTD_CCtx* context = nullptr;
  std::uint64_t pause = 0;  // bytes to let pass before the next try
  std::uint64_t next_pause = kFirstPause;
  bool shrinking = false;  // the last payload shrank
  AlignedBuffer sample;

  ~State() { ZSTD_freeCCtx(context); }

  // The compressed size, or 0 if it would be above `limit`.
  std::size_t run(Bytes raw, MutableBytes into, std::size_t limit) {
    const auto size = ZSTD_compress2(context, into.data(), std::min(into.size(), limit), raw.data(), raw.size());
    return ZSTD_isError(size) ? 0 : size;
  }
};

std::string_view to_string(CompressMode mode) noexcept { return kModes[static_cast<std::size_t>(mode)]; }

std::optional<CompressMode> parse_compress_mode(std::string_view text) noexcept {
  for (std::size_t i = 0; i < kModes.size(); ++i)
    if (kModes[i] == text) return static_cast<CompressMode>(i);
  return std::nullopt;
}

Compressor::Compressor(CompressMode mode) : state_(std::make_unique<State>()) {
  state_->mode = mode;
  if (mode == CompressMode::off) return;
  state_->context = ZSTD_createCCtx();
  if (state_->context == nullptr) {
    state_->mode = CompressMode::off;  // no memory: raw payloads are always right
    return;
  }
  const bool automatic = mode == CompressMode::automatic;
  ZSTD_CCtx_setParameter(state_->context, ZSTD_c_compressionLevel, automatic ? kAutomaticLevel : kZstdLevel);
  ZSTD_CCtx_setParameter(state_->context, ZSTD_c_contentSizeFlag, 1);
  ZSTD_CCtx_setParameter(state_->context, ZSTD_c_checksumFlag, 0);
  if (automatic) state_->sample = AlignedBuffer(kSampleSize);
}

Compressor::~Compressor() = default;

std::size_t Compressor::bound(std::size_t raw_size) { return ZSTD_compressBound(raw_size); }

std::size_t Compressor::compress(Bytes raw, MutableBytes into) {
  auto& state = *state_;
  if (state.mode == CompressMode::off || raw.size() < 64) return 0;
  if (state.mode == CompressMode::zstd) return state.run(raw, into, worth_while(raw.size()));

  if (state.pause > 0) {
    state.pause -= std::min<std::uint64_t>(state.pause, raw.size());
    return 0;
  }
  const auto give_up = [&]() -> std::size_t {
    state.shrinking = false;
    state.pause = state.next_pause;
    state.next_pause = std::min(state.next_pause * 2, kLongestPause);
    return 0;
  };
  if (!state.shrinking && raw.size() > kSampleSize &&
      state.run(raw.first(kSampleSize), state.sample.span(), worth_while(kSampleSize)) == 0)
    return give_up();
  const auto size = state.run(raw, into, worth_while(raw.size()));
  if (size == 0) return give_up();
  state.shrinking = true;
  state.next_pause = kFirstPause;
  return size;
}

struct Decompressor::State {
  ZSTD_DCtx* context = ZSTD_createDCtx();
  ~State() { ZSTD_freeDCtx(context); }
};

Decompressor::Decompressor() : state_(std::make_unique<State>()) {}
Decompressor::~Decompressor() = default;

Result<void> Decompressor::decompress(Bytes compressed, MutableBytes into) {
  const auto fail = [](std::string why) { return make_error(TransportErrc::decompress_failed, std::move(why)); };
  if (state_->context == nullptr) return fail("no memory for the decoder");
  const auto window = window_of(compressed);
  if (window == 0) return fail("not a zstd frame");
  const auto announced = ZSTD_getFrameContentSize(compressed.data(), compressed.size());
  if (announced == ZSTD_CONTENTSIZE_ERROR || announced == ZSTD_CONTENTSIZE_UNKNOWN || announced != into.size())
    return fail(fmt::format("the frame does not announce {} bytes", into.size()));
  if (window > kMaxWindow) return fail(fmt::format("the frame asks for a window of {} bytes", window));
  // One frame and nothing behind it: the decoder would also decode a second one.
  if (const auto size = ZSTD_findFrameCompressedSize(compressed.data(), compressed.size());
      ZSTD_isError(size) || size != compressed.size())
    return fail("the payload is not exactly one zstd frame");
  const auto size =
      ZSTD_decompressDCtx(state_->context, into.data(), into.size(), compressed.data(), compressed.size());
  if (ZSTD_isError(size)) return fail(ZSTD_getErrorName(size));
  if (size != into.size()) return fail(fmt::format("decodes to {} bytes instead of {}", size, into.size()));
  return {};
}

}  // namespace backhaul
