// Creation of a small file that is never seen half-written: made under `PATH.new`, written, synced, renamed. After a
// crash there is either no file of the name or a whole one; a leftover `PATH.new` is replaced by the next creation. And
// the other end of it: what has to happen before a file left by a dead process is believed. Any thread, different
// paths.
#pragma once

#include <functional>
#include <string_view>

#include "dataplane/disk/io.h"

namespace backhaul {

// `write` fills the new, empty file. Durable on return. Error: io.exists when there is a file of the name already and
// it is not to be replaced, and whatever the storage or `write` returned; what the name led to is as it was then.
Result<void> create_whole_file(Storage& storage, std::string_view path, const std::function<Result<void>(File&)>& write,
                               bool replace = false);

// Makes what a killed process left in the page cache durable, and forgets what the cache holds, so that the reads after
// this see what is on the device. (After a failed sync the two may differ.)
Result<void> sync_and_drop_cache(File& file);

}  // namespace backhaul
