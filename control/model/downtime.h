// The downtime of a planned failover: from the source's last acknowledged write to the target's first, in parts. Plain
// values and arithmetic; who measures what is in control/jobs/failback_tasks.cpp, what it means in docs/phases.md,
// section 3.
#pragma once

#include <cstdint>
#include <string>

namespace backhaul {

// Seconds. They add up to the downtime. `boot`: from the VM's start to the guest's first write; 0 in what was measured
// when the driver cannot tell: the downtime then ends with the start.
struct DowntimeParts {
  double shutdown = 0;  // until the VM is off
  double delta = 0;     // the last round, without:
  double verify = 0;
  double swap = 0;
  double wait = 0;   // for a plan's boot gate
  double start = 0;  // create and start of the VM
  double boot = 0;

  double sum() const { return shutdown + delta + verify + swap + wait + start + boot; }
};

// Moments of one job, each recorded when it has come; this appliance's wall clock, 0: not yet. A step back of that
// clock shortens a part to nothing and never below.
struct DowntimeMoments {
  std::int64_t asked_unix_ms = 0;       // the shutdown was asked for
  std::int64_t last_write_unix_ms = 0;  // the source's last acknowledged write; 0 also: the driver cannot tell
  std::int64_t off_unix_ms = 0, delivered_unix_ms = 0, swapped_unix_ms = 0, boot_begun_unix_ms = 0;
  std::int64_t started_unix_ms = 0;
  std::int64_t first_write_unix_ms = 0;  // the target's; 0 also: the driver cannot tell, or did not in time
  std::uint64_t unsure_ms = 0;           // the first write may have been so much earlier
  double verify_s = 0;
  std::string no_first_write;  // why it is not known
};

// Where the downtime begins: with the last write, but not before the shutdown was asked for, so that a guest that had
// nothing to write was not down for all that time.
std::int64_t downtime_began_unix_ms(const DowntimeMoments& moments);
// The first write, or the start. 0: not yet.
std::int64_t downtime_ended_unix_ms(const DowntimeMoments& moments);
// Of a downtime that has begun and ended; else all zeros.
DowntimeParts downtime_parts(const DowntimeMoments& moments);

}  // namespace backhaul
