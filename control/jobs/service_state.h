// The inside of Service, which owns it; shared by Service's files.
#pragma once

#include "control/jobs/event_log.h"
#include "control/jobs/operations.h"
#include "control/jobs/runner.h"
#include "control/jobs/service.h"
#include "control/store/records.h"

namespace backhaul {

struct Service::State {
  Store& store;
  Clock& clock;
  Random& random;
  Limits limits;
  Records records;
  EventLog events;
  Runner runner;

  State(Store& in_store, DataPlane& data_plane, VmDriverSource& drivers, Clock& in_clock, Random& in_random,
        std::string owner, const Limits& in_limits, const Pace& pace, ActionCommand run_action);

  std::int64_t now() const { return clock.unix_time_s(); }
  Result<void> require_role(const Actor& actor, Role role) const;
  Result<Start> new_start(const Actor& actor);
  // Checks the role, runs the transaction, and audits the outcome, a refusal too.
  Result<void> verb(const Actor& actor, Role role, std::string_view action, const std::string& object,
                    const std::function<Result<void>(Transaction&)>& change);
  void audit(const Actor& actor, std::string_view action, std::string_view object, std::string_view outcome,
             std::string_view detail);
  void prune_jobs();
  JobServices services;
};

}  // namespace backhaul
