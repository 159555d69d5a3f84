#include "control/agents/host_messages.h"

#include <algorithm>
#include <boost/json.hpp>

#include "control/model/control_error.h"
#include "control/model/json_fields.h"
#include "transport/frames/frame_io.h"

namespace backhaul {

namespace json_fields {

inline std::optional<SyncMode> parse(Tag<SyncMode>, std::string_view text) { return parse_sync_mode(text); }
inline std::optional<VerifyMode> parse(Tag<VerifyMode>, std::string_view text) { return parse_verify_mode(text); }
inline std::optional<DiskFormat> parse(Tag<DiskFormat>, std::string_view text) { return parse_disk_format(text); }
inline std::optional<StagingKind> parse(Tag<StagingKind>, std::string_view text) { return parse_staging_kind(text); }
inline std::optional<CompressMode> parse(Tag<CompressMode>, std::string_view text) { return parse_compress_mode(text); }

}  // namespace json_fields

template <class A>
void fields(A& a, ByteRange& v) {
  a("offset", v.offset), a("length", v.length);
}
template <class A>
void fields(A& a, SendCall& v) {
  a("id", v.id), a("source", v.source), a("disk", v.disk), a("sync", v.sync), a("verify", v.verify);
  a("format", v.format), a("changed", v.changed), a("base_root", v.base_root), a("compress", v.compress),
      a("lanes", v.lanes);
  a("limit_bytes_per_s", v.limit_bytes_per_s), a("epoch", v.epoch);
}
template <class A>
void fields(A& a, SendResult& v) {
  fields(a, v.stats);
  a("epoch", v.epoch), a("format", v.format), a("staging", v.staging), a("retries", v.retries);
}
template <class A>
void fields(A& a, TransferProgress& v) {
  a("phase", v.phase), a("bytes_done", v.bytes_done), a("bytes_total", v.bytes_total);
  a("payload_bytes", v.payload_bytes), a("bytes_per_s", v.bytes_per_s), a("detail", v.detail);
}
template <class A>
void fields(A& a, HostReport& v) {
  a("free_bytes", v.free_bytes), a("unix_time_s", v.unix_time_s);
  a("certificate_ends_unix_s", v.certificate_ends_unix_s), a("networks", v.networks);
  a("generations", v.generations), a("formats", v.formats);
}
template <class A>
void fields(A& a, SampleCall& v) {
  a("path", v.path), a("pick", v.pick), a("extents", v.extents);
}

namespace {

template <class T>
boost::json::object write(const T& value) {
  boost::json::object object;
  json_fields::Writer writer(object);
  fields(writer, const_cast<T&>(value));
  return object;
}

Error wrong(std::string_view field) {
  return make_error(ControlErrc::invalid, "field '" + std::string(field) + "' is missing or wrong");
}

template <class T>
Result<T> read(const boost::json::object& body, std::initializer_list<std::string_view> required) {
  for (const auto field : required)
    if (!body.contains(field)) return wrong(field);
  T value;
  json_fields::Reader reader(body);
  fields(reader, value);
  if (!reader.mistake().empty()) return wrong(reader.mistake());
  return value;
}

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

bool good_id(std::string_view id) {
  return !id.empty() && id.size() <= 64 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '_' ||
           c == '-';
  });
}

}  // namespace

boost::json::object to_json(const SendCall& call) { return write(call); }
Result<SendCall> send_call_from_json(const boost::json::object& body) {
  BH_TRY(auto call, read<SendCall>(body, {"id", "source", "disk", "sync", "verify", "epoch"}));
  if (!good_id(call.id)) return wrong("id");
  if (call.lanes == 0 || call.lanes > kMaxLanes) return wrong("lanes");
  if (call.changed)
    for (const auto& range : *call.changed)
      if (range.end() < range.offset) return wrong("changed");
  return call;
}

boost::json::object to_json(const SendTask::View& view) {
  boost::json::object object{{"progress", write(view.progress)}, {"running", !view.ended.has_value()}};
  if (!view.ended) return object;
  if (*view.ended)
    object["result"] = write(**view.ended);
  else
    object["failed"] = error_to_json(view.ended->error());
  return object;
}
Result<SendTask::View> send_view_from_json(const boost::json::object& body) {
  SendTask::View view;
  const auto* progress = body.if_contains("progress");
  const auto* running = body.if_contains("running");
  if (progress == nullptr || !progress->is_object()) return wrong("progress");
  if (running == nullptr || !running->is_bool()) return wrong("running");
  BH_TRY(view.progress, read<TransferProgress>(progress->get_object(), {}));
  if (running->get_bool()) return view;
  if (const auto* failed = body.if_contains("failed"); failed != nullptr && failed->is_object()) {
    view.ended = Result<SendResult>(error_from_json(failed->get_object()));
    return view;
  }
  const auto* result = body.if_contains("result");
  if (result == nullptr || !result->is_object()) return wrong("result");
  BH_TRY(auto read_result, read<SendResult>(result->get_object(), {"disk_bytes"}));
  view.ended = Result<SendResult>(std::move(read_result));
  return view;
}

boost::json::object to_json(const HostReport& report) { return write(report); }
Result<HostReport> host_report_from_json(const boost::json::object& body) {
  return read<HostReport>(body, {"free_bytes", "unix_time_s"});
}

boost::json::object to_json(const SampleCall& call) { return write(call); }
Result<SampleCall> sample_call_from_json(const boost::json::object& body) {
  BH_TRY(auto call, read<SampleCall>(body, {"path"}));
  if (call.pick > kMaxSampleExtents) return wrong("pick");
  if (call.extents.size() > kMaxSampleExtents) return wrong("extents");
  return call;
}

boost::json::object to_json(const DiskSample& sample) {
  boost::json::array extents;
  for (const auto& sampled : sample.extents)
    extents.push_back({{"extent", sampled.extent}, {"digests", digests_text(sampled.digests)}});
  return {{"size", sample.size},
          {"allocated_bytes", sample.allocated_bytes},
          {"digest_bytes_per_s", sample.digest_bytes_per_s},
          {"extents", std::move(extents)}};
}
Result<DiskSample> disk_sample_from_json(const boost::json::object& body) {
  DiskSample sample;
  json_fields::Reader reader(body);
  reader("size", sample.size), reader("allocated_bytes", sample.allocated_bytes);
  reader("digest_bytes_per_s", sample.digest_bytes_per_s);
  if (!reader.mistake().empty()) return wrong(reader.mistake());
  const auto* extents = body.if_contains("extents");
  if (extents == nullptr || !extents->is_array() || extents->get_array().size() > kMaxSampleExtents)
    return wrong("extents");
  for (const auto& value : extents->get_array()) {
    const auto* object = value.if_object();
    const auto* digests = object == nullptr ? nullptr : object->if_contains("digests");
    const auto* extent = object == nullptr ? nullptr : object->if_contains("extent");
    SampledExtent sampled;
    boost::system::error_code failed;
    if (extent != nullptr) sampled.extent = extent->to_number<std::uint64_t>(failed);
    if (failed || extent == nullptr || digests == nullptr || !digests->is_string() ||
        !read_digests(digests->get_string(), sampled.digests))
      return wrong("extents");
    sample.extents.push_back(sampled);
  }
  return sample;
}

}  // namespace backhaul
