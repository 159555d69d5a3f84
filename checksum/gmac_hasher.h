// A keyed hash of blocks, for comparing alone: GMAC (NIST SP 800-38D, 6.4 and 7) under a key that both ends of one run
// share and nobody else knows. Several times as fast as SHA-256. What it gives means nothing under another key: it is
// never stored, and no root digest is made of it. docs/wire_protocol.md, section 11, argues why equal tags mean equal
// blocks.
#pragma once

#include <array>
#include <memory>

#include "checksum/block_digest.h"

namespace backhaul {

using GmacKey = std::array<std::byte, 16>;

// Whether this CPU has the instructions; without them the library would use tables, whose timing tells of the key.
bool gmac_available() noexcept;

// digests[i] = the GMAC tag of blocks[i] under AES-128 and a nonce of zeros. Error: BaseErrc::unsupported when not
// gmac_available().
Result<std::unique_ptr<BlockHasher>> make_gmac_hasher(const GmacKey& key);

}  // namespace backhaul
