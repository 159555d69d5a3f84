#include "dataplane/protocol/dataplane_parts.h"

namespace backhaul {

Result<std::unique_ptr<IoQueue>> make_queue_for(File& file, const DataplaneParts& parts) {
  BH_TRY(auto own, file.native().own_queue());
  if (own) return own;
  return parts.make_queue();
}

}  // namespace backhaul
