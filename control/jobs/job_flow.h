// How a job goes from task to task, and what that makes of its item. Functions on values, without side effects, so that
// they can run inside a store transaction, more than once.
#pragma once

#include <chrono>

#include "control/model/job.h"
#include "control/model/model.h"
#include "control/store/records.h"

namespace backhaul {

// A job as a verb records it: NotStarted, with its tasks.
Job make_job(JobKind kind, std::string id, DataSync sync, std::string actor, std::int64_t now_unix_s);

// Begins the current task of a job that is NotStarted or restarted.
void enter_task(Job& job, std::int64_t now_unix_s);

// Ends the current task: begins the next one, or ends the job and sets its item's state (`item` null for a plan job).
// `spare_id` is for a replication job, which the end of a job may call for; `minute`: Pace::minute.
void complete_task(Transaction& transaction, Job& job, Item* item, std::int64_t now_unix_s, const std::string& spare_id,
                   std::chrono::seconds minute);

// Lets a recorded cancel take effect: the rollback tasks replace what is left.
void begin_rollback(Transaction& transaction, Job& job, Item* item, std::int64_t now_unix_s,
                    const std::string& spare_id, std::chrono::seconds minute);

void fail_job(Job& job, Item* item, JobError error);
void note_error(Job& job, JobError error);

// True between the swaps of a VM's disks: a cancel waits until all are swapped.
bool must_go_forward(const Job& job);
// Whether a recorded cancel takes effect now.
bool cancel_is_due(const Job& job);

}  // namespace backhaul
