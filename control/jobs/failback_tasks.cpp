#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

#include "control/jobs/estimate.h"
#include "control/jobs/job_flow.h"
#include "control/jobs/preflight.h"
#include "control/jobs/round.h"
#include "control/jobs/tasks.h"

namespace backhaul {
namespace {

constexpr std::chrono::milliseconds kFirstWriteCall{1000};  // of one call; other calls for the VM wait behind it

std::uint64_t payload_of_round(const Job& job) {
  std::uint64_t sum = 0;
  for (const auto& disk : job.round.disks) sum += disk.stats.payload_bytes;
  return sum;
}

// The slowest disk decides how long the round took, and so how long it verified.
double verify_of_round(const Job& job) {
  const auto slowest = std::max_element(job.round.disks.begin(), job.round.disks.end(),
                                        [](const auto& a, const auto& b) { return a.stats.seconds < b.stats.seconds; });
  return slowest == job.round.disks.end() ? 0 : slowest->stats.verify_seconds;
}

// Records a moment of the downtime, once.
Result<void> mark(JobContext& c, std::int64_t DowntimeMoments::*moment) {
  if (c.job.moments.*moment != 0) return {};
  return c.update([&](Job& job, Item&) { job.moments.*moment = c.now_unix_ms(); }, Durability::relaxed);
}

// A failover begins when the replication job has given its staged disks back; the target then holds that job's base.
Result<bool> replication_has_ended(JobContext& c) {
  if (c.item.replication_job.empty()) return true;
  BH_TRY(Job replication, c.services.records.job(c.item.replication_job));
  return has_ended(replication.state);
}

Result<void> adopt_replication_base(JobContext& c) {
  // Only the item's last replication job can have a base that still holds.
  if (c.job.direction != Direction::primary_to_recovery || c.job.round.number != 0) return {};
  BH_TRY(auto jobs, c.services.records.jobs());
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
    if (finished.error().code() == BaseErrc::cancelled) return finished.error();
    BH_RETURN_IF_ERROR(note_round_failure(c, finished.error()));
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
  if (!known) next = payload_of_round(c.job);  // the next delta will be like the last one
  const auto projected = projected_downtime(c.item, next);
  if (next == c.job.next_delta_bytes && projected.sum() == c.job.projected_downtime_s) return {};
  return c.update(
      [&](Job& job, Item&) {
        job.next_delta_bytes = next;
        job.projected = projected;
        job.projected_downtime_s = projected.sum();
      },
      Durability::relaxed);
}

Clock::Duration retry_pause(const JobContext& c, std::uint32_t failures) {
  Clock::Duration pause = c.pace.retry_first;
  for (std::uint32_t i = 1; i < failures && pause < c.pace.retry_last; ++i) pause *= 2;
  return std::min<Clock::Duration>(pause, c.pace.retry_last);
}

// The delivered root digests of the target's disks; empty when one of them was written to since.
boost::json::object untouched_roots(JobContext& c) {
  boost::json::object roots;
  for (const auto& disk : c.job.source.disks) {
    const auto found = c.services.data_plane.query_disk(c.target_disk(disk.name));
    if (!found || found->root_digest.empty()) return {};
    roots[disk.name] = found->root_digest;
  }
  return roots;
}

}  // namespace

Result<Step> prepare_failover(JobContext& c) {
  BH_TRY(bool ended, replication_has_ended(c));
  if (!ended) return Step::after(c.pace.poll);
  BH_RETURN_IF_ERROR(adopt_replication_base(c));
  PreflightReport report = run_preflight(c.services, c.item, c.job.source, c.job.target, c.job.request);
  if (const Check* failed = first_failed(report)) {
    // The agent was there when the verb was accepted and may come back: try again.
    return make_error(failed->unreachable ? ControlErrc::host_unreachable : ControlErrc::precondition_failed,
                      fmt::format("{}: {} ({})", failed->name, failed->cause, failed->fix));
  }
  BH_RETURN_IF_ERROR(raise_epoch(c));
  Estimate sampled = sample_estimate(c.services, c.item, c.job.source, c.job.target);
  BH_RETURN_IF_ERROR(c.update([&](Job& job, Item& item) {
    if (job.request.data_sync == DataSync::for_synchronization)
      sampled.downtime_s = projected_downtime(item, sampled.full_bytes).sum();
    job.estimate = sampled;
    job.projected = projected_downtime(
        item, job.request.data_sync == DataSync::for_synchronization ? sampled.full_bytes : std::uint64_t{0});
    job.projected_downtime_s = job.projected.sum();
    job.tasks[job.current_task].detail =
        sampled.advise_for_synchronization && job.request.data_sync == DataSync::for_down_time
            ? "ForSynchronization would be faster: " + sampled.reason
            : sampled.reason;
  }));
  return Step::finished();
}

Result<Step> replicate(JobContext& c) { return step_of_round(c, {DataSync::for_down_time, false, false}); }

Result<Step> wait_for_complete(JobContext& c) {
  const auto now = c.services.clock.now();
  if (c.job.round.open) {
    if (now < c.live.retry_round_at) return Step::after(c.live.retry_round_at - now);
    auto finished = run_round(c, {DataSync::for_down_time, false, false});
    if (!finished) {
      if (finished.error().code() == BaseErrc::cancelled) return finished.error();
      // The VM runs on and nothing is lost: the error is shown and the round tried again. After Complete Failover the
      // final delta has the abandoned round's changes.
      BH_RETURN_IF_ERROR(note_round_failure(c, finished.error()));
      BH_RETURN_IF_ERROR(
          c.update([&](Job& job, Item&) { note_error(job, to_job_error(finished.error(), c.now_unix_s())); }));
      c.live.retry_round_at = now + retry_pause(c, c.job.round.failures);
      if (c.job.complete_requested) {
        BH_RETURN_IF_ERROR(abandon_round(c));
        return Step::finished();
      }
      return Step::after(c.live.retry_round_at - now);
    }
    if (!*finished) return Step::after(c.pace.poll);
    BH_RETURN_IF_ERROR(c.refresh());
  }
  if (c.job.complete_requested) return Step::finished();

  if (c.live.last_look.count() == 0 || now >= c.live.last_look + c.pace.look) {
    BH_RETURN_IF_ERROR(look_ahead(c));
    c.live.last_look = now;
  }
  if (c.job.parent.empty() && completes_now(c.job.request.complete, c.job.projected_downtime_s, c.now_unix_s())) {
    BH_RETURN_IF_ERROR(c.update([&](Job& job, Item&) {
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
    if (!started && started.error().code() == BaseErrc::cancelled) return started.error();
    if (!started) {
      BH_RETURN_IF_ERROR(note_round_failure(c, started.error()));
      BH_RETURN_IF_ERROR(
          c.update([&](Job& job, Item&) { note_error(job, to_job_error(started.error(), c.now_unix_s())); }));
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
  if (c.find_action({ActionKind::shutdown, {}}) == nullptr) {
    BH_TRY(VmFacts facts, driver->describe(c.source_vm()));
    if (facts.power == PowerState::off) return Step::finished();  // not by us: a cancel does not start it
  }
  const auto shut_down = [&]() -> Result<boost::json::value> {
    ShutdownRequest request{c.item.shutdown.timeout_s,
                            c.job.request.allow_forced_shutdown.value_or(c.item.shutdown.allow_force)};
    BH_TRY(ShutdownOutcome outcome, driver->shut_down(c.source_vm(), request));
    const auto answered = c.now_unix_ms();
    BH_TRY(VmFacts facts, driver->describe(c.source_vm()));
    if (facts.power != PowerState::off)
      return make_error(ControlErrc::driver_failed,
                        fmt::format("after its shutdown the VM is {}", to_string(facts.power)));
    boost::json::object result{{"forced", outcome.forced}};
    if (outcome.last_write_age_ms)
      result["last_write"] = answered - static_cast<std::int64_t>(std::min<std::uint64_t>(
                                            *outcome.last_write_age_ms, static_cast<std::uint64_t>(answered)));
    return result;
  };
  BH_RETURN_IF_ERROR(c.once(
      {ActionKind::shutdown, {}}, shut_down,
      [&](Job& job, Item&) {
        job.source_shut_down = true;
        if (job.source_down_unix_s == 0) job.source_down_unix_s = c.now_unix_s();
        if (job.moments.asked_unix_ms == 0) job.moments.asked_unix_ms = c.now_unix_ms();
      },
      [&](Job& job, Item&, const boost::json::value& outcome) {
        const auto& object = outcome.as_object();
        job.moments.off_unix_ms = c.now_unix_ms();
        if (const auto* last = object.if_contains("last_write"))
          job.moments.last_write_unix_ms = last->to_number<std::int64_t>();
        job.tasks[job.current_task].detail =
            object.at("forced").as_bool() ? "forced: the guest did not shut down in time" : "graceful";
      }));
  return Step::finished();
}

namespace {

Result<Step> last_round(JobContext& c, DataSync sync) {
  BH_TRY(const auto step, step_of_round(c, {sync, true, false}));
  if (step.kind != Step::done) return step;
  BH_RETURN_IF_ERROR(c.update(
      [&](Job& job, Item&) {
        job.moments.delivered_unix_ms = c.now_unix_ms();
        job.moments.verify_s = verify_of_round(job);
      },
      Durability::relaxed));
  return step;
}

// What was measured, and what the next projection learns from it.
Result<Step> record_downtime(JobContext& c) {
  BH_RETURN_IF_ERROR(c.update([](Job& job, Item& item) {
    const auto parts = downtime_parts(job.moments);
    job.downtime_s = parts.sum();
    if (job.downtime_s > 0) learn_downtime(item, parts, payload_of_round(job), job.moments.first_write_unix_ms != 0);
  }));
  return Step::finished();
}

Result<Step> without_first_write(JobContext& c, std::string why) {
  BH_RETURN_IF_ERROR(c.update([&](Job& job, Item&) { job.moments.no_first_write = std::move(why); }));
  return record_downtime(c);
}

// Only measures, so it never fails the job: the VM is started.
Result<Step> wait_for_first_write(JobContext& c) {
  if (c.item.boot.wait_s == 0) return without_first_write(c, "boot.wait_s is 0");
  BH_TRY(VmDriver * driver, c.driver(c.job.target));
  const auto asked = c.services.clock.now();
  const auto write = driver->first_write(c.target_vm(), kFirstWriteCall);
  const auto answered = c.now_unix_ms();
  if (write && write->kind == FirstWrite::seen) {
    BH_RETURN_IF_ERROR(c.update([&](Job& job, Item&) {
      const auto age = static_cast<std::int64_t>(std::min<std::uint64_t>(write->age_ms, INT32_MAX));
      job.moments.first_write_unix_ms = std::max(answered - age, job.moments.started_unix_ms);
      job.moments.unsure_ms = write->unsure_ms;
    }));
    return record_downtime(c);
  }
  if (write && write->kind == FirstWrite::cannot_tell)
    return without_first_write(c, "the driver cannot tell when the guest writes");
  if (!write && write.error().retry() != Retry::later) return without_first_write(c, write.error().to_string());
  if (answered - c.job.moments.started_unix_ms < std::int64_t{c.item.boot.wait_s} * 1000)
    return Step::after(c.pace.poll - std::min<Clock::Duration>(c.pace.poll, c.services.clock.now() - asked));
  return without_first_write(
      c, write ? fmt::format("the guest wrote nothing within {} s", c.item.boot.wait_s) : write.error().to_string());
}

}  // namespace

Result<Step> final_delta(JobContext& c) { return last_round(c, DataSync::for_down_time); }
Result<Step> full_download(JobContext& c) { return last_round(c, DataSync::for_synchronization); }

Result<Step> swap_in(JobContext& c) {
  BH_RETURN_IF_ERROR(swap_disks(c));
  BH_RETURN_IF_ERROR(mark(c, &DowntimeMoments::swapped_unix_ms));
  // All is ready: a plan now decides whose turn it is, and a cancel is still possible.
  return c.job.gates.boot ? Step::finished() : Step::after(c.pace.look);
}

Result<Step> start_target(JobContext& c) {
  BH_RETURN_IF_ERROR(mark(c, &DowntimeMoments::boot_begun_unix_ms));
  BH_TRY(VmDriver * driver, c.driver(c.job.target));
  const auto touch = [](Job& job, Item&) { job.target_started = true; };
  const auto create = [&]() -> Result<boost::json::value> {
    BH_TRY(VmFacts facts, driver->describe(c.target_vm()));
    const bool absent = facts.power == PowerState::absent;
    if (absent && c.job.target.vm_exists && !c.job.request.create_vm_if_not_found)
      return make_error(ControlErrc::driver_failed,
                        "the VM is not known at the target, and the request does not ask to create it");
    if (absent || !c.job.target.vm_exists) BH_RETURN_IF_ERROR(driver->create(c.target_vm(), c.item.vm));
    return boost::json::value{{"created", absent}};
  };
  BH_RETURN_IF_ERROR(c.once({ActionKind::create, {}}, create, touch));
  const auto start = [&]() -> Result<boost::json::value> {
    // Asked in every try: the VM of an earlier try may have written what the token does not cover.
    auto roots = untouched_roots(c);
    BH_TRY(const StartOutcome outcome, driver->start(c.target_vm()));
    return boost::json::value{{"token", outcome.token},
                              {"roots", outcome.token.empty() ? boost::json::object() : std::move(roots)}};
  };
  BH_RETURN_IF_ERROR(
      c.once({ActionKind::start, {}}, start, touch, [&](Job& job, Item& item, const boost::json::value& outcome) {
        item.start_token = std::string(outcome.as_object().at("token").as_string());
        item.start_roots = outcome.as_object().at("roots").as_object();
        job.target_up_unix_s = c.now_unix_s();
        job.moments.started_unix_ms = c.now_unix_ms();
      }));
  BH_RETURN_IF_ERROR(release_old_disks(c));
  return wait_for_first_write(c);
}

}  // namespace backhaul
