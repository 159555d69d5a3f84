// A lock on a file that one process holds as long as it lives.
#pragma once

#include <filesystem>
#include <string>

#include "base/error.h"
#include "base/unique_fd.h"

namespace backhaul {

// Locks the file, which is made (mode 0600) where it is missing, until the descriptor is closed or the process ends.
// The lock is the process's, not the descriptor's: a program that a killed process was about to start has copies of its
// descriptors for a moment, but holds none of its locks. So within one process nobody else may open the file: closing
// it would drop the lock, and a second lock would be granted. Error: BaseErrc::invalid_argument with `held` as its
// cause, and the holder's process number where that can be told, when another process has the lock.
Result<UniqueFd> take_process_lock(const std::filesystem::path& path, std::string held);

}  // namespace backhaul
