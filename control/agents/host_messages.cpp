#include "control/agents/host_messages.h"

#include "control/model/control_error.h"
#include "control/model/model_fields.h"
#include "dataplane/protocol/messages.h"
#include "transport/frames/frame_io.h"

namespace backhaul {

template <>
struct Word<SyncMode> : Words<parse_sync_mode, SyncMode::full> {};
template <>
struct Word<StagingKind> : Words<parse_staging_kind, StagingKind::undo_in_place, StagingKind::fresh> {};

namespace {

// Digests as one hexadecimal text.
std::string digests_text(const ExtentDigests& digests) {
  return to_hex(as_bytes(digests.data(), sizeof(ExtentDigests)));
}

int nibble(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

bool read_digests(std::string_view text, ExtentDigests& digests) {
  if (text.size() != 2 * sizeof(ExtentDigests)) return false;
  for (std::size_t i = 0; i < sizeof(ExtentDigests); ++i) {
    const int high = nibble(text[2 * i]), low = nibble(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    digests[i / sizeof(BlockDigest)].bytes[i % sizeof(BlockDigest)] = static_cast<std::byte>(high << 4 | low);
  }
  return true;
}

}  // namespace

constexpr AtMost kMostSampled{kMaxSampleExtents};

template <class A>
void fields(A& a, ByteRange& v) {
  a("offset", v.offset), a("length", v.length);
}
template <class A>
void fields(A& a, SendCall& v) {
  a("id", v.id, Need::required), a("source", v.source, Need::required), a("disk", v.disk, Need::required);
  a("sync", v.sync, Need::required), a("verify", v.verify, Need::required), a("format", v.format);
  a("changed", v.changed), a("base_root", v.base_root), a("compress", v.compress);
  a("lanes", v.lanes, Within{1, kMaxLanes}), a("limit_bytes_per_s", v.limit_bytes_per_s);
  a("epoch", v.epoch, Need::required);
  if constexpr (A::kReads)
    if (!is_offer_id(v.id)) a.mistake("id", "must be 1 to 64 letters, digits, '.', '_' or '-'");
}
template <class A>
void fields(A& a, SendResult& v) {
  fields(a, v.stats);
  a("epoch", v.epoch), a("format", v.format), a("staging", v.staging), a("retries", v.retries);
  if constexpr (A::kReads) a("disk_bytes", v.stats.disk_bytes, Need::required);
}
template <class A>
void fields(A& a, TransferProgress& v) {
  a("phase", v.phase), a("bytes_done", v.bytes_done), a("bytes_total", v.bytes_total);
  a("payload_bytes", v.payload_bytes), a("bytes_per_s", v.bytes_per_s), a("detail", v.detail);
}
template <class A>
void fields(A& a, HostReport& v) {
  a("free_bytes", v.free_bytes, Need::required), a("unix_time_s", v.unix_time_s, Need::required);
  a("certificate_ends_unix_s", v.certificate_ends_unix_s), a("networks", v.networks);
  a("generations", v.generations), a("formats", v.formats);
}
template <class A>
void fields(A& a, SampleCall& v) {
  a("path", v.path, Need::required), a("pick", v.pick, Within{0, kMaxSampleExtents});
  a("extents", v.extents, kMostSampled);
}
template <class A>
void fields(A& a, SampledExtent& v) {
  std::string digests = A::kReads ? std::string() : digests_text(v.digests);
  a("extent", v.extent, Need::required), a("digests", digests, Need::required);
  if constexpr (A::kReads)
    if (!read_digests(digests, v.digests)) a.mistake("digests", "must be the digests of an extent");
}
template <class A>
void fields(A& a, DiskSample& v) {
  a("size", v.size), a("allocated_bytes", v.allocated_bytes), a("digest_bytes_per_s", v.digest_bytes_per_s);
  a("extents", v.extents, Need::required, kMostSampled);
}

namespace {

template <class T>
Result<T> from_peer(const boost::json::object& body) {
  return read_fields<T>(body, From::peer, {}, ControlErrc::invalid);
}

}  // namespace

boost::json::object to_json(const SendCall& call) { return write_fields(call); }
Result<SendCall> send_call_from_json(const boost::json::object& body) { return from_peer<SendCall>(body); }

boost::json::object to_json(const SendTask::View& view) {
  boost::json::object object{{"progress", write_fields(view.progress)}, {"running", !view.ended.has_value()}};
  if (!view.ended) return object;
  if (*view.ended)
    object["result"] = write_fields(**view.ended);
  else
    object["failed"] = error_to_json(view.ended->error());
  return object;
}
static void fields(FieldReader& r, SendTask::View& view) {
  bool running = false;
  r("progress", view.progress, Need::required), r("running", running, Need::required);
  if (running) return;
  if (boost::json::object failed; r("failed", failed), !failed.empty()) {
    view.ended = Result<SendResult>(error_from_json(failed));
    return;
  }
  SendResult result;
  r("result", result, Need::required);
  view.ended = Result<SendResult>(std::move(result));
}
Result<SendTask::View> send_view_from_json(const boost::json::object& body) { return from_peer<SendTask::View>(body); }

boost::json::object to_json(const HostReport& report) { return write_fields(report); }
Result<HostReport> host_report_from_json(const boost::json::object& body) { return from_peer<HostReport>(body); }
boost::json::object to_json(const SampleCall& call) { return write_fields(call); }
Result<SampleCall> sample_call_from_json(const boost::json::object& body) { return from_peer<SampleCall>(body); }
boost::json::object to_json(const DiskSample& sample) { return write_fields(sample); }
Result<DiskSample> disk_sample_from_json(const boost::json::object& body) { return from_peer<DiskSample>(body); }

}  // namespace backhaul
