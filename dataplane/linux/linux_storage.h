// The Linux side of the disk seam: files by O_DIRECT beside a buffered descriptor, queues by io_uring, paths confined
// by openat2(RESOLVE_BENEATH). Only this room and nbd/ see Linux headers.
#pragma once

#include <filesystem>
#include <memory>

#include "dataplane/disk/io.h"

namespace backhaul {

// Error: the root is missing or no directory.
Result<std::unique_ptr<Storage>> open_linux_storage(const std::filesystem::path& root);

// A file or block device by any path: for the source side and for tools, which are not confined.
Result<std::unique_ptr<File>> open_linux_file(const std::filesystem::path& path, OpenMode mode);

struct IoQueueOptions {
  unsigned depth = 64;  // requests in flight at most
};
// Error: IoErrc::uring_unavailable with what the kernel said and how to allow it. The kernel keeps files that the queue
// worked on open until the queue is destroyed: destroy it before a file system is unmounted or a block device is opened
// again for writing.
Result<std::unique_ptr<IoQueue>> make_uring_queue(const IoQueueOptions& options = {});

}  // namespace backhaul
