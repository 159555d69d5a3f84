// One list of fields a type serves both directions: `template <class A> void fields(A& a, T& t) { a("name", t.name);
// ... }`. Reading is tolerant of missing fields (they keep their defaults, so that records of older versions can be
// read) and strict about types and enum names. Private to control/model/model_json.cpp and the like.
#pragma once

#include <boost/json.hpp>
#include <concepts>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "control/model/control_error.h"

namespace backhaul::json_fields {

// The parser of what is written as text, found through a tag: `std::optional<T> parse(Tag<T>, std::string_view)`.
template <class T>
struct Tag {};
template <class T>
concept Named = requires(std::string_view text) {
  parse(Tag<T>{}, text);
};

class Writer {
 public:
  explicit Writer(boost::json::object& into) : into_(into) {}
  template <class T>
  void operator()(std::string_view name, T& value) {
    into_[name] = make(value);
  }

  template <class T>
  static boost::json::value make(T& value) {
    using U = std::remove_const_t<T>;
    if constexpr (Named<U>) {
      return boost::json::string(to_string(value));
    } else if constexpr (std::is_arithmetic_v<U> || std::same_as<U, std::string> ||
                         std::same_as<U, boost::json::value> || std::same_as<U, boost::json::object>) {
      return boost::json::value(value);
    } else if constexpr (requires { value.has_value(); }) {
      return value ? make(*value) : boost::json::value(nullptr);
    } else if constexpr (requires { value.push_back(value.front()); }) {
      boost::json::array array;
      for (auto& element : value) array.push_back(make(element));
      return array;
    } else {
      boost::json::object object;
      Writer writer(object);
      fields(writer, value);
      return object;
    }
  }

 private:
  boost::json::object& into_;
};

class Reader {
 public:
  explicit Reader(const boost::json::object& from) : from_(from) {}
  template <class T>
  void operator()(std::string_view name, T& value) {
    if (const auto* found = from_.if_contains(name); found != nullptr && !read(*found, value)) fail(name);
  }
  // Empty, or the path of the first field that does not fit.
  const std::string& mistake() const { return mistake_; }

 private:
  void fail(std::string_view name) {
    if (mistake_.empty()) mistake_ = inner_.empty() ? std::string(name) : std::string(name) + "." + inner_;
    inner_.clear();
  }

  template <class T>
  bool read(const boost::json::value& json, T& value) {
    if constexpr (Named<T>) {
      if (!json.is_string()) return false;
      auto parsed = parse(Tag<T>{}, std::string_view(json.get_string()));
      if (parsed) value = *parsed;
      return parsed.has_value();
    } else if constexpr (std::same_as<T, bool>) {
      if (!json.is_bool()) return false;
      value = json.get_bool();
      return true;
    } else if constexpr (std::is_arithmetic_v<T>) {
      boost::system::error_code failed;
      value = json.to_number<T>(failed);
      return !failed;
    } else if constexpr (std::same_as<T, std::string>) {
      if (!json.is_string()) return false;
      value.assign(json.get_string().data(), json.get_string().size());
      return true;
    } else if constexpr (std::same_as<T, boost::json::value>) {
      value = json;
      return true;
    } else if constexpr (std::same_as<T, boost::json::object>) {
      if (!json.is_object()) return false;
      value = json.get_object();
      return true;
    } else if constexpr (requires { value.has_value(); }) {
      if (json.is_null()) {
        value.reset();
        return true;
      }
      return read(json, value.emplace());
    } else if constexpr (requires { value.push_back(value.front()); }) {
      if (!json.is_array()) return false;
      value.clear();
      for (const auto& element : json.get_array()) {
        typename T::value_type item{};
        if (!read(element, item)) return false;
        value.push_back(std::move(item));
      }
      return true;
    } else {
      if (!json.is_object()) return false;
      Reader reader(json.get_object());
      fields(reader, value);
      inner_ = reader.mistake();
      return inner_.empty();
    }
  }

  const boost::json::object& from_;
  std::string mistake_, inner_;
};

template <class T>
std::string write(const T& value) {
  boost::json::object object;
  Writer writer(object);
  fields(writer, const_cast<T&>(value));
  return boost::json::serialize(object);
}

template <class T>
Result<T> read(std::string_view text, std::string_view what) {
  boost::system::error_code failed;
  auto json = boost::json::parse(text, failed);
  if (failed || !json.is_object())
    return make_error(ControlErrc::store_damaged, std::string(what) + " is no JSON object");
  T value;
  Reader reader(json.get_object());
  fields(reader, value);
  if (!reader.mistake().empty())
    return make_error(ControlErrc::store_damaged, std::string(what) + ": field " + reader.mistake() + " does not fit");
  return value;
}

}  // namespace backhaul::json_fields
