// Where the disks of the source side come from: a path (dataplane/linux/linux_storage.h) or an NBD URI
// (dataplane/nbd/nbd.h).
#pragma once

#include <memory>
#include <string>

#include "dataplane/disk/io.h"

namespace backhaul {

// For reading; chosen by the URI's scheme.
Result<std::unique_ptr<File>> open_source_file(const std::string& source);

}  // namespace backhaul
