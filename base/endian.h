// Little-endian loads and stores for on-disk and on-wire formats. Callers check bounds first.
#pragma once

#include <bit>
#include <cstring>

namespace backhaul {

static_assert(std::endian::native == std::endian::little, "a big-endian build needs byte swaps here");

template <class T>
T load_le(const void* from) noexcept {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class T>
void store_le(void* to, T value) noexcept {
  std::memcpy(to, &value, sizeof value);
}

}  // namespace backhaul
