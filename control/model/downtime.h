// The downtime of a planned failover: from the source's last acknowledged write to the target's first, in parts. Plain
// values and arithmetic; who measures what is in control/jobs/failback_tasks.cpp, what it means in docs/phases.md,
// section 3.
#pragma once

#include <cstdint>
#include <string>

namespace backhaul {

// Seconds; the parts add up to the downtime. `boot` lasts from the VM's start to the guest's first write. It is
// measured as 0 when the driver cannot tell; the downtime then ends with the start.
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

// Moments of one job by this appliance's wall clock, each recorded when it comes; 0: not yet. A clock that steps back
// shortens a part to 0, never below.
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

// The downtime begins with the last write, but not before the shutdown was asked for: a guest that had nothing to write
// was not down until then.
std::int64_t downtime_began_unix_ms(const DowntimeMoments& moments);
// The downtime ends with the first write, or with the start when that is not known. 0: not yet.
std::int64_t downtime_ended_unix_ms(const DowntimeMoments& moments);
// Of a downtime that has begun and ended; else all zeros.
DowntimeParts downtime_parts(const DowntimeMoments& moments);

}  // namespace backhaul
