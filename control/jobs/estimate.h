// Projections and advice: pure functions of what was measured. Nothing here is a promise; the job shows the projection
// beside the measurement.
#pragma once

#include <vector>

#include "control/jobs/data_plane.h"
#include "control/model/job.h"
#include "control/model/model.h"

namespace backhaul {

// Used until an item's own jobs have measured. `delta` leaves out the time of its bytes.
inline constexpr DowntimeParts kAssumedDowntime{
    .shutdown = 30, .delta = 1, .verify = 1, .swap = 1, .wait = 0, .start = 1, .boot = 30};
inline constexpr double kAssumedBytesPerSecond = 100e6, kAssumedDigestBytesPerSecond = 400e6;

// The downtime if Complete Failover came now, with so many bytes left to send. Leaves out waits at a plan's gates.
DowntimeParts projected_downtime(const Item& item, std::uint64_t next_delta_bytes);
// Learns for the next projection from a failover that measured these, with so many bytes in its last round.
// `boot_known`: the guest's first write was seen; else the item's boot stays as it was.
void learn_downtime(Item& item, const DowntimeParts& measured, std::uint64_t delta_bytes, bool boot_known);

// `samples`: one for each disk. ForSynchronization is advised when a target disk is gone, or when sending everything
// with the VM off takes less time than finding and sending the changes.
Estimate estimate(const Item& item, const std::vector<ChangeSample>& samples);

// Whether the policy says Complete Failover now.
bool completes_now(const CompletePolicy& policy, double projected_s, std::int64_t now_unix_s);

}  // namespace backhaul
