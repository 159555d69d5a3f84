#include "control/agents/engine_data_plane.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "base/units.h"
#include "control/model/control_error.h"
#include "dataplane/protocol/engine_error.h"
#include "dataplane/source/send.h"
#include "dataplane/target/serve_offers.h"

namespace backhaul {
namespace {

constexpr std::chrono::seconds kShortCall{30};   // a host agent answers at once or is in trouble
constexpr std::chrono::minutes kSampleCall{5};   // reads 256 MiB at most
constexpr std::chrono::milliseconds kPoll{200};  // of a round that an agent sends
constexpr std::size_t kSampleExtents = 32;       // 128 MiB on each side

// A host agent that was restarted knows nothing of its sends: the job tries the round again.
constexpr unsigned kLostPolls = 25;  // unanswered in a row: 5 s and each call's own timeout

// On the wire each of a job's epochs has room below it: a send takes the next one for every retry of its own.
constexpr unsigned kEpochShift = 20;
constexpr std::uint64_t wire_epoch(std::uint64_t epoch) { return epoch << kEpochShift; }
constexpr std::uint64_t job_epoch(std::uint64_t on_record) {
  return div_up(on_record, std::uint64_t{1} << kEpochShift);
}

}  // namespace

EngineDataPlane::~EngineDataPlane() {
  std::map<RoundHandle, std::shared_ptr<SendTask>> rounds;
  {
    const std::lock_guard lock(mutex_);
    rounds.swap(rounds_);
  }
  for (auto& [handle, round] : rounds) round->request_stop();
}

Result<HostClient*> EngineDataPlane::client(const std::string& host) const {
  const auto found = hosts_.find(host);
  if (found == hosts_.end())
    return make_error(ControlErrc::not_found, "host agent '" + host + "' is not in this appliance's configuration");
  return found->second.get();
}

Result<TargetUrl> EngineDataPlane::url(const DiskRef& target) const {
  BH_TRY(const auto* agent, client(target.host));
  return TargetUrl{agent->endpoint(), target.path};
}

std::shared_ptr<SendTask> EngineDataPlane::task(RoundHandle handle) {
  const std::lock_guard lock(mutex_);
  const auto found = rounds_.find(handle);
  return found == rounds_.end() ? nullptr : found->second;
}

// ---- rounds

SendRequest EngineDataPlane::make_request(const RoundRequest& round) const {
  SendRequest request;
  request.sync = round.sync == DataSync::for_synchronization ? SyncMode::full : SyncMode::delta;
  request.verify = round.verify;
  request.compress = round.compress;
  request.format = round.target_format;
  request.changed = round.changed;
  request.lanes = std::min(round.lanes == 0 ? defaults_.lanes : round.lanes, defaults_.max_lanes);
  request.limit_bytes_per_s = round.limit_bytes_per_s == 0 ? defaults_.limit_bytes_per_s : round.limit_bytes_per_s;
  request.epoch = wire_epoch(round.epoch);
  request.swap = false;
  return request;
}

Result<RoundHandle> EngineDataPlane::start_round(const RoundRequest& round) {
  if (round.source.host.empty() == round.target.host.empty())
    return make_error(ControlErrc::invalid, "one end of a round is this appliance, the other a host agent");
  BH_RETURN_IF_ERROR(client(round.source.host.empty() ? round.target.host : round.source.host));
  const bool outwards = round.source.host.empty();
  auto started = std::make_shared<SendTask>(
      [this, round, outwards](const ReportProgress& report, const std::atomic<bool>& stop) {
        auto result = outwards ? send_to_agent(round, report, stop) : receive_from_agent(round, report, stop);
        if (!result) spdlog::warn("{}: {}", round.run, result.error().to_string());
        return result;
      },
      *node_.parts.clock);
  const std::lock_guard lock(mutex_);
  rounds_[++last_handle_] = std::move(started);
  return last_handle_;
}

Result<SendResult> EngineDataPlane::send_to_agent(const RoundRequest& round, const ReportProgress& report,
                                                  const std::atomic<bool>& stop) {
  auto request = make_request(round);
  BH_TRY(request.source, node_.paths.resolve(round.source.path));
  BH_TRY(request.target, url(round.target));
  BH_TRY(auto* agent, client(round.target.host));
  request.progress = report;
  request.stop = &stop;
  spdlog::info("{}: {} to {}:{}, epoch {}{}", round.run, request.source, round.target.host, round.target.path,
               round.epoch, request.changed ? fmt::format(", {} changed extents", request.changed->size()) : "");
  if (!round.base_root.empty()) node_.set_delivered_base(round.source.path, round.base_root, request);
  return digests_.run(round.target.host + ":" + round.target.path, request,
                      [&](const SendRequest& ready) { return send_disk(ready, *agent->tls(), node_.parts); });
}

Result<SendResult> EngineDataPlane::follow_agent(HostClient& agent, const std::string& id, const ReportProgress& report,
                                                 const std::atomic<bool>& stop) {
  unsigned lost = 0;
  while (!stop.load()) {
    auto answer = agent.call("send-poll", {{"id", id}}, kShortCall);
    if (!answer) {
      if (answer.error().is(ControlErrc::not_found))
        return make_error(ControlErrc::host_unreachable, agent.id() + " was restarted during the round");
      if (++lost >= kLostPolls) return std::move(answer).error();
    } else {
      lost = 0;
      BH_TRY(auto view, send_view_from_json(*answer));
      if (view.ended) return std::move(*view.ended);
      report(view.progress);
    }
    node_.parts.clock->sleep_for(kPoll);
  }
  return make_error(BaseErrc::cancelled, "the round was stopped");
}

Result<SendResult> EngineDataPlane::receive_from_agent(const RoundRequest& round, const ReportProgress& report,
                                                       const std::atomic<bool>& stop) {
  const auto request = make_request(round);
  BH_TRY(auto* agent, client(round.source.host));
  SendCall call;
  call.id = fmt::format("{:016x}{:016x}", node_.parts.random->next(), node_.parts.random->next());
  call.source = round.source.path;
  BH_TRY(call.disk, node_.paths.store_name(round.target.path));
  call.sync = request.sync;
  call.verify = request.verify;
  call.format = request.format;
  call.changed = request.changed;
  call.base_root = round.base_root;
  call.compress = request.compress;
  call.lanes = request.lanes;
  call.limit_bytes_per_s = request.limit_bytes_per_s;
  call.epoch = request.epoch;
  spdlog::info("{}: {}:{} to {}, epoch {}", round.run, round.source.host, round.source.path, call.disk, round.epoch);
  BH_RETURN_IF_ERROR(agent->call("send", to_json(call), kShortCall));
  std::atomic<bool> enough{false};
  std::thread offers([&] {
    const auto served = serve_offers({agent->endpoint(), call.id, call.lanes}, node_.store, *agent->tls(), enough);
    if (!served) spdlog::warn("{}: offered streams: {}", round.run, served.error().to_string());
  });
  auto result = follow_agent(*agent, call.id, report, stop);
  // Also after the send's end, so that the agent forgets it. When this returns, its lanes are gone.
  auto stopped = agent->call("send-stop", {{"id", call.id}}, kSampleCall);
  enough = true;
  offers.join();
  if (!result && stop.load() && !stopped)
    spdlog::warn("{}: the agent did not confirm the stop: {}", round.run, stopped.error().to_string());
  return result;
}

Result<RoundView> EngineDataPlane::poll_round(RoundHandle handle) {
  const auto round = task(handle);
  if (!round) return make_error(ControlErrc::not_found, "round " + std::to_string(handle));
  auto seen = round->look();
  RoundView view{std::move(seen.progress), {}};
  if (seen.ended) view.ended = *seen.ended ? Result<TransferStats>((*seen.ended)->stats) : seen.ended->error();
  return view;
}

Result<void> EngineDataPlane::cancel_round(RoundHandle handle) {
  const auto round = task(handle);
  if (!round) return {};
  round->request_stop();
  round->wait();
  return {};
}

void EngineDataPlane::forget_round(RoundHandle handle) noexcept {
  std::shared_ptr<SendTask> round;  // its thread is waited for outside the lock
  const std::lock_guard lock(mutex_);
  const auto found = rounds_.find(handle);
  if (found == rounds_.end()) return;
  round = std::move(found->second);
  rounds_.erase(found);
}

// ---- target disks

template <class Local, class Remote>
auto EngineDataPlane::at_target(const DiskRef& target, const Local& local, const Remote& remote)
    -> decltype(local(target.path)) {
  if (target.host.empty()) {
    BH_TRY(const auto name, node_.paths.store_name(target.path));
    return local(name);
  }
  BH_TRY(const auto place, url(target));
  BH_TRY(auto* agent, client(target.host));
  auto done = remote(place, *agent->tls());
  if (!done) return std::move(done).error().with_context("host agent " + target.host);
  return done;
}

Result<TargetStatus> EngineDataPlane::query_disk(const DiskRef& target) {
  BH_TRY(auto status, at_target(
                          target, [&](const std::string& name) { return node_.store.query(name); },
                          [](const TargetUrl& place, TlsContext& tls) { return query_target(place, tls); }));
  status.epoch = job_epoch(status.epoch);
  return status;
}

Result<void> EngineDataPlane::swap_disk(const DiskRef& target, std::uint64_t epoch) {
  const auto on_wire = wire_epoch(epoch);
  return at_target(
      target, [&](const std::string& name) { return node_.store.swap(name, on_wire); },
      [&](const TargetUrl& place, TlsContext& tls) { return swap_target(place, on_wire, tls); });
}

Result<void> EngineDataPlane::give_back(const DiskRef& target, std::uint64_t epoch) {
  const auto on_wire = wire_epoch(epoch);
  const auto undone = at_target(
      target, [&](const std::string& name) { return node_.store.cancel(name, on_wire); },
      [&](const TargetUrl& place, TlsContext& tls) { return cancel_transfer(place, tls, on_wire); });
  if (undone) return {};
  // The VM has written to the new disk, so what was kept cannot give the old one back. Nobody needs it: the source VM
  // counts now.
  if (!undone.error().is(EngineErrc::session_kept_changed)) return undone.error();
  spdlog::warn("{}:{}: {}; the old content is released", target.host, target.path, undone.error().to_string());
  return release_old(target, epoch);
}

Result<void> EngineDataPlane::release_old(const DiskRef& target, std::uint64_t epoch) {
  const auto on_wire = wire_epoch(epoch);
  return at_target(
      target, [&](const std::string& name) { return node_.store.release(name, on_wire); },
      [&](const TargetUrl& place, TlsContext& tls) { return release_target(place, on_wire, tls); });
}

// ---- facts

Result<HostReport> EngineDataPlane::host_report(const std::string& host) {
  BH_TRY(auto own, node_.report());
  if (host.empty()) return own;
  BH_TRY(auto* agent, client(host));
  BH_TRY(const auto answer, agent->call("report", {}, kShortCall));
  BH_TRY(auto report, host_report_from_json(answer));
  if (own.certificate_ends_unix_s != 0)
    report.certificate_ends_unix_s = std::min(report.certificate_ends_unix_s, own.certificate_ends_unix_s);
  return report;
}

Result<DiskSample> EngineDataPlane::sample_disk(const DiskRef& disk, const SampleCall& call) {
  if (disk.host.empty()) return node_.sample(call);
  BH_TRY(auto* agent, client(disk.host));
  BH_TRY(const auto answer, agent->call("sample", to_json(call), kSampleCall));
  return disk_sample_from_json(answer);
}

Result<ChangeSample> EngineDataPlane::sample(const DiskRef& source, const DiskRef& target) {
  SampleCall call;
  call.path = source.path;
  call.pick = kSampleExtents;
  BH_TRY(const auto ours, sample_disk(source, call));
  ChangeSample sample;
  sample.allocated_bytes = ours.allocated_bytes;
  sample.digest_bytes_per_s = ours.digest_bytes_per_s;
  BH_TRY(const auto found, query_disk(target));
  sample.target_exists = found.state != TargetState::absent;
  if (!sample.target_exists) return sample;
  call.path = target.path;
  call.pick = 0;
  for (const auto& sampled : ours.extents) call.extents.push_back(sampled.extent);
  auto theirs = sample_disk(target, call);
  if (!theirs) {
    // A staged disk has no name to read it by, so how much it lacks is not known.
    spdlog::info("sample of {}:{}: {}", target.host, target.path, theirs.error().to_string());
    return sample;
  }
  sample.changed_fraction = changed_fraction(ours, *theirs);
  if (theirs->digest_bytes_per_s > 0)
    sample.digest_bytes_per_s = std::min(sample.digest_bytes_per_s, theirs->digest_bytes_per_s);
  return sample;
}

}  // namespace backhaul
