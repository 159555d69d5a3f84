// Items, plans and jobs as the JSON that the store keeps; the API has its own shapes (control/api/api_shapes.h).
// Reading tolerates missing fields (older versions) and refuses wrong types and unknown enum names with store_damaged
// and the field's path.
#pragma once

#include <string>
#include <string_view>

#include "control/model/job.h"
#include "control/model/model.h"

namespace backhaul {

std::string to_json(const Item& item);
std::string to_json(const RecoveryPlan& plan);
std::string to_json(const Job& job);
Result<Item> item_from_json(std::string_view text);
Result<RecoveryPlan> plan_from_json(std::string_view text);
Result<Job> job_from_json(std::string_view text);

std::string_view to_string(CommitMode mode) noexcept;  // none, commit-after, undo-after
std::optional<CommitMode> parse_commit_mode(std::string_view text) noexcept;
std::string_view to_string(CompleteMode mode) noexcept;  // manual, automatic, scheduled, window
std::optional<CompleteMode> parse_complete_mode(std::string_view text) noexcept;
std::optional<TaskState> parse_task_state(std::string_view text) noexcept;

}  // namespace backhaul
