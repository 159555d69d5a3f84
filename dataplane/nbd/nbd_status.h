// An NBD server's block status of a part of its export, in the metadata context that the connection asked for; internal
// to its room.
#pragma once

#include <vector>

#include "dataplane/nbd/nbd_connection.h"

namespace backhaul {

// One block status reply, up to 65536 runs (1 MiB of memory); the caller asks again for the rest.
struct NbdStatus {
  std::uint64_t begin = 0, end = 0;  // the part that it describes
  std::vector<ByteRange> marked;     // runs in it, not adjacent
};

using NbdMarks = bool (*)(std::uint32_t flags);

// Asks for the status of at most 1 GiB around `at`, and marks the runs whose flags `marks` accepts. The reply covers
// `at`. REQUIRES: connection.tells_context(), `at` is inside the export.
Result<NbdStatus> ask_nbd_status(NbdConnection& connection, std::uint64_t at, NbdMarks marks);

}  // namespace backhaul
