// One function per task: it does one step, what can be done now, and is called again until it says done. The runner
// tries again after errors that can pass; others fail the job. After a crash a function starts anew with what the job
// holds.
#pragma once

#include "control/jobs/job_context.h"

namespace backhaul {

Result<Step> prepare_failover(JobContext& context);
Result<Step> replicate(JobContext& context);
Result<Step> wait_for_complete(JobContext& context);
Result<Step> shutdown_source(JobContext& context);
Result<Step> final_delta(JobContext& context);
Result<Step> full_download(JobContext& context);
Result<Step> swap_in(JobContext& context);
Result<Step> start_target(JobContext& context);

Result<Step> delete_source_vm(JobContext& context);
Result<Step> complete_commit(JobContext& context);
Result<Step> stop_target(JobContext& context);
Result<Step> give_back_disks(JobContext& context);
Result<Step> start_source(JobContext& context);
Result<Step> prepare_reprotect(JobContext& context);
Result<Step> initial_replication(JobContext& context);
Result<Step> replication_cycle(JobContext& context);

Result<Step> plan_replicate(JobContext& context);
Result<Step> plan_wait(JobContext& context);
Result<Step> plan_shutdown(JobContext& context);
Result<Step> plan_boot(JobContext& context);
Result<Step> plan_items(JobContext& context);
// Cancels the plan's item jobs; true when all of them have come to rest.
Result<bool> cancel_plan_items(JobContext& context);

}  // namespace backhaul
