#include "control/model/fields.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <mutex>
#include <set>

namespace backhaul {
namespace {

bool is_word(std::string_view words, std::string_view text) {
  constexpr std::string_view kBetween = ", ";
  for (;;) {
    const auto end = words.find(kBetween);
    if (words.substr(0, end) == text) return true;
    if (end == words.npos) return false;
    words.remove_prefix(end + kBetween.size());
  }
}

}  // namespace

std::string FieldPlace::path() const {
  std::string path = outer == nullptr ? std::string() : outer->path();
  if (index != kNoIndex) return path + fmt::format("[{}]", index);
  if (!path.empty() && !key.empty()) path += '.';
  return path.append(key);
}

void Mistakes::add(std::string_view path, std::string_view what) {
  std::string_view place = path;
  auto line = lines_.find(place);
  while (line == lines_.end() && !place.empty()) {
    const auto end = place.find_last_of(".[");
    place = place.substr(0, end == place.npos ? 0 : end);
    line = lines_.find(place);
  }
  add_at(line == lines_.end() ? 0 : line->second, path, what);
}

void Mistakes::add_at(std::uint32_t line, std::string_view path, std::string_view what) {
  if (++count_ <= kMaxListed) listed_.push_back({line, std::string(path), std::string(what)});
}

void Mistakes::tell_capped(std::string_view path, std::int64_t number, std::int64_t high) const {
  static std::mutex mutex;
  static std::set<std::string> told;  // as many as old versions have left
  const auto text =
      fmt::format("{}: {}: {} is above the bound of {}, which is used instead", name_, path, number, high);
  const std::lock_guard lock(mutex);
  if (told.insert(text).second) spdlog::warn("{}", text);
}

Error Mistakes::to_error(std::error_code code) const {
  if (from_ != From::people) {
    const auto& first = listed_.front();
    return make_error(code, fmt::format("{}{}field '{}' {}", name_, name_.empty() ? "" : ": ", first.path, first.what));
  }
  std::string text;
  auto lines = listed_;
  std::stable_sort(lines.begin(), lines.end(), [](const Line& a, const Line& b) { return a.number < b.number; });
  for (const auto& [number, path, what] : lines)
    text += fmt::format("{}{}{}: {}{}{}", text.empty() ? "" : "\n", name_,
                        number == 0 ? "" : fmt::format(":{}", number), path, path.empty() ? "" : ": ", what);
  if (count_ > kMaxListed) text += fmt::format("\nand {} more", count_ - kMaxListed);
  return make_error(code, std::move(text));
}

const boost::json::value* FieldReader::find(const FieldPlace& place, const Rule& rule, bool is_word) {
  const auto from = mistakes_.from();
  if (from == From::people) asked_.push_back(place.key);
  const auto* json = get(place.key);
  if (json == nullptr || json->is_null()) {
    if (rule.need == Need::required ? from != From::store : rule.need == Need::declared && from == From::people)
      refuse(place, "is missing");
    return nullptr;
  }
  is_word = is_word || !rule.one_of.words.empty();
  const bool is_none =
      is_word && from == From::peer && rule.need != Need::required && json->is_string() && json->get_string().empty();
  return is_none ? nullptr : json;
}

void FieldReader::finish() {
  if (mistakes_.from() != From::people) return;
  std::sort(asked_.begin(), asked_.end());
  asked_.erase(std::unique(asked_.begin(), asked_.end()), asked_.end());
  for (const auto& [key, value] : object_)
    if (!value.is_null() && !std::binary_search(asked_.begin(), asked_.end(), std::string_view(key)))
      mistake(key, fmt::format("is no known key; known are {}", fmt::join(asked_, ", ")));
}

const boost::json::array* FieldReader::list_of(const boost::json::value& json, const FieldPlace& place,
                                               const Rule& rule, std::string_view of) {
  const auto* list = json.if_array();
  if (list == nullptr)
    refuse(place, fmt::format("must be a list of {}", of));
  else if (list->empty() && rule.need != Need::optional && mistakes_.from() == From::people)
    refuse(place, "must not be empty");
  else if (list->size() > rule.most.size && mistakes_.from() != From::store)
    refuse(place, fmt::format("has at most {} entries", rule.most.size));
  else
    return list;
  return nullptr;
}

const boost::json::object* FieldReader::table(const boost::json::value& json, const FieldPlace& place) {
  const auto* object = json.if_object();
  if (object == nullptr) refuse(place, "must be a table");
  return object;
}

std::optional<std::int64_t> FieldReader::whole(const boost::json::value& json, const FieldPlace& place,
                                               const Rule& rule, std::int64_t least, std::int64_t most) {
  const auto from = mistakes_.from();
  const bool held = !rule.of_people || from != From::peer;
  const auto low = held ? rule.within.low : least;
  const auto high = held ? std::min(rule.within.high, most) : most;
  boost::system::error_code failed;
  const auto number = json.to_number<std::int64_t>(failed);
  const bool is_whole = !failed && !(json.is_double() && from == From::people);
  if (is_whole && from == From::store && number >= least && number <= most) {
    if (number > high) mistakes_.tell_capped(place.path(), number, high);
    return std::min(number, high);
  }
  if (is_whole && number == 0 && from == From::peer && rule.need == Need::declared) return std::nullopt;
  if (is_whole && number >= low && number <= high) return number;
  refuse(place, fmt::format("must be a whole number from {} to {}", low, high));
  return std::nullopt;
}

void FieldReader::read_truth(const boost::json::value& json, bool& value, const FieldPlace& place) {
  if (json.is_bool())
    value = json.get_bool();
  else
    refuse(place, "must be true or false");
}

void FieldReader::read_real(const boost::json::value& json, double& value, const FieldPlace& place) {
  boost::system::error_code failed;
  const auto number = json.to_number<double>(failed);
  if (failed)
    refuse(place, "must be a number");
  else
    value = number;
}

void FieldReader::read_text(const boost::json::value& json, std::string& value, const FieldPlace& place,
                            const Rule& rule) {
  const auto from = mistakes_.from();
  const auto words = rule.of_people && from == From::peer ? std::string_view() : rule.one_of.words;
  const auto* text = json.if_string();
  if (!words.empty() && (text == nullptr || !is_word(words, std::string_view(*text))))
    refuse(place, fmt::format("must be one of {}", words));
  else if (text == nullptr)
    refuse(place, "must be a text");
  else if (text->empty() && rule.need != Need::optional && from == From::people)
    refuse(place, "must not be empty");
  else if (text->size() > rule.most.size && from != From::store)
    refuse(place, fmt::format("has at most {} bytes", rule.most.size));
  else
    value.assign(text->data(), text->size());
}

void FieldReader::read_texts_by_name(const boost::json::value& json, std::map<std::string, std::string>& texts,
                                     const FieldPlace& place) {
  const auto* object = table(json, place);
  if (object == nullptr) return;
  for (const auto& [name, text] : *object) {
    if (!text.is_string() || name.empty() || name.find('=') != name.npos)
      refuse(place, fmt::format("'{}' must be a name with a text", std::string_view(name)));
    else
      texts[name] = text.get_string();
  }
}

}  // namespace backhaul
