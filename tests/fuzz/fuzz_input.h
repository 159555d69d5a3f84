// What fuzzers share: how they say that something must hold, and their input as a list of small commands.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "base/buffer.h"

namespace backhaul {

inline void require(bool holds) {
  if (!holds) std::abort();
}

// The input from its begin; zeros behind its end.
class Input {
 public:
  explicit Input(Bytes bytes) : bytes_(bytes) {}
  std::uint8_t next() {
    if (bytes_.empty()) return 0;
    const auto value = static_cast<std::uint8_t>(bytes_.front());
    bytes_ = bytes_.subspan(1);
    return value;
  }
  Bytes take(std::size_t most) {
    const auto taken = bytes_.first(std::min(most, bytes_.size()));
    bytes_ = bytes_.subspan(taken.size());
    return taken;
  }
  bool empty() const { return bytes_.empty(); }

 private:
  Bytes bytes_;
};

}  // namespace backhaul
