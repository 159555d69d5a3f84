// The DataPlane of jobs over the real engine: rounds towards a host agent are sent by this process, rounds from a host
// agent are sent by the agent over streams that this process offers (docs/wire_protocol.md, offered streams). Disks of
// this site are written through the local TargetStore by the same rules as at an agent. Thread-safe.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "control/agents/digest_cache.h"
#include "control/agents/driver_set.h"
#include "control/agents/local_node.h"
#include "control/agents/send_task.h"
#include "control/jobs/data_plane.h"

namespace backhaul {

// Defaults of a round, and the most that it may ask for.
struct TransferDefaults {
  std::uint32_t lanes = 2, max_lanes = kMaxLanes;
  std::uint64_t limit_bytes_per_s = 0;
};

class EngineDataPlane final : public DataPlane {
 public:
  // Both outlive it.
  EngineDataPlane(const LocalNode& node, const HostClients& hosts, TransferDefaults defaults)
      : node_(node), hosts_(hosts), defaults_(defaults) {}
  ~EngineDataPlane() override;  // stops and waits for all rounds

  Result<RoundHandle> start_round(const RoundRequest& request) override;
  Result<RoundView> poll_round(RoundHandle handle) override;
  Result<void> cancel_round(RoundHandle handle) override;
  void forget_round(RoundHandle handle) noexcept override;

  Result<TargetStatus> query_disk(const DiskRef& target) override;
  Result<void> swap_disk(const DiskRef& target, std::uint64_t epoch) override;
  Result<void> give_back(const DiskRef& target, std::uint64_t epoch) override;
  Result<void> release_old(const DiskRef& target, std::uint64_t epoch) override;

  Result<HostReport> host_report(const std::string& host) override;
  Result<ChangeSample> sample(const DiskRef& source, const DiskRef& target) override;

 private:
  Result<HostClient*> client(const std::string& host) const;
  Result<TargetUrl> url(const DiskRef& target) const;
  SendRequest make_request(const RoundRequest& round) const;
  // Both block until the round's end.
  Result<SendResult> send_to_agent(const RoundRequest& round, const ReportProgress& report,
                                   const std::atomic<bool>& stop);
  Result<SendResult> receive_from_agent(const RoundRequest& round, const ReportProgress& report,
                                        const std::atomic<bool>& stop);
  Result<SendResult> follow_agent(HostClient& agent, const std::string& id, const ReportProgress& report,
                                  const std::atomic<bool>& stop);
  // One verb on a target disk: in the own store, or by the agent that has it.
  template <class Local, class Remote>
  auto at_target(const DiskRef& target, const Local& local, const Remote& remote) -> decltype(local(target.path));
  Result<DiskSample> sample_disk(const DiskRef& disk, const SampleCall& call);
  std::shared_ptr<SendTask> task(RoundHandle handle);

  const LocalNode& node_;
  const HostClients& hosts_;
  const TransferDefaults defaults_;
  DigestCache digests_;
  std::mutex mutex_;
  RoundHandle last_handle_ = 0;
  std::map<RoundHandle, std::shared_ptr<SendTask>> rounds_;
};

}  // namespace backhaul
