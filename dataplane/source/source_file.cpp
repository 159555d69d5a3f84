#include "dataplane/source/source_file.h"

#include "dataplane/linux/linux_storage.h"
#include "dataplane/nbd/nbd.h"

namespace backhaul {

Result<std::unique_ptr<File>> open_source_file(const std::string& source) {
  return is_nbd_uri(source) ? open_nbd_file(source) : open_linux_file(source, OpenMode::read);
}

}  // namespace backhaul
