// Turns request bodies into what the service takes. Every reader is strict: what is unknown, missing, of the wrong type
// or out of range is ApiErrc::bad_field (or bad_file for declarations), with each field's path in the cause.
#pragma once

#include <boost/json/object.hpp>
#include <string>
#include <string_view>

#include "base/error.h"
#include "control/model/job.h"
#include "control/model/model.h"
#include "control/store/store.h"

namespace backhaul {

struct TokenRequest {
  Role role = Role::reader;
  std::int64_t lifetime_s = 0;
};

Result<PlannedFailoverRequest> read_planned_failover(const boost::json::object& body);
Result<bool> read_commit(const boost::json::object& body);  // whether to delete the source's disks
Result<void> read_reprotect(const boost::json::object& body);
Result<void> read_remove(const boost::json::object& body);
Result<std::string> read_resume(const boost::json::object& body);  // the comment
Result<void> read_nothing(const boost::json::object& body);
Result<TokenRequest> read_token(const boost::json::object& body);
Result<Item> read_item(const boost::json::object& body, std::string_view id);
// Either shape of a plan's groups.
Result<RecoveryPlan> read_plan(const boost::json::object& body, std::string_view id);

}  // namespace backhaul
