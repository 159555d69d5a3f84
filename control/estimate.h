// Projections and advice: pure functions of what was measured. Nothing here is a promise; the job shows what was
// projected beside what was measured.
#pragma once

#include <vector>

#include "control/data_plane.h"
#include "control/job.h"
#include "control/model.h"

namespace backhaul {

// Used until an item's own jobs have measured theirs.
inline constexpr double kAssumedShutdown_s = 30, kAssumedBoot_s = 30, kAssumedBytesPerSecond = 100e6,
                        kAssumedDigestBytesPerSecond = 400e6;
inline constexpr double kVerifyAndSwap_s = 2;

double projected_downtime_s(const Item& item, std::uint64_t next_delta_bytes);

// `samples`: one for each disk. ForSynchronization is advised when a target disk is gone, or when sending everything
// with the VM off takes less time than finding and sending the changes.
Estimate estimate(const Item& item, const std::vector<ChangeSample>& samples);

// Whether the policy says Complete Failover now.
bool completes_now(const CompletePolicy& policy, double projected_s, std::int64_t now_unix_s);

}  // namespace backhaul
