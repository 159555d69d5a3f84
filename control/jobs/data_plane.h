// How jobs move data: the control layer's view of the data plane. A round brings one disk's content from its source to
// its staged target; swap_disk makes the staged disk the disk, and until release_old give_back returns the old one.
// EngineDataPlane drives the engine over mTLS to host agents; tests put a fake here. Thread-safe. Calls without "round"
// in their names block for one exchange with the other end (bounded by its timeouts). Every call may be repeated after
// a crash. An empty host is this appliance.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "control/model/phases.h"
#include "dataplane/protocol/transfer.h"
#include "dataplane/protocol/transfer_report.h"
#include "transport/frames/compress.h"

namespace backhaul {

struct DiskRef {
  std::string host;  // a host agent's id; empty: local
  std::string path;  // or, of a source, an NBD URI (dataplane/nbd/nbd.h)
};

struct RoundRequest {
  std::string run;  // "job/17/round/3/os": names the run in logs and at the host agent
  DiskRef source;   // a snapshot's disk
  DiskRef target;
  std::optional<DiskFormat> target_format;  // nothing: the disk's, or by its name
  std::uint64_t size_bytes = 0;
  DataSync sync = DataSync::for_down_time;
  // A hint: all that can differ from what the target's staged disk holds.
  std::optional<std::vector<ByteRange>> changed;
  // With `changed`: root digest of the base that the target holds, as it was once delivered to the source's disk.
  // Empty: the target holds what the last round left.
  std::string base_root;
  std::uint32_t lanes = 0;  // 0: default
  VerifyMode verify = VerifyMode::written;
  CompressMode compress = CompressMode::automatic;
  std::uint64_t limit_bytes_per_s = 0;
  std::uint64_t epoch = 0;  // higher than any before for this item; the target refuses lower ones from then on
};

struct RoundView {
  TransferProgress progress;
  std::optional<Result<TransferStats>> ended;  // nothing while it runs; BaseErrc::cancelled: stopped
};

using RoundHandle = std::uint64_t;

struct HostReport {
  std::uint64_t free_bytes = 0;
  std::int64_t unix_time_s = 0;              // the host's clock at the moment of asking
  std::int64_t certificate_ends_unix_s = 0;  // the earlier of both ends' certificates
  std::vector<std::string> networks;
  std::vector<std::uint32_t> generations;  // supported
  std::vector<std::string> formats;        // words, so that a newer agent may name others
};

// From a sample of extents, read on both sides and compared.
struct ChangeSample {
  std::uint64_t allocated_bytes = 0;  // of the source, estimated
  double changed_fraction = 1;        // of what is allocated
  double digest_bytes_per_s = 0;      // the slower of both ends
  bool target_exists = false;
};

class DataPlane {
 public:
  virtual ~DataPlane() = default;

  // Starts and returns at once. Makes the staged disk when there is none; goes on with an interrupted round.
  virtual Result<RoundHandle> start_round(const RoundRequest& request) = 0;
  virtual Result<RoundView> poll_round(RoundHandle handle) = 0;
  // Stops the transfer at once; returns when both ends have confirmed that nothing more is written (or the link is
  // gone: then the epoch of the next call fences it). The staged disk stays.
  virtual Result<void> cancel_round(RoundHandle handle) = 0;
  virtual void forget_round(RoundHandle handle) noexcept = 0;  // after its end

  // The status's epoch is a job's, as in RoundRequest.
  virtual Result<TargetStatus> query_disk(const DiskRef& target) = 0;
  // Gives the staged disk the disk's name; the old one is kept aside. No error when it is swapped already.
  virtual Result<void> swap_disk(const DiskRef& target, std::uint64_t epoch) = 0;
  // Gives the old disk back, byte for byte, and leaves nothing of the transfer; also after swap_disk, until release_old
  // or until the VM ran. No error when there is nothing to give back.
  virtual Result<void> give_back(const DiskRef& target, std::uint64_t epoch) = 0;
  virtual Result<void> release_old(const DiskRef& target, std::uint64_t epoch) = 0;

  virtual Result<HostReport> host_report(const std::string& host) = 0;
  virtual Result<ChangeSample> sample(const DiskRef& source, const DiskRef& target) = 0;
};

}  // namespace backhaul
