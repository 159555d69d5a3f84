// Points in time as the API writes and reads them: ISO 8601.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace backhaul {

std::string iso_time_ms(std::int64_t unix_time_ms);  // "2026-01-31T12:00:00.250Z"
std::string iso_time(std::int64_t unix_time_s);      // "2026-01-31T12:00:00Z"
// With date and time, seconds and fractions (cut off) optional, zone Z, +HH:MM or none (UTC). Years 1970 to 9999.
std::optional<std::int64_t> parse_iso_time(std::string_view text) noexcept;

}  // namespace backhaul
