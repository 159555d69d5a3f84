// GMAC (NIST SP 800-38D, 6.4 and 7) of blocks, several times as fast as SHA-256; only for comparing them. Both ends of
// one run share the key and nobody else knows it. A tag means nothing under another key, so tags are never stored and
// enter no root digest. docs/wire_protocol.md, section 11, argues why equal tags mean equal blocks.
#pragma once

#include <array>
#include <memory>

#include "checksum/block_digest.h"

namespace backhaul {

using GmacKey = std::array<std::byte, 16>;

// Whether this CPU has the instructions; without them the library would use tables, whose timing leaks the key.
bool gmac_available() noexcept;

// digests[i] = the GMAC tag of blocks[i] under AES-128 and a nonce of zeros. Error: BaseErrc::unsupported when not
// gmac_available().
Result<std::unique_ptr<BlockHasher>> make_gmac_hasher(const GmacKey& key);

}  // namespace backhaul
