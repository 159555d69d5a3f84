#include "control/model/iso_time.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace backhaul {
namespace {

using namespace std::chrono;

constexpr std::int64_t kLast = 253402300799;  // 9999-12-31T23:59:59Z

// Takes `digits` digits from the front; false when there are fewer or the value is out of range.
bool take_number(std::string_view& text, std::size_t digits, int low, int high, int& value) noexcept {
  if (text.size() < digits) return false;
  value = 0;
  for (std::size_t i = 0; i < digits; ++i) {
    if (text[i] < '0' || text[i] > '9') return false;
    value = value * 10 + (text[i] - '0');
  }
  text.remove_prefix(digits);
  return value >= low && value <= high;
}
bool take(std::string_view& text, char c) noexcept {
  if (text.empty() || text.front() != c) return false;
  text.remove_prefix(1);
  return true;
}

}  // namespace

std::string iso_time(std::int64_t unix_time_s) {
  const sys_seconds time{seconds(std::clamp<std::int64_t>(unix_time_s, 0, kLast))};
  const auto day = floor<days>(time);
  const year_month_day date(day);
  const hh_mm_ss clock(time - day);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()), clock.hours().count(),
                     clock.minutes().count(), clock.seconds().count());
}

std::string iso_time_ms(std::int64_t unix_time_ms) {
  auto text = iso_time(unix_time_ms / 1000);
  text.insert(text.size() - 1, fmt::format(".{:03}", std::max<std::int64_t>(unix_time_ms, 0) % 1000));
  return text;
}

std::optional<std::int64_t> parse_iso_time(std::string_view text) noexcept {
  int y = 0, mo = 0, d = 0, h = 0, mi = 0, s = 0;
  if (!take_number(text, 4, 1970, 9999, y) || !take(text, '-') || !take_number(text, 2, 1, 12, mo) ||
      !take(text, '-') || !take_number(text, 2, 1, 31, d))
    return std::nullopt;
  const year_month_day date{year(y), month(static_cast<unsigned>(mo)), day(static_cast<unsigned>(d))};
  if (!date.ok()) return std::nullopt;
  if (!take(text, 'T') && !take(text, 't') && !take(text, ' ')) return std::nullopt;
  if (!take_number(text, 2, 0, 23, h) || !take(text, ':') || !take_number(text, 2, 0, 59, mi)) return std::nullopt;
  if (take(text, ':')) {
    if (!take_number(text, 2, 0, 59, s)) return std::nullopt;
    if (take(text, '.')) {
      const auto end = std::min(text.find_first_not_of("0123456789"), text.size());
      if (end == 0) return std::nullopt;
      text.remove_prefix(end);
    }
  }
  int zone_h = 0, zone_m = 0, sign = 0;
  if (take(text, '+'))
    sign = 1;
  else if (take(text, '-'))
    sign = -1;
  else if (!take(text, 'Z') && !take(text, 'z') && !text.empty())
    return std::nullopt;
  if (sign != 0 && (!take_number(text, 2, 0, 14, zone_h) || !take(text, ':') || !take_number(text, 2, 0, 59, zone_m)))
    return std::nullopt;
  if (!text.empty()) return std::nullopt;
  const auto time = sys_days(date) + hours(h) + minutes(mi) + seconds(s) - sign * (hours(zone_h) + minutes(zone_m));
  return std::max<std::int64_t>(0, duration_cast<seconds>(time.time_since_epoch()).count());
}

}  // namespace backhaul
