// libipsec-mb's stateless functions (GCM, GMAC) for this CPU: one table for the process. Included by .cpp files only.
// Its job API keeps state, one per hasher (multi_buffer_hasher.cpp).
#pragma once

#include <intel-ipsec-mb.h>

namespace backhaul {

// An expanded key. The library's header aligns the base only where a macro of its own is defined.
struct alignas(64) ExpandedGcmKey : gcm_key_data {};

// The one table, immutable; any thread. nullptr: the CPU lacks what the library needs, or the library did not
// initialise.
const IMB_MGR* ipsec_mb() noexcept;

}  // namespace backhaul
