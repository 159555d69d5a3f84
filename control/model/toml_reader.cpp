#include "control/model/toml_reader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <sstream>

namespace backhaul {
namespace {

constexpr std::size_t kMaxListed = 20;
constexpr int kMaxDepth = 32;

boost::json::value to_json_value(const toml::node& node, int depth) {
  if (depth > kMaxDepth) return nullptr;
  if (const auto* text = node.as_string()) return boost::json::string(text->get());
  if (const auto* number = node.as_integer()) return number->get();
  if (const auto* real = node.as_floating_point()) return real->get();
  if (const auto* truth = node.as_boolean()) return truth->get();
  if (const auto* array = node.as_array()) {
    boost::json::array values;
    for (const auto& element : *array) values.push_back(to_json_value(element, depth + 1));
    return values;
  }
  if (const auto* table = node.as_table()) {
    boost::json::object object;
    for (const auto& [key, element] : *table) object[std::string_view(key)] = to_json_value(element, depth + 1);
    return object;
  }
  std::ostringstream text;  // dates and times
  node.visit([&](const auto& value) {
    if constexpr (toml::is_value<decltype(value)>) text << value.get();
  });
  return boost::json::string(text.str());
}

template <class Container>
void put(Container& into, std::string_view key, const boost::json::value& value);

toml::array to_toml_array(const boost::json::array& array);

template <class Insert>
void insert_value(const boost::json::value& value, Insert insert) {
  if (value.is_string())
    insert(std::string(value.get_string()));
  else if (value.is_int64())
    insert(value.get_int64());
  else if (value.is_uint64())  // above what TOML can say: as a real number it is out of range everywhere
    insert(static_cast<double>(value.get_uint64()));
  else if (value.is_double())
    insert(value.get_double());
  else if (value.is_bool())
    insert(value.get_bool());
  else if (value.is_object())
    insert(to_toml(value.get_object()));
  else if (value.is_array())
    insert(to_toml_array(value.get_array()));
}

toml::array to_toml_array(const boost::json::array& array) {
  toml::array result;
  for (const auto& element : array)
    insert_value(element, [&](auto&& value) { result.push_back(std::forward<decltype(value)>(value)); });
  return result;
}

}  // namespace

void Mistakes::add(const toml::source_region& where, std::string_view key, std::string_view what) {
  std::string line = name_;
  if (where.begin.line != 0) line += fmt::format(":{}", where.begin.line);
  lines_.push_back({where.begin.line, fmt::format("{}: {}{}{}", line, key, key.empty() ? "" : ": ", what)});
}

Error Mistakes::to_error() const {
  auto lines = lines_;
  std::stable_sort(lines.begin(), lines.end(), [](const Line& a, const Line& b) { return a.number < b.number; });
  std::string text;
  for (std::size_t i = 0; i < lines.size() && i < kMaxListed; ++i) text += (i == 0 ? "" : "\n") + lines[i].text;
  if (lines_.size() > kMaxListed) text += fmt::format("\nand {} more", lines_.size() - kMaxListed);
  return make_error(ControlErrc::bad_file, std::move(text));
}

TableReader::~TableReader() {
  for (const auto& [key, node] : table_)
    if (!seen_.contains(key.str()))
      mistakes_.add(key.source(), full(key.str()),
                    fmt::format("is no known key; known are {}", fmt::join(seen_, ", ")));
}

const toml::node* TableReader::find(std::string_view key, Need need) {
  seen_.emplace(key);
  const toml::node* found = table_.get(key);
  if (found == nullptr && need == Need::required) mistakes_.add(table_.source(), full(key), "is missing");
  return found;
}

void TableReader::mistake(std::string_view key, std::string_view what) {
  const toml::node* found = table_.get(key);
  mistakes_.add(found != nullptr ? found->source() : table_.source(), full(key), what);
}

void TableReader::text(std::string_view key, std::string& value, Need need) {
  const auto* node = find(key, need);
  if (node == nullptr) return;
  if (const auto* text = node->as_string()) {
    value = text->get();
    if (need == Need::required && value.empty()) mistake(key, "must not be empty");
  } else {
    mistake(key, "must be a text");
  }
}

void TableReader::boolean(std::string_view key, bool& value) {
  const auto* node = find(key, Need::optional);
  if (node == nullptr) return;
  if (const auto* truth = node->as_boolean())
    value = truth->get();
  else
    mistake(key, "must be true or false");
}

void TableReader::number_(std::string_view key, std::uint64_t& value, std::uint64_t low, std::uint64_t high,
                          Need need) {
  const auto* node = find(key, need);
  if (node == nullptr) return;
  const auto* number = node->as_integer();
  if (number == nullptr || number->get() < 0 || static_cast<std::uint64_t>(number->get()) < low ||
      static_cast<std::uint64_t>(number->get()) > high)
    mistake(key, fmt::format("must be a whole number from {} to {}", low, high));
  else
    value = static_cast<std::uint64_t>(number->get());
}

void TableReader::choice(std::string_view key, std::string& value, std::initializer_list<std::string_view> choices) {
  const auto* node = find(key, Need::optional);
  if (node == nullptr) return;
  const auto* text = node->as_string();
  if (text != nullptr && std::find(choices.begin(), choices.end(), text->get()) != choices.end())
    value = text->get();
  else
    mistake(key, fmt::format("must be one of {}", fmt::join(choices, ", ")));
}

void TableReader::texts(std::string_view key, std::vector<std::string>& values) {
  const auto* node = find(key, Need::optional);
  if (node == nullptr) return;
  const auto* array = node->as_array();
  if (array == nullptr) return mistake(key, "must be a list of texts");
  for (const auto& element : *array) {
    if (const auto* text = element.as_string())
      values.push_back(text->get());
    else
      mistakes_.add(element.source(), full(key), "must be a list of texts");
  }
}

void TableReader::numbers(std::string_view key, std::vector<std::uint32_t>& values, std::uint32_t low,
                          std::uint32_t high) {
  const auto* node = find(key, Need::optional);
  if (node == nullptr) return;
  const auto what = fmt::format("must be a list of whole numbers from {} to {}", low, high);
  const auto* array = node->as_array();
  if (array == nullptr) return mistake(key, what);
  values.clear();
  for (const auto& element : *array) {
    const auto* number = element.as_integer();
    if (number != nullptr && number->get() >= low && number->get() <= high)
      values.push_back(static_cast<std::uint32_t>(number->get()));
    else
      mistakes_.add(element.source(), full(key), what);
  }
}

void TableReader::object(std::string_view key, boost::json::object& value) {
  const auto* node = find(key, Need::optional);
  if (node == nullptr) return;
  if (!node->is_table()) return mistake(key, "must be a table");
  value = to_json_value(*node, 0).as_object();
}

void TableReader::table(std::string_view key, const std::function<void(TableReader&)>& read, Need need) {
  const auto* node = find(key, need);
  if (node == nullptr) return;
  const auto* table = node->as_table();
  if (table == nullptr) return mistake(key, "must be a table");
  TableReader reader(*table, full(key), mistakes_);
  read(reader);
}

void TableReader::tables(std::string_view key, const std::function<void(TableReader&)>& read, Need need) {
  const auto* node = find(key, need);
  if (node == nullptr) return;
  const auto* array = node->as_array();
  if (array == nullptr) return mistake(key, "must be a list of tables");
  std::size_t index = 0;
  for (const auto& element : *array) {
    const auto* table = element.as_table();
    if (table == nullptr) {
      mistakes_.add(element.source(), full(key), "must be a list of tables");
      continue;
    }
    TableReader reader(*table, fmt::format("{}[{}]", full(key), index++), mistakes_);
    read(reader);
  }
}

std::optional<toml::table> parse_toml(std::string_view text, Mistakes& mistakes) {
  try {  // the packaged library reports by exceptions; none leaves this function
    return toml::parse(text);
  } catch (const toml::parse_error& failed) {
    mistakes.add(failed.source(), "", failed.description());
    return std::nullopt;
  }
}

toml::table to_toml(const boost::json::object& object) {
  toml::table table;
  for (const auto& entry : object)
    insert_value(entry.value(), [&](auto&& element) {
      table.insert_or_assign(std::string_view(entry.key()), std::forward<decltype(element)>(element));
    });
  return table;
}

}  // namespace backhaul
