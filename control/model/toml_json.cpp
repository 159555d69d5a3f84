#include "control/model/toml_json.h"

#include <toml++/toml.h>

#include <sstream>

namespace backhaul {
namespace {

constexpr int kMaxDepth = 32;

class TomlReader {
 public:
  explicit TomlReader(Mistakes& mistakes) : mistakes_(mistakes) {}

  boost::json::value read(const toml::node& node, const std::string& path, int depth) {
    if (const auto line = node.source().begin.line; line != 0) lines_.emplace(path, line);
    if (depth > kMaxDepth) {
      mistakes_.add_at(node.source().begin.line, path, "stands too deep");
      return nullptr;
    }
    if (const auto* text = node.as_string()) return boost::json::string(text->get());
    if (const auto* number = node.as_integer()) return number->get();
    if (const auto* real = node.as_floating_point()) return real->get();
    if (const auto* truth = node.as_boolean()) return truth->get();
    if (const auto* array = node.as_array()) {
      boost::json::array values;
      for (const auto& element : *array)
        values.push_back(read(element, path + "[" + std::to_string(values.size()) + "]", depth + 1));
      return values;
    }
    if (const auto* table = node.as_table()) {
      boost::json::object object;
      for (const auto& [key, element] : *table)
        object[key.str()] = read(element, path + (path.empty() ? "" : ".") + std::string(key.str()), depth + 1);
      return object;
    }
    std::ostringstream text;  // dates and times
    node.visit([&](const auto& value) {
      if constexpr (toml::is_value<decltype(value)>) text << value.get();
    });
    return boost::json::string(text.str());
  }

  FieldLines take_lines() { return std::move(lines_); }

 private:
  Mistakes& mistakes_;
  FieldLines lines_;
};

}  // namespace

std::optional<boost::json::object> parse_toml(std::string_view text, Mistakes& mistakes) {
  try {  // the packaged library reports by exceptions; none leaves this function
    const toml::table table = toml::parse(text);
    TomlReader reader(mistakes);
    auto json = reader.read(table, "", 0);
    mistakes.set_lines(reader.take_lines());
    return std::move(json.get_object());
  } catch (const toml::parse_error& failed) {
    mistakes.add_at(failed.source().begin.line, "", failed.description());
    return std::nullopt;
  }
}

}  // namespace backhaul
