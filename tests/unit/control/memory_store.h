// A job store in memory: what a job did is there until the test ends. Thread-safe, like every Store.
#pragma once

#include <memory>

#include "control/store/store.h"

namespace backhaul {

std::unique_ptr<Store> make_memory_store();

}  // namespace backhaul
