#include "control/model/downtime.h"

#include <algorithm>

namespace backhaul {
namespace {

// Seconds from `at` to the moment, which becomes `at`. A moment that is missing takes 0 and leaves `at`.
double until(std::int64_t& at, std::int64_t moment_unix_ms) {
  if (moment_unix_ms <= at) return 0;
  const auto passed_ms = moment_unix_ms - at;
  at = moment_unix_ms;
  return static_cast<double>(passed_ms) / 1000;
}

}  // namespace

std::int64_t downtime_began_unix_ms(const DowntimeMoments& moments) {
  return std::max(moments.asked_unix_ms, moments.last_write_unix_ms);
}

std::int64_t downtime_ended_unix_ms(const DowntimeMoments& moments) {
  return std::max(moments.started_unix_ms, moments.first_write_unix_ms);
}

DowntimeParts downtime_parts(const DowntimeMoments& moments) {
  DowntimeParts parts;
  std::int64_t at = downtime_began_unix_ms(moments);
  if (moments.asked_unix_ms == 0 || moments.started_unix_ms == 0) return parts;
  parts.shutdown = until(at, moments.off_unix_ms);
  parts.delta = until(at, moments.delivered_unix_ms);
  parts.verify = std::min(parts.delta, moments.verify_s);
  parts.delta -= parts.verify;
  parts.swap = until(at, moments.swapped_unix_ms);
  parts.wait = until(at, moments.boot_begun_unix_ms);
  parts.start = until(at, moments.started_unix_ms);
  parts.boot = until(at, moments.first_write_unix_ms);
  return parts;
}

}  // namespace backhaul
