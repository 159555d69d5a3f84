// Reads a TOML table key by key and collects every mistake with its line: wrong types, values out of range, keys that
// nobody asked for. Private to control/ (declarations, the appliance's configuration).
#pragma once

#include <toml++/toml.h>

#include <boost/json/value.hpp>
#include <cstdint>
#include <functional>
#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "control/model/control_error.h"

namespace backhaul {

class Mistakes {
 public:
  explicit Mistakes(std::string_view name) : name_(name) {}
  void add(const toml::source_region& where, std::string_view key, std::string_view what);
  bool none() const { return lines_.empty(); }
  Error to_error() const;  // bad_file; by line, at most 20

 private:
  std::string name_;
  struct Line {
    std::uint32_t number;
    std::string text;
  };
  std::vector<Line> lines_;
};

class TableReader {
 public:
  TableReader(const toml::table& table, std::string path, Mistakes& mistakes)
      : table_(table), path_(std::move(path)), mistakes_(mistakes) {}
  ~TableReader();  // reports the keys that were not read, and names those that were asked for
  TableReader(const TableReader&) = delete;
  TableReader& operator=(const TableReader&) = delete;

  enum class Need { optional, required };
  void text(std::string_view key, std::string& value, Need need = Need::optional);
  void boolean(std::string_view key, bool& value);
  template <class T>
  void number(std::string_view key, T& value, std::uint64_t low = 0,
              std::uint64_t high = std::numeric_limits<std::int64_t>::max(), Need need = Need::optional) {
    std::uint64_t read = value;
    number_(key, read, low, high, need);
    value = static_cast<T>(read);
  }
  // One of these, or a mistake that lists them.
  void choice(std::string_view key, std::string& value, std::initializer_list<std::string_view> choices);
  void texts(std::string_view key, std::vector<std::string>& values);
  void numbers(std::string_view key, std::vector<std::uint32_t>& values, std::uint32_t low, std::uint32_t high);
  void object(std::string_view key, boost::json::object& value);  // anything: passed on untouched
  void table(std::string_view key, const std::function<void(TableReader&)>& read, Need need = Need::optional);
  void tables(std::string_view key, const std::function<void(TableReader&)>& read, Need need = Need::optional);
  void mistake(std::string_view key, std::string_view what);
  bool has(std::string_view key) const { return table_.contains(key); }

 private:
  void number_(std::string_view key, std::uint64_t& value, std::uint64_t low, std::uint64_t high, Need need);
  const toml::node* find(std::string_view key, Need need);
  std::string full(std::string_view key) const {
    return path_.empty() ? std::string(key) : path_ + "." + std::string(key);
  }

  const toml::table& table_;
  std::string path_;
  Mistakes& mistakes_;
  std::set<std::string, std::less<>> seen_;
};

// Parses text; syntax errors become a mistake with its line. Nothing when the text is no TOML.
std::optional<toml::table> parse_toml(std::string_view text, Mistakes& mistakes);
toml::table to_toml(const boost::json::object& object);

}  // namespace backhaul
