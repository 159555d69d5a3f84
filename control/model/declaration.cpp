#include "control/model/declaration.h"

#include "control/model/control_error.h"
#include "control/model/model_fields.h"
#include "control/model/toml_json.h"

namespace backhaul {
namespace {

// The fields that people say.
template <class A>
void declaration(A& a, Item& v) {
  a("id", v.id, Need::required), a("vm", v.vm, Need::required);
  a(
      "recovery", [&](auto& place) { place_fields(place, v.recovery, false); }, Need::required);
  a(
      "primary", [&](auto& place) { place_fields(place, v.primary, true); }, Need::required);
  setting_fields(a, v);
}
template <class A>
void declaration(A& a, RecoveryPlan& v) {
  plan_fields(a, v);
}

Result<void> check(const Item& item) { return check_item(item); }
Result<void> check(const RecoveryPlan& plan) { return check_plan(plan); }

// Reads, then applies the rules that span several fields.
template <class T>
Result<T> declared(const boost::json::object& body, Mistakes& mistakes) {
  T value;
  BH_RETURN_IF_ERROR(read_fields(
      body, [&](FieldReader& reader) { declaration(reader, value); }, mistakes, ControlErrc::bad_file));
  if (auto checked = check(value); !checked) mistakes.add("", checked.error().cause());
  if (!mistakes.none()) return mistakes.to_error(ControlErrc::bad_file);
  return value;
}

template <class T>
Result<T> from_toml(std::string_view text, std::string_view name) {
  Mistakes mistakes(From::people, std::string(name));
  const auto file = parse_toml(text, mistakes);
  if (!file) return mistakes.to_error(ControlErrc::bad_file);
  return declared<T>(*file, mistakes);
}

template <class T>
Result<T> from_json(boost::json::object body, std::string_view id, const char* what) {
  Mistakes mistakes(From::people, what);
  if (const auto* given = body.if_contains("id"); given != nullptr && *given != boost::json::value(id))
    mistakes.add("id", "must be '" + std::string(id) + "', as in the path");
  body["id"] = id;
  return declared<T>(body, mistakes);
}

template <class T>
boost::json::object to_declaration(const T& value) {
  boost::json::object object;
  FieldWriter writer(object);
  declaration(writer, const_cast<T&>(value));
  return object;
}

}  // namespace

Result<Item> parse_item_toml(std::string_view text, std::string_view name) { return from_toml<Item>(text, name); }
Result<RecoveryPlan> parse_plan_toml(std::string_view text, std::string_view name) {
  return from_toml<RecoveryPlan>(text, name);
}
Result<Item> parse_item_json(const boost::json::object& body, std::string_view id) {
  return from_json<Item>(body, id, "item");
}
Result<RecoveryPlan> parse_plan_json(const boost::json::object& body, std::string_view id) {
  return from_json<RecoveryPlan>(body, id, "plan");
}

boost::json::object declared_json(const Item& item) {
  auto object = to_declaration(item);
  if (item.commit_policy.mode == CommitMode::none) object.erase("commit_policy");  // its minutes are none
  return object;
}
boost::json::object declared_json(const RecoveryPlan& plan) { return to_declaration(plan); }

}  // namespace backhaul
