// The JSON of the calls between appliance and host agent (docs/host_calls.md), both ways. Reading is
// strict: ControlErrc::invalid names the field.
#pragma once

#include <boost/json/object.hpp>
#include <optional>
#include <string>
#include <vector>

#include "control/agents/send_task.h"
#include "control/jobs/data_plane.h"
#include "dataplane/scan/sample.h"

namespace backhaul {

// Call "send": the agent is the source of a round onto a disk of the caller, who then offers it streams.
struct SendCall {
  std::string id;      // names the send and the streams offered for it: 1 to 64 of A-Z a-z 0-9 . _ -
  std::string source;  // a path or an NBD URI at the agent (control/agents/source_paths.h)
  std::string disk;    // the target disk's name at the caller
  SyncMode sync = SyncMode::delta;
  VerifyMode verify = VerifyMode::written;
  std::optional<DiskFormat> format;
  std::optional<std::vector<ByteRange>> changed;
  std::string base_root;  // RoundRequest::base_root
  CompressMode compress = CompressMode::automatic;
  std::uint32_t lanes = 2;
  std::uint64_t limit_bytes_per_s = 0, epoch = 0;
};
boost::json::object to_json(const SendCall& call);
Result<SendCall> send_call_from_json(const boost::json::object& body);

boost::json::object to_json(const SendTask::View& view);
Result<SendTask::View> send_view_from_json(const boost::json::object& body);

boost::json::object to_json(const HostReport& report);
Result<HostReport> host_report_from_json(const boost::json::object& body);

// Call "sample".
struct SampleCall {
  std::string path;
  std::size_t pick = 0;                // choose so many extents, or:
  std::vector<std::uint64_t> extents;  // these
};
boost::json::object to_json(const SampleCall& call);
Result<SampleCall> sample_call_from_json(const boost::json::object& body);
boost::json::object to_json(const DiskSample& sample);
Result<DiskSample> disk_sample_from_json(const boost::json::object& body);

}  // namespace backhaul
