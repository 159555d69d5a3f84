// Many reads of one descriptor at once, for File::read_all; internal to its room. One thread at a time.
#pragma once

#include <liburing.h>

#include <memory>
#include <vector>

#include "dataplane/disk/io.h"

namespace backhaul {

class ReadRing {
 public:
  static constexpr unsigned kDepth = 64;

  // Null when the kernel refuses.
  static std::unique_ptr<ReadRing> make();
  ReadRing(const ReadRing&) = delete;
  ReadRing& operator=(const ReadRing&) = delete;
  ~ReadRing();

  // Reads the parts, at most kDepth of them in flight and none on return. whole() says which came whole; the caller
  // reads the others again.
  void read(int fd, std::span<const ReadPart> parts);
  const std::vector<bool>& whole() const noexcept { return whole_; }

 private:
  ReadRing() = default;
  bool take_one(std::span<const ReadPart> parts);

  io_uring ring_{};
  std::vector<bool> whole_;
};

}  // namespace backhaul
