// Request bodies: strict JSON.
#pragma once

#include <boost/json/object.hpp>
#include <string_view>

#include "base/error.h"

namespace backhaul {

inline constexpr std::size_t kMaxJsonDepth = 32;

// One object and nothing behind it. ApiErrc::bad_json: not JSON, not UTF-8, a key twice in one object, deeper than
// kMaxJsonDepth, a number that no double can hold.
Result<boost::json::object> parse_json_object(std::string_view text);

bool is_utf8(std::string_view text) noexcept;

}  // namespace backhaul
