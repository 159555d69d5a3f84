// The one way to read fields: JSON objects (TOML becomes one at the edge: control/model/toml_json.h) into plain values,
// and back. A type lists its fields once, with their bounds, for both directions:
//
//   template <class A>
//   void fields(A& a, TransferSettings& v) {
//     a("lanes", v.lanes, Within{0, kMaxLanes}), a("verify", v.verify);
//   }
//
// A type that is only read, or whose shape depends on what is said, lists them for FieldReader alone. What is refused
// depends on who wrote the object (From). Null is the same as absent. Nothing here outlives a call; any thread.
#pragma once

#include <boost/json.hpp>
#include <concepts>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"

namespace backhaul {

// Who wrote what is read.
enum class From : std::uint8_t {
  people,  // a file, a request: all mistakes are told; unknown keys and empty required texts and lists are mistakes
  peer,    // a driver, a host agent: unknown keys are a newer version's, an empty word is none
  store,   // ours, of any version: nothing is required; a number above its bound is capped, which the log tells
};

// What must hold of a field.
enum class Need : std::uint8_t {
  optional,
  declared,  // people must say it; a peer that does not know it leaves it out or says 0
  required,
};
struct Within {  // whole numbers; durations count in their unit
  std::int64_t low = 0, high = std::numeric_limits<std::int64_t>::max();
};
// Only people are held to these: of a VM that exists a driver says what it is.
struct Declared : Within {};
struct OneOf {             // texts
  std::string_view words;  // "raw, vhdx, vhdx-fixed"
};
struct DeclaredOneOf : OneOf {};
struct AtMost {
  std::size_t size = std::numeric_limits<std::size_t>::max();  // bytes of a text, entries of a list
};

// What is written as one word, an enum mostly: `template <> struct Word<E> : Words<parse_e, E::last> {};`
template <class E>
struct Word;
template <auto Parse, auto Last, auto First = decltype(Last){}>
struct Words {
  static auto parse(std::string_view text) { return Parse(text); }
  static std::string all() {  // "none, written, full"
    std::string words;
    for (int i = static_cast<int>(First); i <= static_cast<int>(Last); ++i)
      words.append(words.empty() ? "" : ", ").append(to_string(static_cast<decltype(Last)>(i)));
    return words;
  }
};

template <class T>
concept HasWord = requires(std::string_view text) {
  Word<T>::parse(text);
};

// Where a field stands: "drivers[0].timeout_s". A chain on the stack, which becomes a text only for a mistake.
struct FieldPlace {
  static constexpr std::size_t kNoIndex = std::numeric_limits<std::size_t>::max();
  const FieldPlace* outer = nullptr;
  std::string_view key = {};
  std::size_t index = kNoIndex;
  std::string path() const;
};

using FieldLines = std::map<std::string, std::uint32_t, std::less<>>;  // path -> line of a file

// What is wrong with one object. `name` stands in front: "web01.toml", "body", "a job".
class Mistakes {
 public:
  Mistakes(From from, std::string name) : from_(from), name_(std::move(name)) {}
  From from() const { return from_; }
  bool none() const { return count_ == 0; }

  // The line is that of the path, or of what it stands in.
  void add(std::string_view path, std::string_view what);
  void add_at(std::uint32_t line, std::string_view path, std::string_view what);
  void set_lines(FieldLines lines) { lines_ = std::move(lines); }
  // Tells the log, once a process: an item is read again and again.
  void tell_capped(std::string_view path, std::int64_t number, std::int64_t high) const;
  // To people all by line, at most kMaxListed ("web01.toml:7: vm.memory_mib: must be ..."); else the first one.
  Error to_error(std::error_code code) const;

  static constexpr std::size_t kMaxListed = 20;

 private:
  struct Line {
    std::uint32_t number;
    std::string path, what;
  };
  const From from_;
  const std::string name_;
  FieldLines lines_;
  std::vector<Line> listed_;
  std::size_t count_ = 0;
};

class FieldReader {
 public:
  static constexpr bool kReads = true;
  // All references outlive the reader.
  FieldReader(const boost::json::object& object, Mistakes& mistakes, FieldPlace place = {})
      : object_(object), mistakes_(mistakes), place_(place) {}
  FieldReader(const FieldReader&) = delete;
  FieldReader& operator=(const FieldReader&) = delete;

