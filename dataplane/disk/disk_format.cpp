// Apart from disk.cpp, so that what only names formats links without them.
#include <array>
#include <utility>

#include "dataplane/disk/disk.h"

namespace backhaul {
namespace {

constexpr std::array kNames = {
    std::pair{DiskFormat::raw, std::string_view("raw")},
    std::pair{DiskFormat::vhdx, std::string_view("vhdx")},
    std::pair{DiskFormat::vhdx_fixed, std::string_view("vhdx-fixed")},
};

}  // namespace

std::string_view to_string(DiskFormat format) noexcept {
  for (const auto& [value, name] : kNames)
    if (value == format) return name;
  return "unknown";
}

std::optional<DiskFormat> parse_disk_format(std::string_view text) noexcept {
  for (const auto& [value, name] : kNames)
    if (name == text) return value;
  return std::nullopt;
}

}  // namespace backhaul
