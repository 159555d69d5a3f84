// A round: all disks of a VM brought to one point in time (docs/phases.md, section 3). run_round() is called until it
// is finished; the job holds what has happened so far.
#pragma once

#include "control/jobs/job_context.h"

namespace backhaul {

struct RoundOptions {
  DataSync sync = DataSync::for_down_time;
  bool final = false;  // the source VM must be off
  bool swap = false;   // put the disks in place before the round ends (cycles)
};

// True: finished; false: transfers are under way, look again after the poll pause. BaseErrc::cancelled: a cancel is
// due.
Result<bool> run_round(JobContext& context, const RoundOptions& options);

// After an error of a round: counts it, stops its transfers, and gives the snapshot up at every second failure in a
// row, so that a broken one is not tried for ever.
Result<void> note_round_failure(JobContext& context, const Error& error);

// Releases an open snapshot without accepting it.
Result<void> abandon_round(JobContext& context);

// Raises the item's epoch at least to the highest that a target disk has on record: somebody may have sent to it by
// hand. Only where a job begins, is restarted or rolls back: elsewhere a foreign epoch must fence the job.
Result<void> raise_epoch(JobContext& context);

// Swaps the target's disks in; actions swap/DISK.
Result<void> swap_disks(JobContext& context);
Result<void> release_old_disks(JobContext& context);

}  // namespace backhaul
