// Commit, undo and rollback, reprotect.
#include <spdlog/spdlog.h>
#include <boost/json.hpp>

#include "control/jobs/job_flow.h"
#include "control/jobs/round.h"
#include "control/jobs/tasks.h"

namespace backhaul {
namespace {

const boost::json::value kDone(nullptr);

// A driver that cannot forget costs space, not correctness.
void forget_tokens(JobContext& c) {
  auto driver = c.driver(c.job.source);
  if (!driver) return;
  if (auto forgotten = (*driver)->forget_tokens(c.source_vm()); !forgotten)
    spdlog::warn("job {}: trackers were not forgotten: {}", c.job.id, forgotten.error().to_string());
}

}  // namespace

Result<Step> delete_source_vm(JobContext& c) {
  // On the way to the recovery site the primary VM stays, off: the next failback brings it up again.
  if (c.job.direction == Direction::primary_to_recovery) return Step::finished();
  const auto remove = [&]() -> Result<boost::json::value> {
    BH_TRY(VmDriver * driver, c.driver(c.job.source));
    BH_RETURN_IF_ERROR(driver->remove(c.source_vm(), c.job.delete_source_disks));
    return kDone;
  };
  BH_RETURN_IF_ERROR(c.once({ActionKind::remove, {}}, remove));
  return Step::finished();
}

Result<Step> complete_commit(JobContext& c) {
  if (c.job.direction == Direction::primary_to_recovery) forget_tokens(c);
  return Step::finished();
}

Result<Step> stop_target(JobContext& c) {
  if (!c.job.target_started) return Step::finished();
  const auto stop = [&]() -> Result<boost::json::value> {
    BH_TRY(VmDriver * driver, c.driver(c.job.target));
    BH_TRY(VmFacts facts, driver->describe(c.target_vm()));
    // Also a VM that is off: its guest may have powered off, and the hypervisor may still have its disks open.
    if (facts.power != PowerState::absent) BH_RETURN_IF_ERROR(driver->stop(c.target_vm()));
    return kDone;
  };
  BH_RETURN_IF_ERROR(c.once({ActionKind::stop, {}}, stop));
  return Step::finished();
}

Result<Step> give_back_disks(JobContext& c) {
  BH_RETURN_IF_ERROR(stop_transfers(c));
  BH_RETURN_IF_ERROR(abandon_round(c));
  if (c.job.target_touched) {
    BH_RETURN_IF_ERROR(raise_epoch(c));
    const auto disks = c.job.source.disks;  // a copy: once() reads the job anew
    for (const auto& disk : disks) {
      const auto give_back = [&]() -> Result<boost::json::value> {
        BH_RETURN_IF_ERROR(c.services.data_plane.give_back(c.target_disk(disk.name), c.item.epoch));
        return kDone;
      };
      BH_RETURN_IF_ERROR(c.once({ActionKind::give_back, disk.name}, give_back, [](Job&, Item& item) { ++item.epoch; }));
    }
  }
  if (c.job.kind != JobKind::replication) {
    forget_tokens(c);
    BH_RETURN_IF_ERROR(c.update([](Job& job, Item&) {
      job.round.base_token.clear();
      job.round.base_roots.clear();
    }));
  }
  return Step::finished();
}

Result<Step> start_source(JobContext& c) {
  if (!c.job.source_shut_down) return Step::finished();
  const auto start = [&]() -> Result<boost::json::value> {
    BH_TRY(VmDriver * driver, c.driver(c.job.source));
    BH_RETURN_IF_ERROR(driver->start(c.source_vm()));
    return kDone;
  };
  BH_RETURN_IF_ERROR(c.once({ActionKind::start_source, {}}, start));
  return Step::finished();
}

Result<Step> prepare_reprotect(JobContext& c) {
  BH_TRY(VmDriver * driver, c.driver(c.job.source));
  BH_TRY(VmFacts facts, driver->describe(c.source_vm()));
  if (facts.power == PowerState::absent)
    return make_error(ControlErrc::driver_failed, "the VM is not known at the primary site");
  BH_RETURN_IF_ERROR(c.services.data_plane.host_report(c.job.source.host));
  BH_RETURN_IF_ERROR(raise_epoch(c));
  return Step::finished();
}

Result<Step> initial_replication(JobContext& c) {
  auto finished = run_round(c, {DataSync::for_down_time, false, true});
  if (!finished) {
    if (finished.error().code() != BaseErrc::cancelled) BH_RETURN_IF_ERROR(note_round_failure(c, finished.error()));
    return finished.error();
  }
  return *finished ? Step::finished() : Step::after(c.pace.poll);
}

Result<Step> replication_cycle(JobContext& c) {
  const auto interval = c.pace.minute * std::int64_t{c.item.replication_minutes};
  if (!c.job.round.open) {
    const auto age = std::chrono::seconds(c.now_unix_s() - c.job.round.point_unix_s);
    if (age < interval) return Step::after(interval - age);
  }
  const auto now = c.services.clock.now();
  if (now < c.live.retry_round_at) return Step::after(c.live.retry_round_at - now);
  auto finished = run_round(c, {DataSync::for_down_time, false, true});
  if (!finished) {
    if (finished.error().code() == BaseErrc::cancelled) return finished.error();
    BH_RETURN_IF_ERROR(note_round_failure(c, finished.error()));
    BH_RETURN_IF_ERROR(c.update([&](Job& job, Item& item) {
      note_error(job, to_job_error(finished.error(), c.now_unix_s()));
      item.last_error = finished.error().to_string();
    }));
    // Cycles never give up: the lag grows and is shown.
    c.live.retry_round_at = now + std::min<Clock::Duration>(c.pace.retry_first * c.job.round.failures, interval);
    return Step::after(c.live.retry_round_at - now);
  }
  if (!*finished) return Step::after(c.pace.poll);
  BH_RETURN_IF_ERROR(c.update([&](Job& job, Item& item) {
    item.protected_until_unix_s = job.round.point_unix_s;
    item.last_error.clear();
  }));
  return Step::repeat();
}

}  // namespace backhaul