  // `value` keeps what it holds when nobody says otherwise. It may be a function of the inner object's FieldReader.
  template <class T, class... Limits>
  void operator()(std::string_view key, T&& value, const Limits&... limits) {
    const auto rule = make_rule(limits...);
    const FieldPlace place{&place_, key};
    constexpr bool kIsWord = HasWord<decltype(bare(value))>;
    if (const auto* json = find(place, rule, kIsWord)) read(*json, value, place, rule);
  }
  // A list of objects, each for `read_one(FieldReader&)`.
  template <class Read, class... Limits>
  void each(std::string_view key, Read read_one, const Limits&... limits) {
    const auto rule = make_rule(limits...);
    const FieldPlace place{&place_, key};
    const auto* json = find(place, rule, false);
    if (const auto* list = json == nullptr ? nullptr : list_of(*json, place, rule, "tables"))
      for (std::size_t i = 0; i < list->size(); ++i) read((*list)[i], read_one, FieldPlace{&place, {}, i}, rule);
  }
  // A text that `parse` understands (it gives an optional); `known` says what it may be. Empty is absent.
  template <class T, class Parse>
  void parsed(std::string_view key, T& value, Parse parse, std::string_view known, Need need = Need::optional) {
    std::string text;
    (*this)(key, text, need);
    if (text.empty()) return;
    if (auto found = parse(text))
      value = *found;
    else
      mistake(key, "must be " + std::string(known));
  }

  // What stands there, JSON's null too; nullptr when nothing does.
  const boost::json::value* get(std::string_view key) const { return object_.if_contains(key); }
  void mistake(std::string_view key, std::string_view what) { mistakes_.add(FieldPlace{&place_, key}.path(), what); }
  // After the last field: what people said and nobody asked for is a mistake.
  void finish();

 private:
  struct Rule {
    Need need = Need::optional;
    Within within = {};
    bool of_people = false;  // Declared
    OneOf one_of = {};
    AtMost most = {};
  };
  static void set(Rule& rule, Need need) { rule.need = need; }
  static void set(Rule& rule, Within within) { rule.within = within; }
  static void set(Rule& rule, Declared within) { rule.within = within, rule.of_people = true; }
  static void set(Rule& rule, OneOf one_of) { rule.one_of = one_of; }
  static void set(Rule& rule, DeclaredOneOf one_of) { rule.one_of = one_of, rule.of_people = true; }
  static void set(Rule& rule, AtMost most) { rule.most = most; }
  template <class... Limits>
  static Rule make_rule(const Limits&... limits) {
    Rule rule;
    (set(rule, limits), ...);
    return rule;
  }

  template <class T>
  static T bare(const T&);
  template <class T>
  static T bare(const std::optional<T>&);

  template <class T>
  void read(const boost::json::value& json, T& value, const FieldPlace& place, const Rule& rule) {
    if constexpr (std::same_as<T, bool>) {
      read_truth(json, value, place);
    } else if constexpr (std::same_as<T, std::string>) {
      read_text(json, value, place, rule);
    } else if constexpr (HasWord<T>) {
      const auto* text = json.if_string();
      auto word = text == nullptr ? std::nullopt : Word<T>::parse(std::string_view(*text));
      if (word)
        value = *word;
      else
        refuse(place, "must be one of " + Word<T>::all());
    } else if constexpr (std::integral<T>) {
      using Range = std::numeric_limits<T>;
      constexpr auto kMost = std::cmp_less(Range::max(), Within().high) ? std::int64_t(Range::max()) : Within().high;
      if (const auto number = whole(json, place, rule, std::int64_t(Range::min()), kMost))
        value = static_cast<T>(*number);
    } else if constexpr (std::floating_point<T>) {
      read_real(json, value, place);
    } else if constexpr (std::same_as<T, boost::json::value>) {
      value = json;
    } else if constexpr (std::same_as<T, boost::json::object>) {
      if (const auto* object = table(json, place)) value = *object;
    } else if constexpr (std::same_as<T, std::map<std::string, std::string>>) {
      read_texts_by_name(json, value, place);
    } else if constexpr (requires { typename T::period; }) {  // a duration
      std::int64_t count = value.count();
      read(json, count, place, rule);
      value = T(count);
    } else if constexpr (requires { value.has_value(); }) {
      read(json, value.emplace(), place, rule);
    } else if constexpr (requires { value.emplace_back(); }) {
      read_list(json, value, place, rule);
    } else if (const auto* object = table(json, place)) {
      FieldReader inner(*object, mistakes_, place);
      if constexpr (std::invocable<T&, FieldReader&>)
        value(inner);
      else
        fields(inner, value);
      inner.finish();
    }
  }

