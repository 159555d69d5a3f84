// Small files that nobody sees half-written: create_whole_file() fills `PATH.new`, syncs it and renames it. After a
// crash the name has no file, or a whole one; the next creation replaces a leftover `PATH.new`. sync_and_drop_cache()
// comes before believing a file that a dead process left. Any thread, on different paths.
#pragma once

#include <functional>
#include <string_view>

#include "dataplane/disk/io.h"

namespace backhaul {

// `write` fills the new, empty file. Durable on return. Errors: io.exists when the name is taken and not to be
// replaced; those of the storage and of `write`. An error leaves the name as it was.
Result<void> create_whole_file(Storage& storage, std::string_view path, const std::function<Result<void>(File&)>& write,
                               bool replace = false);

// Makes durable what a killed process left in the page cache, then drops the cache, so that later reads see the device.
// (After a failed sync the two may differ.)
Result<void> sync_and_drop_cache(File& file);

}  // namespace backhaul
