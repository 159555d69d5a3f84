#include "control/api/api_json.h"

#include <boost/json.hpp>
#include <boost/json/basic_parser_impl.hpp>

#include <cctype>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "control/api/api_error.h"
#include "control/model/iso_time.h"

namespace backhaul {
namespace {

namespace json = boost::json;
using boost::system::error_code;

// Finds what Boost.JSON lets through: a key twice (it takes the last one, other readers the first), and numbers that
// become infinite.
struct Checker {
  static constexpr std::size_t max_object_size = SIZE_MAX, max_array_size = SIZE_MAX, max_key_size = SIZE_MAX,
                               max_string_size = SIZE_MAX;
  std::vector<std::set<std::string>> keys;
  std::string key, mistake;

  bool refuse(std::string why, error_code& code) {
    mistake = std::move(why);
    code = json::error::syntax;
    return false;
  }
  bool on_object_begin(error_code&) {
    keys.emplace_back();
    return true;
  }
  bool on_object_end(std::size_t, error_code&) {
    keys.pop_back();
    return true;
  }
  bool on_key_part(json::string_view part, std::size_t, error_code&) {
    key.append(part.data(), part.size());
    return true;
  }
  bool on_key(json::string_view part, std::size_t, error_code& code) {
    key.append(part.data(), part.size());
    if (!keys.back().insert(std::move(key)).second) return refuse("a key stands twice in one object", code);
    key.clear();
    return true;
  }
  bool on_double(double value, json::string_view, error_code& code) {
    return std::isfinite(value) || refuse("a number is out of range", code);
  }
  bool on_document_begin(error_code&) { return true; }
  bool on_document_end(error_code&) { return true; }
  bool on_array_begin(error_code&) { return true; }
  bool on_array_end(std::size_t, error_code&) { return true; }
  bool on_string_part(json::string_view, std::size_t, error_code&) { return true; }
  bool on_string(json::string_view, std::size_t, error_code&) { return true; }
  bool on_number_part(json::string_view, error_code&) { return true; }
  bool on_int64(std::int64_t, json::string_view, error_code&) { return true; }
  bool on_uint64(std::uint64_t, json::string_view, error_code&) { return true; }
  bool on_bool(bool, error_code&) { return true; }
  bool on_null(error_code&) { return true; }
  bool on_comment_part(json::string_view, error_code&) { return true; }
  bool on_comment(json::string_view, error_code&) { return true; }
};

}  // namespace

Result<json::object> parse_json_object(std::string_view text) {
  const json::parse_options options{.max_depth = kMaxJsonDepth};
  error_code code;
  json::basic_parser<Checker> checker(options);
  const auto used = checker.write_some(false, text.data(), text.size(), code);
  if (code) {
    const auto& mistake = checker.handler().mistake;
    return make_error(ApiErrc::bad_json,
                      mistake.empty() ? code.message() + " at byte " + std::to_string(used) : mistake);
  }
  if (used < text.size() && text.find_first_not_of(" \t\r\n", used) != text.npos)
    return make_error(ApiErrc::bad_json, "something stands behind the object");
  auto value = json::parse(text, code, {}, options);
  if (code) return make_error(ApiErrc::bad_json, code.message());
  if (!value.is_object()) return make_error(ApiErrc::bad_json, "not an object");
  return std::move(value.get_object());
}

bool is_utf8(std::string_view text) noexcept {
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = [&](std::size_t at) { return at < text.size() ? static_cast<unsigned char>(text[at]) : 0U; };
    const unsigned first = byte(i);
    if (first < 0x80) {
      ++i;
      continue;
    }
    const std::size_t size = first >= 0xC2 && first < 0xE0   ? 2
                             : first >= 0xE0 && first < 0xF0 ? 3
                             : first >= 0xF0 && first < 0xF5 ? 4
                                                             : 0;
    if (size == 0) return false;
    for (std::size_t k = 1; k < size; ++k)
      if ((byte(i + k) & 0xC0U) != 0x80) return false;
    const unsigned second = byte(i + 1);
    if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) || (first == 0xF0 && second < 0x90) ||
        (first == 0xF4 && second > 0x8F))
      return false;
    i += size;
  }
  return true;
}

std::string camel_case(std::string_view snake_case) {
  std::string text;
  bool upper = false;
  for (const char c : snake_case) {
    if (c != '_') text.push_back(upper ? static_cast<char>(std::toupper(static_cast<unsigned char>(c))) : c);
    upper = c == '_';
  }
  return text;
}
void put_time(boost::json::object& into, std::string_view key, std::int64_t unix_time_s) {
  if (unix_time_s != 0) into[key] = iso_time(unix_time_s);
}
void put_text(boost::json::object& into, std::string_view key, std::string_view text) {
  if (!text.empty()) into[key] = text;
}
void put_positive(boost::json::object& into, std::string_view key, double value) {
  if (value > 0) into[key] = value;
}

}  // namespace backhaul
