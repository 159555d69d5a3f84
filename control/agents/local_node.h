// What a node knows of itself: a host agent reports it to the appliance, and the appliance uses it for its own site.
// Immutable but for what it refers to; thread-safe.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "control/agents/host_messages.h"
#include "control/agents/source_paths.h"
#include "control/jobs/data_plane.h"
#include "dataplane/source/send.h"
#include "dataplane/target/target_store.h"

namespace backhaul {

struct LocalNode {
  TargetStore& store;
  const SourcePaths& paths;
  const DataplaneParts& parts;
  std::filesystem::path tls_directory;
  std::vector<std::string> networks;
  std::vector<std::uint32_t> generations;

  Result<HostReport> report() const;
  // Opens a disk for reading: below the store, or wherever sources may lie or be exported.
  Result<std::unique_ptr<Disk>> open_source(std::string_view source) const;
  Result<DiskSample> sample(const SampleCall& call) const;
  // Sets the base of a round that sends what a VM has written since its disk was delivered here with this root digest:
  // the delivery's digests. Without them it drops the request's list of changes.
  void set_delivered_base(const std::string& source, const std::string& root_digest, SendRequest& request) const;
};

}  // namespace backhaul
