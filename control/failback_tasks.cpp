#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <boost/json.hpp>

#include "control/estimate.h"
#include "control/job_flow.h"
#include "control/preflight.h"
#include "control/round.h"
#include "control/tasks.h"

namespace backhaul {
namespace {

double seconds(Clock::Duration duration) { return std::chrono::duration<double>(duration).count(); }

// The replication job gives its staged disks back before a failover begins; its base is then what the target holds.
Result<bool> replication_has_ended(JobContext& c) {
  if (c.item.replication_job.empty()) return true;
  BH_TRY(Job replication, c.world.records.job(c.item.replication_job));
  return has_ended(replication.state);
}

Result<void> adopt_replication_base(JobContext& c) {
  // Only the last replication job of this item can have a base that still holds; it is found by the item's own jobs.
  if (c.job.direction != Direction::primary_to_recovery || c.job.round.number != 0) return {};
  BH_TRY(auto jobs, c.world.records.jobs());
  const Job* last = nullptr;
  for (const auto& job : jobs)
    if (job.kind == JobKind::replication && job.item == c.job.item &&
        (last == nullptr || std::stoull(job.id) > std::stoull(last->id)))
      last = &job;
  if (last == nullptr || last->round.open || last->round.base_token.empty()) return {};
  return c.update([&](Job& job, Item&) { job.round.base_token = last->round.base_token; });
}

Result<Step> step_of_round(JobContext& c, const RoundOptions& options) {
  auto finished = run_round(c, options);
  if (!finished) {
    if (finished.error() == make_error_code(BaseErrc::cancelled)) return finished.error();
    BH_CHECK(note_round_failure(c, finished.error()));
    return finished.error();
  }
  return *finished ? Step::finished() : Step::after(c.pace.poll);
}

// Shows what the next delta would be and what Complete Failover would cost now.
Result<void> look_ahead(JobContext& c) {
  std::uint64_t next = 0;
  bool known = false;
  if (!c.job.round.base_token.empty()) {
    BH_TRY(VmDriver * driver, c.driver(c.job.source));
    auto bytes = driver->changed_bytes(c.source_vm(), c.job.round.base_token);
    if (bytes && *bytes) next = **bytes, known = true;
  }
  if (!known)  // the next delta will be like the last one
    for (const auto& disk : c.job.round.disks) next += disk.payload_bytes;
  const double projected = projected_downtime_s(c.item, next);
  if (next == c.job.next_delta_bytes && projected == c.job.projected_downtime_s) return {};
  return c.update(
      [&](Job& job, Item&) {
        job.next_delta_bytes = next;
        job.projected_downtime_s = projected;
      },
      Durability::relaxed);
}

Clock::Duration retry_pause(const JobContext& c, std::uint32_t failures) {
  Clock::Duration pause = c.pace.retry_first;
  for (std::uint32_t i = 1; i < failures && pause < c.pace.retry_last; ++i) pause *= 2;
  return std::min<Clock::Duration>(pause, c.pace.retry_last);
}

}  // namespace

Result<Step> prepare_failover(JobContext& c) {
  BH_TRY(bool ended, replication_has_ended(c));
  if (!ended) return Step::after(c.pace.poll);
  BH_CHECK(adopt_replication_base(c));
  PreflightReport report = run_preflight(c.world, c.item, c.job.source, c.job.target, c.job.request);
  if (const Check* failed = first_failed(report)) {
    // An agent that is away for a moment was there when the verb was accepted: worth another try.
    const bool passes = failed->code == make_error(ControlErrc::host_unreachable).symbol();
    return make_error(passes ? ControlErrc::host_unreachable : ControlErrc::precondition_failed,
                      fmt::format("{}: {} ({})", failed->name, failed->cause, failed->fix));
  }
  BH_CHECK(meet_epochs(c));
  Estimate sampled = sample_estimate(c.world, c.item, c.job.source, c.job.target);
  BH_CHECK(c.update([&](Job& job, Item&) {
    job.estimate = sampled;
    job.projected_downtime_s = sampled.downtime_s;
    job.tasks[job.current_task].detail =
        sampled.advise_for_synchronization && job.request.data_sync == DataSync::for_down_time
            ? "ForSynchronization would be faster: " + sampled.reason
            : sampled.reason;
  }));
  return Step::finished();
}

Result<Step> replicate(JobContext& c) { return step_of_round(c, {DataSync::for_down_time, false, false}); }

Result<Step> wait_for_complete(JobContext& c) {
  const auto now = c.world.clock.now();
  if (c.job.round.open) {
    if (now < c.live.retry_round_at) return Step::after(c.live.retry_round_at - now);
    auto finished = run_round(c, {DataSync::for_down_time, false, false});
    if (!finished) {
      if (finished.error() == make_error_code(BaseErrc::cancelled)) return finished.error();
      // Nothing is lost while the VM runs on: shown, and tried again. With Complete Failover said, the abandoned
      // round's changes are in the final delta.
      BH_CHECK(note_round_failure(c, finished.error()));
      BH_CHECK(c.update([&](Job& job, Item&) { note_error(job, to_job_error(finished.error(), c.now_unix_s())); }));
      c.live.retry_round_at = now + retry_pause(c, c.job.round.failures);
      if (c.job.complete_requested) {
        BH_CHECK(abandon_round(c));
        return Step::finished();
      }
      return Step::after(c.live.retry_round_at - now);
    }
    if (!*finished) return Step::after(c.pace.poll);
    BH_CHECK(c.refresh());
  }
  if (c.job.complete_requested) return Step::finished();

  if (c.live.last_look.count() == 0 || now >= c.live.last_look + c.pace.look) {
    BH_CHECK(look_ahead(c));
    c.live.last_look = now;
  }
  if (c.job.parent.empty() && completes_now(c.job.request.complete, c.job.projected_downtime_s, c.now_unix_s())) {
    BH_CHECK(c.update([&](Job& job, Item&) {
      if (job.cancel_requested) return;
      job.complete_requested = true;
      set_state(job, JobState::in_progress);
    }));
    return Step::repeat();
  }
  const auto age = std::chrono::seconds(c.now_unix_s() - c.job.round.point_unix_s);
  if ((age >= c.pace.delta_interval || (age >= c.pace.delta_least && c.job.next_delta_bytes > c.pace.delta_bytes)) &&
      now >= c.live.retry_round_at) {
    auto started = run_round(c, {DataSync::for_down_time, false, false});
    if (!started && started.error() == make_error_code(BaseErrc::cancelled)) return started.error();
    if (!started) {
      BH_CHECK(note_round_failure(c, started.error()));
      BH_CHECK(c.update([&](Job& job, Item&) { note_error(job, to_job_error(started.error(), c.now_unix_s())); }));
      c.live.retry_round_at = now + retry_pause(c, c.job.round.failures);
    }
    return Step::after(c.pace.poll);
  }
  return Step::after(
      std::min<Clock::Duration>(c.pace.look, std::max<Clock::Duration>(c.pace.delta_interval - age, c.pace.poll)));
}

Result<Step> shutdown_source(JobContext& c) {
  if (!c.job.gates.shutdown) return Step::after(c.pace.look);
  BH_TRY(VmDriver * driver, c.driver(c.job.source));
  if (c.find_action("shutdown") == nullptr) {
    BH_TRY(VmFacts facts, driver->describe(c.source_vm()));
    if (facts.power == PowerState::off) return Step::finished();  // not by us, so a cancel does not start it
  }
  const auto started = c.world.clock.now();
  const auto shut_down = [&]() -> Result<boost::json::value> {
    ShutdownRequest request{c.item.shutdown.timeout_s,
                            c.job.request.allow_forced_shutdown.value_or(c.item.shutdown.allow_force)};
    BH_TRY(ShutdownOutcome outcome, driver->shut_down(c.source_vm(), request));
    BH_TRY(VmFacts facts, driver->describe(c.source_vm()));
    if (facts.power != PowerState::off)
      return make_error(ControlErrc::driver_failed,
                        fmt::format("after its shutdown the VM is {}", to_string(facts.power)));
    return boost::json::value{{"forced", outcome.forced}, {"seconds", seconds(c.world.clock.now() - started)}};
  };
  if (c.live.source_down.count() == 0) c.live.source_down = started;
  BH_CHECK(c.once(
      "shutdown", shut_down,
      [&](Job& job, Item&) {
        job.source_shut_down = true;
        if (job.source_down_unix_s == 0) job.source_down_unix_s = c.now_unix_s();
      },
      [&](Job& job, Item& item, const boost::json::value& outcome) {
        const auto& object = outcome.as_object();
        item.shutdown_s = object.at("seconds").to_number<double>();
        job.tasks[job.current_task].detail =
            object.at("forced").as_bool() ? "forced: the guest did not shut down in time" : "graceful";
      }));
  return Step::finished();
}

Result<Step> final_delta(JobContext& c) { return step_of_round(c, {DataSync::for_down_time, true, false}); }
Result<Step> full_download(JobContext& c) { return step_of_round(c, {DataSync::for_synchronization, true, false}); }

Result<Step> swap_in(JobContext& c) {
  BH_CHECK(swap_disks(c));
  // Everything is ready; from here a plan decides whose turn it is, and a cancel is still possible.
  return c.job.gates.boot ? Step::finished() : Step::after(c.pace.look);
}

Result<Step> start_target(JobContext& c) {
  BH_TRY(VmDriver * driver, c.driver(c.job.target));
  const auto touch = [](Job& job, Item&) { job.target_started = true; };
  const auto create = [&]() -> Result<boost::json::value> {
    BH_TRY(VmFacts facts, driver->describe(c.target_vm()));
    const bool absent = facts.power == PowerState::absent;
    if (absent && c.job.target.vm_exists && !c.job.request.create_vm_if_not_found)
      return make_error(ControlErrc::driver_failed,
                        "the VM is not known at the target, and the request does not ask to create it");
    if (absent || !c.job.target.vm_exists) BH_CHECK(driver->create(c.target_vm(), c.item.vm));
    return boost::json::value{{"created", absent}};
  };
  BH_CHECK(c.once("create", create, touch));
  const auto started = c.world.clock.now();
  const auto start = [&]() -> Result<boost::json::value> {
    BH_TRY(const StartOutcome outcome, driver->start(c.target_vm()));
    return boost::json::value{{"seconds", seconds(c.world.clock.now() - started)}, {"token", outcome.token}};
  };
  BH_CHECK(c.once("start", start, touch, [&](Job& job, Item& item, const boost::json::value& outcome) {
    item.boot_s = outcome.as_object().at("seconds").to_number<double>();
    if (job.direction == Direction::recovery_to_primary) {
      const auto* token = outcome.as_object().if_contains("token");
      item.start_token = token != nullptr ? std::string(token->as_string()) : std::string();
    }
    job.target_up_unix_s = c.now_unix_s();
    if (job.source_down_unix_s == 0) return;
    job.downtime_s = c.live.source_down.count() != 0
                         ? seconds(c.world.clock.now() - c.live.source_down)
                         : static_cast<double>(job.target_up_unix_s - job.source_down_unix_s);
  }));
  BH_CHECK(release_old_disks(c));
  return Step::finished();
}

}  // namespace backhaul
