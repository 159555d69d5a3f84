// The table of libipsec-mb's functions that keep no state of their own (GCM, GMAC), chosen for this CPU. For the .cpp
// files that call them; hashes by its job API have a state each (multi_buffer_hasher.cpp).
#pragma once

#include <intel-ipsec-mb.h>

namespace backhaul {

// An expanded key. The library's header aligns it so only where its own macro names the system.
struct alignas(64) ExpandedGcmKey : gcm_key_data {};

// One for the process: nothing of it changes once it is made. nullptr where the CPU lacks what the library needs, or it
// did not start.
const IMB_MGR* ipsec_mb() noexcept;

}  // namespace backhaul
