#include "base/version.h"

namespace backhaul {

const char* const kVersion = BACKHAUL_VERSION;

}  // namespace backhaul
