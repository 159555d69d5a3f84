// Items and recovery plans as people declare them: TOML files (`backhaul item add FILE.toml`), or the same tree as JSON
// (PUT). Strict: unknown keys, wrong types and values out of range are all found in one pass; the error (bad_file)
// lists each with its line and key. docs/OPERATIONS.md and examples/files show the keys.
#pragma once

#include <boost/json/object.hpp>
#include <string_view>

#include "base/error.h"
#include "control/model/model.h"

namespace backhaul {

// `name` stands in messages: "web01.toml:7: vm.memory_mib: must be a whole number from 1 to 67108864".
Result<Item> parse_item_toml(std::string_view text, std::string_view name);
Result<RecoveryPlan> parse_plan_toml(std::string_view text, std::string_view name);
// Messages without lines. `id` comes from the resource's path; an "id" inside must be the same.
Result<Item> parse_item_json(const boost::json::object& body, std::string_view id);
Result<RecoveryPlan> parse_plan_json(const boost::json::object& body, std::string_view id);

// Ids, and what spans several fields; each field's own bounds are kept by whoever read it
// (control/model/model_fields.h). ControlErrc::invalid names the field.
Result<void> check_item(const Item& item);
Result<void> check_plan(const RecoveryPlan& plan);

// What was declared, in the shape that parse_item_json() reads.
boost::json::object declared_json(const Item& item);
boost::json::object declared_json(const RecoveryPlan& plan);

}  // namespace backhaul
