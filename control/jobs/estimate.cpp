#include "control/jobs/estimate.h"

#include <fmt/format.h>

#include <algorithm>

namespace backhaul {
namespace {

double measured_or(double measured, double assumed) { return measured > 0 ? measured : assumed; }

double sending_s(const Item& item, std::uint64_t bytes) {
  return static_cast<double>(bytes) / measured_or(item.bytes_per_s, kAssumedBytesPerSecond);
}

}  // namespace

DowntimeParts projected_downtime(const Item& item, std::uint64_t next_delta_bytes) {
  DowntimeParts parts = item.downtime_measured ? item.downtime : kAssumedDowntime;
  parts.boot = item.boot_measured ? item.downtime.boot : kAssumedDowntime.boot;
  parts.delta += sending_s(item, next_delta_bytes);
  parts.wait = 0;
  return parts;
}

void learn_downtime(Item& item, const DowntimeParts& measured, std::uint64_t delta_bytes, bool boot_known) {
  const double boot = boot_known ? measured.boot : item.downtime.boot;
  item.downtime = measured;
  item.downtime.boot = boot;
  item.downtime.delta = std::max(0.0, measured.delta - sending_s(item, delta_bytes));
  item.downtime_measured = true;
  item.boot_measured = item.boot_measured || boot_known;
}

Estimate estimate(const Item& item, const std::vector<ChangeSample>& samples) {
  Estimate result;
  if (samples.empty()) {
    result.reason = "nothing could be sampled";
    result.downtime_s = projected_downtime(item, 0).sum();
    return result;
  }
  double find_s = 0, send_s = 0, full_s = 0;
  bool target_gone = false;
  for (const auto& sample : samples) {
    const double rate = measured_or(item.bytes_per_s, kAssumedBytesPerSecond);
    const double digest_rate =
        measured_or(sample.digest_bytes_per_s, measured_or(item.digest_bytes_per_s, kAssumedDigestBytesPerSecond));
    const double allocated = static_cast<double>(sample.allocated_bytes);
    const double changed = sample.target_exists ? allocated * sample.changed_fraction : allocated;
    target_gone = target_gone || !sample.target_exists;
    result.bytes += static_cast<std::uint64_t>(changed);
    find_s += allocated / digest_rate;
    send_s += changed / rate;
    full_s += allocated / rate;
    result.full_bytes += sample.allocated_bytes;
  }
  result.seconds = find_s + send_s;
  // The first delta is what changes while the first round runs. Only the delta rounds show how much that is; here it is
  // 0.
  result.downtime_s = projected_downtime(item, 0).sum();
  if (target_gone) {
    result.advise_for_synchronization = true;
    result.reason = "a target disk is gone: there is nothing to compare with";
  } else if (full_s < find_s + send_s) {
    result.advise_for_synchronization = true;
    result.reason = fmt::format("sending everything takes {:.0f} s, finding and sending the changes {:.0f} s", full_s,
                                find_s + send_s);
  } else {
    result.reason = fmt::format("finding and sending the changes takes {:.0f} s, sending everything {:.0f} s",
                                find_s + send_s, full_s);
  }
  return result;
}

bool completes_now(const CompletePolicy& policy, double projected_s, std::int64_t now_unix_s) {
  const bool in_budget = policy.downtime_budget_s <= 0 || projected_s <= policy.downtime_budget_s;
  switch (policy.mode) {
    case CompleteMode::manual: return false;
    case CompleteMode::automatic: return in_budget;
    case CompleteMode::scheduled: return now_unix_s >= policy.at_unix_s;
    case CompleteMode::window:
      return in_budget && now_unix_s >= policy.window_start_unix_s && now_unix_s < policy.window_end_unix_s;
  }
  return false;
}

}  // namespace backhaul
