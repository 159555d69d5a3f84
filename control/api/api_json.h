// Reads request bodies as strict JSON; puts optional fields into answers.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <string_view>

#include "base/error.h"

namespace backhaul {

inline constexpr std::size_t kMaxJsonDepth = 32;

// One object and nothing behind it. ApiErrc::bad_json: not JSON, not UTF-8, a key twice in one object, deeper than
// kMaxJsonDepth, a number that no double can hold.
Result<boost::json::object> parse_json_object(std::string_view text);

bool is_utf8(std::string_view text) noexcept;

// "wire_bytes" -> "wireBytes"
std::string camel_case(std::string_view snake_case);

// Leaves absent facts (0, empty) out of an answer.
void put_time(boost::json::object& into, std::string_view key, std::int64_t unix_time_s);
void put_text(boost::json::object& into, std::string_view key, std::string_view text);
void put_positive(boost::json::object& into, std::string_view key, double value);

}  // namespace backhaul
