// zstd (RFC 8878) of one frame's payload, and the decision whether it pays. One per lane.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "base/buffer.h"
#include "base/error.h"

namespace backhaul {

enum class CompressMode { automatic, off, zstd };
std::string_view to_string(CompressMode mode) noexcept;  // "auto", "off", "zstd"
std::optional<CompressMode> parse_compress_mode(std::string_view text) noexcept;

class Compressor {
 public:
  explicit Compressor(CompressMode mode);
  ~Compressor();
  // Compresses `raw` to `into` and gives the size; 0: send it raw (off, does not pay, would not shrink by an eighth).
  // `automatic` tries a payload now and then and goes on while payloads shrink.
  std::size_t compress(Bytes raw, MutableBytes into);
  static std::size_t bound(std::size_t raw_size);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

class Decompressor {
 public:
  Decompressor();
  ~Decompressor();
  // Decodes into exactly into.size() bytes. Error: TransportErrc::decompress_failed (also when the frame asks for a
  // window larger than the limit or does not fill `into` exactly).
  Result<void> decompress(Bytes compressed, MutableBytes into);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace backhaul
