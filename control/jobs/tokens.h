// Bearer tokens: "bh_<id>_<secret>", both halves random. The store keeps the id and the SHA-256 of the secret; 256
// random bits need no slow hash.
#pragma once

#include <string>
#include <string_view>

#include "base/world.h"
#include "control/jobs/service.h"

namespace backhaul {

NewToken make_token(std::string name, Role role, std::int64_t lifetime_s, std::int64_t now_unix_s, Random& random);
// unauthenticated: malformed, unknown, wrong secret or expired; which one is not told.
Result<Actor> check_token(Store& store, std::string_view bearer_token, std::int64_t now_unix_s);

}  // namespace backhaul
