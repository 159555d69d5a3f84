// What a verb records: the checks of the phase tables, the new job, the item's new state; one transaction each. Used by
// the service, by plans for their items, and by the commit policy.
#pragma once

#include <string>

#include "control/model/job.h"
#include "control/store/records.h"

namespace backhaul {

struct Start {
  std::string job_id;  // never used before (Store::next_number)
  std::string actor;
  std::int64_t now_unix_s = 0;
  std::string plan, parent;  // when a plan's job starts it
};

// Error: forbidden_in_phase, naming item, state and verb.
Result<void> require_verb(const Item& item, ItemVerb verb);
Result<void> require_verb(const Job& job, JobVerb verb);

// Source, target and direction as the request and the item's state give them. Errors: invalid, forbidden_in_phase.
struct FailoverPath {
  Direction direction = Direction::recovery_to_primary;
  Location source, target;
};
Result<FailoverPath> failover_path(const Item& item, const PlannedFailoverRequest& request);

Result<void> start_planned_failover(Transaction& transaction, std::string_view item,
                                    const PlannedFailoverRequest& request, const Start& start);
// In FailoverCommitPending it only changes the item's state: it adds no job and returns false.
Result<bool> start_commit(Transaction& transaction, std::string_view item, bool delete_source_disks,
                          const Start& start);
// Cancels the running job (and returns false: its id is in the item), or adds an Undo job.
Result<bool> start_cancel(Transaction& transaction, std::string_view item, const Start& start);
Result<void> start_reprotect(Transaction& transaction, std::string_view item, const Start& start);
void add_replication_job(Transaction& transaction, Item& item, const std::string& id, std::int64_t now_unix_s,
                         std::string base_token = {});

Result<void> request_resume(Transaction& transaction, std::string_view job);
Result<void> request_cancel(Transaction& transaction, std::string_view job);
Result<void> restart_failed(Transaction& transaction, std::string_view job, std::int64_t now_unix_s);

}  // namespace backhaul
