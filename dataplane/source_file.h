// Where the disks of the source side come from: a path (dataplane/linux_storage.h) or an NBD URI (dataplane/nbd.h).
#pragma once

#include <memory>
#include <string>

#include "dataplane/io.h"
#include "dataplane/target_session.h"

namespace backhaul {

// For reading; chosen by the URI's scheme.
Result<std::unique_ptr<File>> open_source_file(const std::string& source);

// A queue that reads `file`: its own kind's, or parts.make_queue().
Result<std::unique_ptr<IoQueue>> make_queue_for(File& file, const DataplaneParts& parts);

}  // namespace backhaul
