#include "control/drivers/json_driver.h"

#include <array>

#include "control/model/control_error.h"
#include "control/model/model_fields.h"

namespace backhaul {
namespace {

constexpr std::array<std::string_view, 4> kPowerStates{"absent", "off", "running", "unknown"};
constexpr std::array<std::string_view, 3> kCheckLevels{"ok", "warning", "failed"};
constexpr std::size_t kMaxRanges = 4 * 1024 * 1024;     // 64 MiB of them; more is no hint but a full disk
constexpr std::chrono::seconds kMaxFirstWriteWait{10};  // of one call: other calls for this VM wait behind it

template <class E, std::size_t Count>
std::optional<E> find_word(const std::array<std::string_view, Count>& words, std::string_view text) {
  for (std::size_t i = 0; i < Count; ++i)
    if (words[i] == text) return static_cast<E>(i);
  return std::nullopt;
}

}  // namespace

std::string_view to_string(PowerState state) noexcept { return kPowerStates[static_cast<std::size_t>(state)]; }
std::optional<PowerState> parse_power_state(std::string_view text) noexcept {
  return find_word<PowerState>(kPowerStates, text);
}
std::optional<CheckLevel> parse_check_level(std::string_view text) noexcept {
  return find_word<CheckLevel>(kCheckLevels, text);
}
std::string_view to_string(CheckLevel level) noexcept { return kCheckLevels[static_cast<std::size_t>(level)]; }

template <>
struct Word<PowerState> : Words<parse_power_state, PowerState::unknown> {};
template <>
struct Word<CheckLevel> : Words<parse_check_level, CheckLevel::failed> {};

template <class A>
void fields(A& a, VmRef& v) {
  a("vm", v.vm, Need::required), a("settings", v.settings), a("disks", v.disks);
}
template <class A>
void fields(A& a, VmFacts& v) {
  a("power", v.power, Need::required), a("disks", v.disks), a("description", v.vm);
}
template <class A>
void fields(A& a, Snapshot& v) {
  a("id", v.id, Need::required), a("token", v.token), a("disks", v.disks, Need::required);
}
template <class A>
void fields(A& a, ShutdownOutcome& v) {
  a("forced", v.forced), a("last_write_age_ms", v.last_write_age_ms);
}
template <class A>
void fields(A& a, StartOutcome& v) {
  a("token", v.token);
}
template <class A>
void fields(A& a, Check& v) {
  a("name", v.name, Need::required), a("level", v.level, Need::required);
  a("code", v.code), a("cause", v.cause), a("fix", v.fix);
}
template <class A>
void fields(A& a, std::vector<Check>& v) {
  a("checks", v, Need::required);
}
template <class A>
void fields(A& a, Health& v) {
  a("healthy", v.healthy, Need::required), a("detail", v.detail);
}
static void fields(FieldReader& r, ChangedExtents& changed) {
  r("why_unknown", changed.why_unknown);
  const auto* extents = r.get("extents");
  if (extents == nullptr) return r.mistake("extents", "is missing");
  if (extents->is_null()) return;
  constexpr std::string_view kList = "must be a list of [offset, length]";
  if (!extents->is_array()) return r.mistake("extents", kList);
  if (extents->get_array().size() > kMaxRanges) {
    changed.why_unknown = "too many extents to be a hint";
    return;
  }
  changed.ranges.emplace();
  for (const auto& value : extents->get_array()) {
    boost::system::error_code failed;
    ByteRange range;
    if (!value.is_array() || value.get_array().size() != 2) return r.mistake("extents", kList);
    range.offset = value.get_array()[0].to_number<std::uint64_t>(failed);
    if (!failed) range.length = value.get_array()[1].to_number<std::uint64_t>(failed);
    if (failed || range.end() < range.offset) return r.mistake("extents", kList);
    if (range.length != 0) changed.ranges->push_back(range);
  }
}
static void fields(FieldReader& r, FirstWrite& write) {
  const auto* age = r.get("age_ms");
  if (age == nullptr) return;
  write.kind = age->is_null() ? FirstWrite::not_yet : FirstWrite::seen;
  r("age_ms", write.age_ms), r("unsure_ms", write.unsure_ms);
}

namespace {

using Answer = Result<boost::json::object>;

template <class T>
Result<T> read(const Answer& answer) {
  if (!answer) return answer.error();
  return read_fields<T>(*answer, From::peer, {}, ControlErrc::driver_protocol);
}

Result<void> done(const Answer& answer) {
  if (!answer) return answer.error();
  return {};
}

boost::json::object answer_json(const ChangedExtents& changed) {
  if (!changed.ranges) return {{"extents", nullptr}, {"why_unknown", changed.why_unknown}};
  boost::json::array extents;
  for (const auto& range : *changed.ranges) extents.push_back({range.offset, range.length});
  return {{"extents", std::move(extents)}};
}
boost::json::object answer_json(const std::optional<std::uint64_t>& bytes) {
  if (!bytes) return {{"bytes", nullptr}};
  return {{"bytes", *bytes}};
}
boost::json::object answer_json(const FirstWrite& write) {
  switch (write.kind) {
    case FirstWrite::cannot_tell: return {};
    case FirstWrite::not_yet: return {{"age_ms", nullptr}};
    case FirstWrite::seen: return {{"age_ms", write.age_ms}, {"unsure_ms", write.unsure_ms}};
  }
  return {};
}
boost::json::object answer_json(const StartOutcome& outcome) {
  if (outcome.token.empty()) return {};
  return write_fields(outcome);
}
template <class T>
boost::json::object answer_json(const T& value) {
  return write_fields(value);
}

template <class T>
Answer answer_of(const Result<T>& result) {
  if (!result) return result.error();
  if constexpr (std::same_as<T, void>)
    return boost::json::object();
  else
    return answer_json(*result);
}

// What some verb takes.
struct Request {
  VmRef vm;
  std::string id, disk, since_token;
  bool accepted = false, delete_disks = false;
  ShutdownRequest shutdown;
  std::uint32_t wait_ms = 0;
  VmDescription description;
};

struct Verb {
  std::string_view name;
  void (*read)(FieldReader& r, Request& q);  // what it takes besides the VM
  Answer (*serve)(VmDriver& d, const Request& q);
};
void read_nothing_more(FieldReader&, Request&) {}
void read_id(FieldReader& r, Request& q) { r("id", q.id, Need::required); }
void read_description(FieldReader& r, Request& q) { r("description", q.description, Need::required); }

constexpr Verb kVerbs[] = {
    {"describe", read_nothing_more, [](VmDriver& d, const Request& q) { return answer_of(d.describe(q.vm)); }},
    {"snapshot", read_id, [](VmDriver& d, const Request& q) { return answer_of(d.snapshot(q.vm, q.id)); }},
    {"changed-extents",
     [](FieldReader& r, Request& q) {
       read_id(r, q), r("disk", q.disk, Need::required), r("since_token", q.since_token, Need::required);
     },
     [](VmDriver& d, const Request& q) { return answer_of(d.changed_extents(q.vm, q.disk, q.since_token, q.id)); }},
    {"changed-bytes", [](FieldReader& r, Request& q) { r("since_token", q.since_token, Need::required); },
     [](VmDriver& d, const Request& q) { return answer_of(d.changed_bytes(q.vm, q.since_token)); }},
    {"release-snapshot", [](FieldReader& r, Request& q) { read_id(r, q), r("accepted", q.accepted, Need::required); },
     [](VmDriver& d, const Request& q) { return answer_of(d.release_snapshot(q.vm, q.id, q.accepted)); }},
    {"forget-tokens", read_nothing_more,
     [](VmDriver& d, const Request& q) { return answer_of(d.forget_tokens(q.vm)); }},
    {"shut-down",
     [](FieldReader& r, Request& q) {
       r("timeout_s", q.shutdown.timeout_s, Need::required), r("allow_force", q.shutdown.allow_force, Need::required);
     },
     [](VmDriver& d, const Request& q) { return answer_of(d.shut_down(q.vm, q.shutdown)); }},
    {"create", read_description,
     [](VmDriver& d, const Request& q) { return answer_of(d.create(q.vm, q.description)); }},
    {"start", read_nothing_more, [](VmDriver& d, const Request& q) { return answer_of(d.start(q.vm)); }},
    {"first-write", [](FieldReader& r, Request& q) { r("wait_ms", q.wait_ms, Need::required); },
     [](VmDriver& d, const Request& q) {
       const std::chrono::milliseconds wait(q.wait_ms);
       return answer_of(d.first_write(q.vm, std::min<std::chrono::milliseconds>(wait, kMaxFirstWriteWait)));
     }},
    {"stop", read_nothing_more, [](VmDriver& d, const Request& q) { return answer_of(d.stop(q.vm)); }},
    {"remove", [](FieldReader& r, Request& q) { r("delete_disks", q.delete_disks, Need::required); },
     [](VmDriver& d, const Request& q) { return answer_of(d.remove(q.vm, q.delete_disks)); }},
    {"preflight", read_description,
     [](VmDriver& d, const Request& q) { return answer_of(d.preflight(q.vm, q.description)); }},
    {"health", read_nothing_more, [](VmDriver& d, const Request& q) { return answer_of(d.health(q.vm)); }},
};

}  // namespace

Result<boost::json::object> serve_driver_call(VmDriver& driver, std::string_view verb,
                                              const boost::json::object& request) {
  for (const auto& served : kVerbs) {
    if (served.name != verb) continue;
    Request read;
    Mistakes mistakes(From::peer, {});
    const auto read_all = [&](FieldReader& r) { fields(r, read.vm), served.read(r, read); };
    BH_RETURN_IF_ERROR(read_fields(request, read_all, mistakes, ControlErrc::driver_protocol));
    return served.serve(driver, read);
  }
  return make_error(ControlErrc::not_found, "driver verb '" + std::string(verb.substr(0, 64)) + "'");
}

Answer JsonDriver::call_vm(std::string_view verb, const VmRef& vm, const boost::json::object& more,
                           std::uint32_t more_time_s) {
  boost::json::object request = write_fields(vm);
  for (const auto& [key, value] : more) request[key] = value;
  return call(verb, request, more_time_s);
}

Result<VmFacts> JsonDriver::describe(const VmRef& vm) { return read<VmFacts>(call_vm("describe", vm)); }

Result<Snapshot> JsonDriver::snapshot(const VmRef& vm, const std::string& id) {
  BH_TRY(Snapshot taken, read<Snapshot>(call_vm("snapshot", vm, {{"id", id}})));
  if (taken.id != id)
    return make_error(ControlErrc::driver_protocol, "snapshot: the id is not the one that was asked for");
  return taken;
}

Result<ChangedExtents> JsonDriver::changed_extents(const VmRef& vm, const std::string& disk,
                                                   const std::string& since_token, const std::string& id) {
  // A tracker is a hint: whatever goes wrong here, digests find the changes.
  auto changed =
      read<ChangedExtents>(call_vm("changed-extents", vm, {{"disk", disk}, {"since_token", since_token}, {"id", id}}));
  if (!changed) return ChangedExtents{std::nullopt, changed.error().to_string()};
  return changed;
}

Result<std::optional<std::uint64_t>> JsonDriver::changed_bytes(const VmRef& vm, const std::string& since_token) {
  BH_TRY(auto answer, call_vm("changed-bytes", vm, {{"since_token", since_token}}));
  std::optional<std::uint64_t> bytes;
  Mistakes mistakes(From::peer, "changed-bytes");
  BH_RETURN_IF_ERROR(read_fields(
      answer, [&](FieldReader& r) { r("bytes", bytes); }, mistakes, ControlErrc::driver_protocol));
  return bytes;
}

Result<void> JsonDriver::release_snapshot(const VmRef& vm, const std::string& id, bool accepted) {
  return done(call_vm("release-snapshot", vm, {{"id", id}, {"accepted", accepted}}));
}

Result<void> JsonDriver::forget_tokens(const VmRef& vm) { return done(call_vm("forget-tokens", vm)); }

Result<ShutdownOutcome> JsonDriver::shut_down(const VmRef& vm, const ShutdownRequest& request) {
  BH_TRY(const auto outcome,
         read<ShutdownOutcome>(call_vm("shut-down", vm,
                                       {{"timeout_s", request.timeout_s}, {"allow_force", request.allow_force}},
                                       request.timeout_s)));
  if (outcome.forced && !request.allow_force)
    return make_error(ControlErrc::driver_protocol, "shut-down: forced without being allowed to");
  return outcome;
}

Result<void> JsonDriver::create(const VmRef& vm, const VmDescription& description) {
  return done(call_vm("create", vm, {{"description", write_fields(description)}}));
}
Result<StartOutcome> JsonDriver::start(const VmRef& vm) { return read<StartOutcome>(call_vm("start", vm)); }
Result<FirstWrite> JsonDriver::first_write(const VmRef& vm, std::chrono::milliseconds wait) {
  return read<FirstWrite>(call_vm("first-write", vm, {{"wait_ms", wait.count()}}));
}
Result<void> JsonDriver::stop(const VmRef& vm) { return done(call_vm("stop", vm)); }
Result<void> JsonDriver::remove(const VmRef& vm, bool delete_disks) {
  return done(call_vm("remove", vm, {{"delete_disks", delete_disks}}));
}
Result<std::vector<Check>> JsonDriver::preflight(const VmRef& vm, const VmDescription& description) {
  return read<std::vector<Check>>(call_vm("preflight", vm, {{"description", write_fields(description)}}));
}
Result<Health> JsonDriver::health(const VmRef& vm) { return read<Health>(call_vm("health", vm)); }

}  // namespace backhaul
