// A round: all disks of a VM brought to one point in time (docs/phases.md, section 3). Called again and again until it
// is finished; what has happened so far is in the job.
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

// Gives an open snapshot back without accepting it.
Result<void> abandon_round(JobContext& context);

// The item's epoch becomes at least the highest that a target disk has on record: somebody may have sent to it by hand.
// Only where a job begins, where it is restarted, and on its way back: elsewhere a foreign epoch must fence the job.
Result<void> raise_epoch(JobContext& context);

// The disks of the target swapped in; actions swap/DISK.
Result<void> swap_disks(JobContext& context);
Result<void> release_old_disks(JobContext& context);

}  // namespace backhaul
