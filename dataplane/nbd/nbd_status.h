// What an NBD server says of a part of its export in the metadata context that a connection asked for; internal to
// dataplane/nbd/nbd_*.cpp.
#pragma once

#include <vector>

#include "dataplane/nbd/nbd_connection.h"

namespace backhaul {

// Of one block status reply. Runs beyond 65536 (1 MiB of memory) are left to be asked for again.
struct NbdStatus {
  std::uint64_t begin = 0, end = 0;  // what it tells of
  std::vector<ByteRange> marked;     // runs in it, apart from each other
};

using NbdMarks = bool (*)(std::uint32_t flags);

// Asks for at most 1 GiB that holds `at`, and marks the runs whose flags `marks` takes. `end` is beyond `at`. REQUIRES:
// connection.tells_context(), `at` is inside the export.
Result<NbdStatus> ask_nbd_status(NbdConnection& connection, std::uint64_t at, NbdMarks marks);

}  // namespace backhaul
