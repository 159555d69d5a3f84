#include "dataplane/disk/whole_file.h"

#include <string>

namespace backhaul {

Result<void> create_whole_file(Storage& storage, std::string_view path, const std::function<Result<void>(File&)>& write,
                               bool replace) {
  const std::string unfinished = std::string(path) + ".new";
  BH_RETURN_IF_ERROR(storage.remove(unfinished));
  {
    BH_TRY(auto file, storage.create(unfinished));
    auto written = write(*file);
    if (written) written = file->sync();
    if (!written) {
      file.reset();
      (void)storage.remove(unfinished);
      return std::move(written).error();
    }
  }
  if (auto renamed = storage.rename(unfinished, path, replace); !renamed) {
    (void)storage.remove(unfinished);
    return renamed;
  }
  return {};
}

Result<void> sync_and_drop_cache(File& file) {
  BH_RETURN_IF_ERROR(file.sync());
  file.drop_cache(0, file.size());
  return {};
}

}  // namespace backhaul