  template <class T>
  void read_list(const boost::json::value& json, std::vector<T>& values, const FieldPlace& place, const Rule& rule) {
    const auto* list = list_of(json, place, rule,
                               std::same_as<T, std::string> ? "texts"
                               : std::integral<T>           ? "whole numbers"
                                                            : "tables");
    if (list == nullptr) return;
    values.clear();
    values.reserve(list->size());
    for (std::size_t i = 0; i < list->size(); ++i)
      read((*list)[i], values.emplace_back(), FieldPlace{&place, {}, i}, rule);
  }

  // The value when something is said there; that a needed one is missing is a mistake.
  const boost::json::value* find(const FieldPlace& place, const Rule& rule, bool is_word);
  const boost::json::array* list_of(const boost::json::value& json, const FieldPlace& place, const Rule& rule,
                                    std::string_view of);
  const boost::json::object* table(const boost::json::value& json, const FieldPlace& place);
  std::optional<std::int64_t> whole(const boost::json::value& json, const FieldPlace& place, const Rule& rule,
                                    std::int64_t least, std::int64_t most);
  void read_truth(const boost::json::value& json, bool& value, const FieldPlace& place);
  void read_real(const boost::json::value& json, double& value, const FieldPlace& place);
  void read_text(const boost::json::value& json, std::string& value, const FieldPlace& place, const Rule& rule);
  void read_texts_by_name(const boost::json::value& json, std::map<std::string, std::string>& texts,
                          const FieldPlace& place);
  void refuse(const FieldPlace& place, std::string_view what) { mistakes_.add(place.path(), what); }

  const boost::json::object& object_;
  Mistakes& mistakes_;
  const FieldPlace place_;
  std::vector<std::string_view> asked_;
};

// The other direction; limits mean nothing here, and an optional that holds nothing is left out.
class FieldWriter {
 public:
  static constexpr bool kReads = false;
  explicit FieldWriter(boost::json::object& into) : into_(into) {}

  template <class T, class... Limits>
  void operator()(std::string_view key, T&& value, const Limits&...) {
    if constexpr (requires { value.has_value(); }) {
      if (value) into_[key] = make(*value);
    } else {
      into_[key] = make(value);
    }
  }

 private:
  template <class T>
  static boost::json::value make(T& value) {
    if constexpr (HasWord<std::remove_const_t<T>>) {
      return boost::json::string(to_string(value));
    } else if constexpr (std::is_arithmetic_v<T> || std::same_as<T, std::string> ||
                         std::same_as<T, boost::json::value> || std::same_as<T, boost::json::object>) {
      return boost::json::value(value);
    } else if constexpr (requires { value.emplace_back(); }) {
      boost::json::array array;
      for (auto& element : value) array.push_back(make(element));
      return array;
    } else {
      boost::json::object object;
      FieldWriter writer(object);
      if constexpr (std::invocable<T&, FieldWriter&>)
        value(writer);
      else
        fields(writer, value);
      return object;
    }
  }

  boost::json::object& into_;
};

// `value`: a struct with fields, or a function of FieldReader. `code` with the mistakes as its cause.
template <class T>
Result<void> read_fields(const boost::json::object& object, T&& value, Mistakes& mistakes, std::error_code code) {
  FieldReader reader(object, mistakes);
  if constexpr (std::invocable<T&, FieldReader&>)
    value(reader);
  else
    fields(reader, value);
  reader.finish();
  if (!mistakes.none()) return mistakes.to_error(code);
  return {};
}
template <class T>
Result<T> read_fields(const boost::json::object& object, From from, std::string name, std::error_code code) {
  T value{};
  Mistakes mistakes(from, std::move(name));
  BH_RETURN_IF_ERROR(read_fields(object, value, mistakes, code));
  return value;
}

template <class T>
boost::json::object write_fields(const T& value) {
  boost::json::object object;
  FieldWriter writer(object);
  fields(writer, const_cast<T&>(value));  // one list of fields for both directions; a writer changes nothing
  return object;
}

}  // namespace backhaul
