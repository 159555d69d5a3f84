// The checks before a planned failover. They change nothing. check_host() and check_vm() are pure, so that each rule
// has its test; run_preflight() asks the two sites and applies them.
#pragma once

#include <vector>

#include "control/jobs/job_context.h"
#include "control/jobs/service.h"

namespace backhaul {

inline constexpr std::int64_t kMaxClockSkew_s = 30;
inline constexpr std::int64_t kMinCertificateLife_s = 24 * 3600, kWarnCertificateLife_s = 14 * 24 * 3600;

// `target_disks` pairs with the item's disks by position, absent ones included.
std::vector<Check> check_host(const Item& item, const Location& source, const Location& target,
                              const HostReport& report, const std::vector<TargetStatus>& target_disks,
                              const VmFacts& source_facts, std::int64_t now_unix_s);
std::vector<Check> check_vm(const Item& item, const Location& target, const VmFacts& target_facts,
                            const PlannedFailoverRequest& request);

PreflightReport run_preflight(JobServices& services, const Item& item, const Location& source, const Location& target,
                              const PlannedFailoverRequest& request);
const Check* first_failed(const PreflightReport& report);

// Reads a sample of both sides; never an error, the reason says what is missing.
Estimate sample_estimate(JobServices& services, const Item& item, const Location& source, const Location& target);

}  // namespace backhaul
