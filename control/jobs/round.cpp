#include "control/jobs/round.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <boost/json.hpp>

#include "control/jobs/estimate.h"
#include "control/jobs/job_flow.h"
#include "dataplane/protocol/engine_error.h"

namespace backhaul {
namespace {

constexpr double kMinPayloadForRate = 1 << 20;  // less says nothing about the link

ActionKey of_round(ActionKind kind, const Job& job) { return {kind, std::to_string(job.round.number)}; }

Result<void> open_round(JobContext& c, const RoundOptions& options) {
  return c.update([&](Job& job, Item&) {
    RoundState& round = job.round;
    ++round.number;
    round.open = true;
    round.final = options.final;
    round.snapshot = fmt::format("bh-{}-{}", job.id, round.number);
    round.token.clear();
    round.disks.clear();
    for (const auto& disk : job.source.disks) {
      round.disks.emplace_back();
      round.disks.back().disk = disk.name;
    }
  });
}

Result<boost::json::value> take_snapshot(JobContext& c) {
  BH_TRY(VmDriver * driver, c.driver(c.job.source));
  if (c.job.round.final) {
    BH_TRY(VmFacts facts, driver->describe(c.source_vm()));
    if (facts.power != PowerState::off)
      return make_error(
          ControlErrc::driver_failed,
          fmt::format("the source VM must be off before its last changes are read, but is {}", to_string(facts.power)));
  }
  BH_TRY(Snapshot snapshot, driver->snapshot(c.source_vm(), c.job.round.snapshot));
  boost::json::array disks;
  for (const auto& wanted : c.job.round.disks) {
    auto found = std::find_if(snapshot.disks.begin(), snapshot.disks.end(),
                              [&](const auto& disk) { return disk.name == wanted.disk; });
    if (found == snapshot.disks.end())
      return make_error(ControlErrc::driver_protocol, "the snapshot lacks disk " + wanted.disk);
    disks.push_back({{"path", found->path}, {"size_bytes", found->size_bytes}});
  }
  return boost::json::value{{"token", snapshot.token}, {"disks", std::move(disks)}};
}

void accept_snapshot(Job& job, const boost::json::value& outcome, std::int64_t now_unix_s) {
  const auto& object = outcome.as_object();
  job.round.token = std::string(object.at("token").as_string());
  job.round.point_unix_s = now_unix_s;
  const auto& disks = object.at("disks").as_array();
  for (std::size_t i = 0; i < job.round.disks.size(); ++i) {
    job.round.disks[i].source_path = std::string(disks[i].as_object().at("path").as_string());
    job.round.disks[i].stats.disk_bytes = disks[i].as_object().at("size_bytes").to_number<std::uint64_t>();
  }
}

Result<void> start_transfer(JobContext& c, const RoundOptions& options, std::size_t index) {
  const std::string name = c.job.round.disks[index].disk;
  if (c.job.round.failures > 0) BH_RETURN_IF_ERROR(raise_epoch(c));
  bool cancelled = false;
  BH_RETURN_IF_ERROR(c.update([&](Job& job, Item& item) {
    cancelled = cancel_is_due(job);
    if (cancelled) return;
    job.round.disks[index].epoch = ++item.epoch;
    job.target_touched = true;
  }));
  if (cancelled) return make_error(BaseErrc::cancelled, "transfer of " + name);

  const DiskRound& disk = c.job.round.disks[index];
  RoundRequest request;
  request.run = fmt::format("job/{}/round/{}/{}", c.job.id, c.job.round.number, name);
  request.source = {c.job.source.host, disk.source_path};
  request.target = c.target_disk(name);
  for (const auto& place : c.job.target.disks)
    if (place.name == name) request.target_format = place.format;
  request.size_bytes = disk.stats.disk_bytes;
  request.sync = options.sync;
  request.lanes = c.item.transfer.lanes;
  request.verify = options.sync == DataSync::for_synchronization && c.item.transfer.verify != VerifyMode::full
                       ? VerifyMode::none
                       : c.item.transfer.verify;
  request.compress = c.item.transfer.compress;
  request.limit_bytes_per_s = c.item.transfer.limit_bytes_per_s;
  request.epoch = disk.epoch;
  if (options.sync == DataSync::for_down_time && !c.job.round.base_token.empty()) {
    BH_TRY(VmDriver * driver, c.driver(c.job.source));
    BH_TRY(auto changed, driver->changed_extents(c.source_vm(), name, c.job.round.base_token, c.job.round.snapshot));
    if (!changed.ranges)
      spdlog::warn("{}: the tracker cannot say what changed ({}); digests find it", request.run, changed.why_unknown);
    request.changed = std::move(changed.ranges);
    if (const auto* root = c.job.round.base_roots.if_contains(name); root != nullptr && root->is_string()) {
      // The target's disk was kept, its digests were not: a full verify reads it once and proves that it is the base.
      request.base_root = std::string(root->get_string());
      request.verify = VerifyMode::full;
    }
  }
  BH_TRY(auto handle, c.services.data_plane.start_round(request));
  c.live.transfers[name] = handle;
  return {};
}

Result<void> accept_transfer(JobContext& c, std::size_t index, const TransferStats& stats) {
  const bool hinted = !c.job.round.base_token.empty();
  return c.update([&](Job& job, Item& item) {
    DiskRound& disk = job.round.disks[index];
    disk.done = true;
    disk.stats = stats;
    if (stats.seconds > 0 && static_cast<double>(stats.payload_bytes) >= kMinPayloadForRate)
      item.bytes_per_s = static_cast<double>(stats.payload_bytes) / stats.seconds;
    if (stats.seconds > 0 && !hinted && static_cast<double>(stats.bytes_read) >= kMinPayloadForRate)
      item.digest_bytes_per_s = static_cast<double>(stats.bytes_read) / stats.seconds;
  });
}

// Looks at every transfer; gives whether one is still running. The first failure is returned after all were looked at.
Result<bool> poll_transfers(JobContext& c) {
  bool running = false;
  std::optional<Error> failed;
  TransferProgress sum;
  for (std::size_t i = 0; i < c.job.round.disks.size(); ++i) {
    auto found = c.live.transfers.find(c.job.round.disks[i].disk);
    if (found == c.live.transfers.end()) continue;
    auto seen = c.services.data_plane.poll_round(found->second);
    if (seen && !seen->ended) {
      running = true;
      sum.bytes_total += seen->progress.bytes_total;
      sum.bytes_done += seen->progress.bytes_done;
      sum.bytes_per_s += seen->progress.bytes_per_s;
      continue;
    }
    c.services.data_plane.forget_round(found->second);
    c.live.transfers.erase(found);
    const auto ended = seen ? std::move(*seen->ended) : Result<TransferStats>(seen.error());
    if (ended)
      BH_RETURN_IF_ERROR(accept_transfer(c, i, *ended));
    else if (!failed)
      failed = ended.error();
  }
  sum.set_seconds_left();
  std::lock_guard lock(c.live.mutex);
  c.live.progress = sum;
  if (failed) {
    // Ours to say "cancelled": a transfer that was stopped from elsewhere is a failure that passes.
    if (failed->is(BaseErrc::cancelled)) return make_error(BaseErrc::timed_out, "the transfer was stopped");
    if (failed->is(EngineErrc::root_mismatch)) return make_error(ControlErrc::not_verified, failed->cause());
    return *failed;
  }
  return running;
}

Result<void> require_verified(const JobContext& c, const RoundOptions& options) {
  if (c.item.transfer.verify == VerifyMode::none || options.sync == DataSync::for_synchronization) return {};
  for (const auto& disk : c.job.round.disks) {
    const auto &source = disk.stats.root_digest_source, &target = disk.stats.root_digest_target;
    if (source.empty() || source != target)
      return make_error(ControlErrc::not_verified,
                        fmt::format("disk {}: source {}, target {}", disk.disk, source, target));
  }
  return {};
}

Result<void> close_round(JobContext& c) {
  const auto release = [&]() -> Result<boost::json::value> {
    BH_TRY(VmDriver * driver, c.driver(c.job.source));
    BH_RETURN_IF_ERROR(driver->release_snapshot(c.source_vm(), c.job.round.snapshot, true));
    return boost::json::value(nullptr);
  };
  BH_RETURN_IF_ERROR(
      c.once(of_round(ActionKind::release, c.job), release, {}, [](Job& job, Item&, const boost::json::value&) {
        job.round.open = false;
        job.round.base_token = job.round.token;
        job.round.base_roots.clear();
        job.round.failures = 0;
        job.actions.clear();  // all of this round; the next one has a new number
      }));
  return {};
}

}  // namespace

Result<void> raise_epoch(JobContext& c) {
  std::uint64_t highest = 0;
  for (const auto& disk : c.job.target.disks) {
    BH_TRY(const auto found, c.services.data_plane.query_disk(c.target_disk(disk.name)));
    highest = std::max(highest, found.epoch);
  }
  if (highest <= c.item.epoch) return {};
  return c.update([&](Job&, Item& item) { item.epoch = std::max(item.epoch, highest); });
}

Result<void> swap_disks(JobContext& c) {
  const auto disks = c.job.source.disks;  // a copy: once() reads the job anew
  for (const auto& disk : disks) {
    const auto swap = [&]() -> Result<boost::json::value> {
      BH_RETURN_IF_ERROR(c.services.data_plane.swap_disk(c.target_disk(disk.name), c.item.epoch));
      return boost::json::value(nullptr);
    };
    BH_RETURN_IF_ERROR(c.once({ActionKind::swap, disk.name}, swap, [](Job&, Item& item) { ++item.epoch; }));
  }
  return {};
}

Result<void> release_old_disks(JobContext& c) {
  const auto disks = c.job.source.disks;  // a copy: once() reads the job anew
  for (const auto& disk : disks) {
    const auto release = [&]() -> Result<boost::json::value> {
      BH_RETURN_IF_ERROR(c.services.data_plane.release_old(c.target_disk(disk.name), c.item.epoch));
      return boost::json::value(nullptr);
    };
    BH_RETURN_IF_ERROR(c.once({ActionKind::release_old, disk.name}, release, [](Job&, Item& item) { ++item.epoch; }));
  }
  return {};
}

Result<bool> run_round(JobContext& c, const RoundOptions& options) {
  if (!c.job.round.open) BH_RETURN_IF_ERROR(open_round(c, options));
  BH_RETURN_IF_ERROR(c.once(
      of_round(ActionKind::snapshot, c.job), [&] { return take_snapshot(c); }, {},
      [&](Job& job, Item&, const boost::json::value& outcome) { accept_snapshot(job, outcome, c.now_unix_s()); }));
  for (std::size_t i = 0; i < c.job.round.disks.size(); ++i)
    if (!c.job.round.disks[i].done && !c.live.transfers.contains(c.job.round.disks[i].disk))
      BH_RETURN_IF_ERROR(start_transfer(c, options, i));
  BH_TRY(bool running, poll_transfers(c));
  if (running) return false;
  BH_RETURN_IF_ERROR(require_verified(c, options));
  if (options.swap) {
    BH_RETURN_IF_ERROR(swap_disks(c));
    BH_RETURN_IF_ERROR(release_old_disks(c));
  }
  BH_RETURN_IF_ERROR(close_round(c));
  return true;
}

Result<void> abandon_round(JobContext& c) {
  if (!c.job.round.open) return {};
  const auto release = [&]() -> Result<boost::json::value> {
    BH_TRY(VmDriver * driver, c.driver(c.job.source));
    BH_RETURN_IF_ERROR(driver->release_snapshot(c.source_vm(), c.job.round.snapshot, false));
    return boost::json::value(nullptr);
  };
  // The rollback calls this, too, where a cancel is no longer due.
  BH_RETURN_IF_ERROR(c.once(of_round(ActionKind::abandon, c.job), release, {},
                            [](Job& job, Item&, const boost::json::value&) { job.round.open = false; }));
  return {};
}

Result<void> note_round_failure(JobContext& c, const Error& error) {
  BH_RETURN_IF_ERROR(stop_transfers(c));
  const bool base_holds = !error.is(ControlErrc::not_verified) && !error.is(EngineErrc::no_base);
  BH_RETURN_IF_ERROR(c.update([&](Job& job, Item&) {
    ++job.round.failures;
    if (base_holds) return;
    // The target does not hold what its digests say, or holds no base: compare everything again.
    job.round.base_token.clear();
    job.round.base_roots.clear();
    for (auto& disk : job.round.disks) disk.done = false;
  }));
  // Once swaps have begun the target has the whole snapshot: the job must go forward.
  if (c.job.round.open && c.job.round.failures % 2 == 0 && !must_go_forward(c.job)) return abandon_round(c);
  return {};
}

}  // namespace backhaul
