#include "checksum/ipsec_mb.h"

namespace backhaul {

const IMB_MGR* ipsec_mb() noexcept {
  static const IMB_MGR* const made = []() -> const IMB_MGR* {
    IMB_MGR* manager = alloc_mb_mgr(0);
    if (manager == nullptr) return nullptr;
    if ((manager->features & IMB_CPUFLAGS_SSE) == IMB_CPUFLAGS_SSE) {
      init_mb_mgr_auto(manager, nullptr);
      if (imb_get_errno(manager) == 0) return manager;
    }
    free_mb_mgr(manager);
    return nullptr;
  }();
  return made;
}

}  // namespace backhaul
