#include "dataplane/disk/io.h"

#include <algorithm>

namespace backhaul {
namespace {

constexpr ErrorInfo kIo[] = {
    {"io.unexpected_end", "the file ends before the data that was asked for",
     "Check whether the file was cut short or is still being written.", Retry::no},
    {"io.outside_store", "the path is no plain name inside the store",
     "Give a relative path without '..', control characters or symbolic links that leave the store.", Retry::no},
    {"io.clone_unsupported", "the file system cannot share blocks between files",
     "Use --staging undo, or keep the store on XFS with reflink or on btrfs.", Retry::no},
    {"io.fixed_size", "a block device cannot change its size", "Give a device of the needed size.", Retry::no},
    {"io.not_a_disk", "the path is neither a regular file nor a block device",
     "Give the path of a disk image or of a block device.", Retry::no},
    {"io.uring_unavailable", "the kernel refuses io_uring",
     "Set sysctl kernel.io_uring_disabled=0 and let the container's seccomp profile pass io_uring_setup, "
     "io_uring_enter and io_uring_register; Linux 5.19 or later is needed.",
     Retry::no},
    {"io.too_small", "the block device is smaller than the disk", "Give a device of at least the disk's size.",
     Retry::no},
};

constexpr std::size_t kMaxPathLength = 4095;
constexpr std::size_t kMaxNameLength = 255;

bool plain_name(std::string_view name) {
  if (name.empty() || name.size() > kMaxNameLength || name == "." || name == "..") return false;
  for (const char c : name)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return false;
  return true;
}

// A rejected path for the log: no control characters, bounded length.
std::string printable(std::string_view path) {
  std::string text;
  for (const char c : path.substr(0, 200)) text += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return text;
}

}  // namespace

const ErrorCategory& io_category() noexcept {
  static const TableCategory category("io", kIo);
  return category;
}

Result<void> File::read_all(std::span<const ReadPart> parts) {
  for (const auto& part : parts) BH_RETURN_IF_ERROR(read_at(part.offset, part.into));
  return {};
}

Result<void> check_store_path(std::string_view path) {
  const auto refuse = [&](const char* why) -> Result<void> {
    return make_error(IoErrc::outside_store, std::string("'") + printable(path) + "' " + why);
  };
  if (path.empty()) return refuse("is empty");
  if (path.front() == '/') return refuse("is absolute");
  if (path.size() > kMaxPathLength) return refuse("is too long");
  for (std::size_t start = 0; start <= path.size();) {
    const std::size_t end = std::min(path.find('/', start), path.size());
    if (!plain_name(path.substr(start, end - start))) return refuse("has a part that is no plain name");
    start = end + 1;
  }
  return {};
}

}  // namespace backhaul
