// Sending one disk to one host agent: the source's whole run, with its retries. Blocks the caller's thread; lanes run
// on their own.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>

#include "dataplane/protocol/dataplane_parts.h"
#include "dataplane/protocol/transfer_report.h"
#include "dataplane/source/source_session.h"
#include "transport/frames/compress.h"
#include "transport/stream/retry.h"
#include "transport/tls/tls_stream.h"

namespace backhaul {

struct TargetUrl {
  Endpoint endpoint;
  std::string disk;
};
// backhaul://HOST:PORT/DISK, IPv6 in brackets. Error: EngineErrc::bad_target_url.
Result<TargetUrl> parse_target_url(std::string_view url);

struct SendRequest {
  std::string source;  // path of a raw or VHDX disk or of a block device, or an NBD URI (dataplane/nbd/nbd.h)
  TargetUrl target;
  SyncMode sync = SyncMode::delta;
  VerifyMode verify = VerifyMode::written;
  StagingChoice staging = StagingChoice::automatic;
  // gmac: several times as fast where both ends read; no root digest comes of it but with VerifyMode::full. A target
  // that cannot, and whatever is not compared, takes sha256 (SendResult::compared_by tells).
  CompareBy compare_by = CompareBy::sha256;
  std::optional<DiskFormat> format;
  std::optional<std::vector<ByteRange>> changed;
  CompressMode compress = CompressMode::automatic;
  std::uint32_t lanes = 2;
  std::uint64_t limit_bytes_per_s = 0;
  std::uint64_t epoch = 0;  // a job's; 0: the target gives it
  bool swap = true;         // false: end a round, leave the disk staged
  // With `changed`: the digests of what the target holds (the round before left them). Null: the result then has no
  // root of the source.
  std::shared_ptr<const DiskDigests> base;
  bool keep_digests = false;  // SendResult::digests is wanted
  RetryPolicy retry;
  ReportProgress progress;                  // from the caller's thread; may be null
  const std::atomic<bool>* stop = nullptr;  // true: stop at once; what was acknowledged stays resumable
};

struct SendResult {
  TransferStats stats;
  std::uint64_t epoch = 0;
  DiskFormat format = DiskFormat::raw;  // of the target
  StagingKind staging = StagingKind::fresh;
  std::optional<CompareBy> compared_by;  // nothing: it was not compared
  std::uint32_t retries = 0;
  std::shared_ptr<const DiskDigests> digests;  // with keep_digests, for the next round's `base`; null: not all known
};

// Errors: everything that files, the link and the target can report. After Retry::later errors it has tried as `retry`
// says. Every retry takes an epoch of its own, one above the last: leave room for them between the epochs of two runs.
Result<SendResult> send_disk(const SendRequest& request, TlsContext& tls, const DataplaneParts& parts);

// A new stream to the target within the timeout, before its hello. Called from several threads at once.
using DialStream = std::function<Result<std::unique_ptr<ByteStream>>(std::chrono::milliseconds timeout)>;
// The same over streams that come from elsewhere; request.target.endpoint is not used.
Result<SendResult> send_disk(const SendRequest& request, const DialStream& dial, const DataplaneParts& parts);

// One exchange with the target, no retries; the meaning of the verbs, their epochs and errors are those of
// dataplane/store/staging.h. Each may be repeated after a lost answer, with the same epoch.
Result<TargetStatus> query_target(const TargetUrl& target, TlsContext& tls);
Result<void> swap_target(const TargetUrl& target, std::uint64_t epoch, TlsContext& tls);
Result<void> release_target(const TargetUrl& target, std::uint64_t epoch, TlsContext& tls);
// Gives the old disk back at the target. False when there was nothing to undo.
Result<bool> cancel_transfer(const TargetUrl& target, TlsContext& tls, std::uint64_t epoch = 0);
// The same over a stream that comes from elsewhere.
Result<TargetStatus> query_target(const std::string& disk, const DialStream& dial);
Result<void> swap_target(const std::string& disk, std::uint64_t epoch, const DialStream& dial);
Result<void> release_target(const std::string& disk, std::uint64_t epoch, const DialStream& dial);
Result<bool> cancel_transfer(const std::string& disk, const DialStream& dial, std::uint64_t epoch = 0);

// Dials and shakes hands over TLS. `tls` outlives it.
DialStream tls_dialler(TlsContext& tls, const Endpoint& endpoint);

}  // namespace backhaul
