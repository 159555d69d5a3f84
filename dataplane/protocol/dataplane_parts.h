// What the threads of the data plane are given: queues, hashers, time and randomness; the host's own, or a simulator's.
#pragma once

#include <functional>
#include <memory>

#include "base/world.h"
#include "checksum/block_digest.h"
#include "dataplane/disk/io.h"

namespace backhaul {

struct DataplaneParts {
  std::function<Result<std::unique_ptr<IoQueue>>()> make_queue;
  std::function<Result<std::unique_ptr<BlockHasher>>()> make_hasher;
  Clock* clock = nullptr;
  Random* random = nullptr;
};

// A queue that reads `file`: its own kind's, or parts.make_queue().
Result<std::unique_ptr<IoQueue>> make_queue_for(File& file, const DataplaneParts& parts);

}  // namespace backhaul
