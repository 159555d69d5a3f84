#include "control/drivers/json_driver.h"

#include <fmt/format.h>

#include <boost/json.hpp>

#include "control/drivers/vm_driver_json.h"
#include "control/model/control_error.h"

namespace backhaul {
namespace {

using Answer = Result<boost::json::object>;

template <class Parse>
auto read(Answer answer, Parse parse) -> decltype(parse(*answer)) {
  if (!answer) return std::move(answer).error();
  return parse(*answer);
}

Result<void> done(const Answer& answer) {
  if (!answer) return answer.error();
  return {};
}

// Fields of a request, checked.
class Request {
 public:
  explicit Request(const boost::json::object& object) : object_(object) {}
  std::string text(std::string_view key) {
    const auto* value = object_.if_contains(key);
    if (value != nullptr && value->is_string()) return std::string(value->get_string());
    fail(key);
    return {};
  }
  bool truth(std::string_view key) {
    const auto* value = object_.if_contains(key);
    if (value != nullptr && value->is_bool()) return value->get_bool();
    fail(key);
    return false;
  }
  std::uint32_t number(std::string_view key) {
    const auto* value = object_.if_contains(key);
    boost::system::error_code failed;
    const auto read = value == nullptr ? 0 : value->to_number<std::uint32_t>(failed);
    if (value == nullptr || failed) fail(key);
    return read;
  }
  Result<VmDescription> description() {
    const auto* value = object_.if_contains("description");
    if (value != nullptr && value->is_object()) return vm_description_from_json(value->get_object());
    fail("description");
    return VmDescription{};
  }
  Result<void> check() const {
    if (failed_.empty()) return {};
    return make_error(ControlErrc::driver_protocol, fmt::format("field '{}' is missing or wrong", failed_));
  }

 private:
  void fail(std::string_view key) {
    if (failed_.empty()) failed_ = key;
  }
  const boost::json::object& object_;
  std::string failed_;
};

const boost::json::object kNothing;
constexpr std::chrono::seconds kMaxFirstWriteWait{10};  // of one call: other calls for this VM wait behind it

Answer answer_of(const Result<void>& result) {
  if (!result) return result.error();
  return kNothing;
}

template <class T>
Answer answer_of(const Result<T>& result) {
  if (!result) return result.error();
  return to_json_object(*result);
}

Answer serve_snapshot(VmDriver& driver, const VmRef& vm, Request& fields) {
  const auto id = fields.text("id");
  BH_RETURN_IF_ERROR(fields.check());
  return answer_of(driver.snapshot(vm, id));
}

Answer serve_changed_extents(VmDriver& driver, const VmRef& vm, Request& fields) {
  const auto disk = fields.text("disk"), since = fields.text("since_token"), id = fields.text("id");
  BH_RETURN_IF_ERROR(fields.check());
  return answer_of(driver.changed_extents(vm, disk, since, id));
}

Answer serve_changed_bytes(VmDriver& driver, const VmRef& vm, Request& fields) {
  const auto since = fields.text("since_token");
  BH_RETURN_IF_ERROR(fields.check());
  BH_TRY(const auto bytes, driver.changed_bytes(vm, since));
  boost::json::object answer{{"bytes", nullptr}};
  if (bytes) answer["bytes"] = *bytes;
  return answer;
}

Answer serve_release(VmDriver& driver, const VmRef& vm, Request& fields) {
  const auto id = fields.text("id");
  const bool accepted = fields.truth("accepted");
  BH_RETURN_IF_ERROR(fields.check());
  return answer_of(driver.release_snapshot(vm, id, accepted));
}

Answer serve_shut_down(VmDriver& driver, const VmRef& vm, Request& fields) {
  const ShutdownRequest request{fields.number("timeout_s"), fields.truth("allow_force")};
  BH_RETURN_IF_ERROR(fields.check());
  return answer_of(driver.shut_down(vm, request));
}

Answer serve_create(VmDriver& driver, const VmRef& vm, Request& fields) {
  BH_TRY(const auto description, fields.description());
  BH_RETURN_IF_ERROR(fields.check());
  return answer_of(driver.create(vm, description));
}

Answer serve_first_write(VmDriver& driver, const VmRef& vm, Request& fields) {
  const std::chrono::milliseconds wait(fields.number("wait_ms"));
  BH_RETURN_IF_ERROR(fields.check());
  return answer_of(driver.first_write(vm, std::min<std::chrono::milliseconds>(wait, kMaxFirstWriteWait)));
}

Answer serve_remove(VmDriver& driver, const VmRef& vm, Request& fields) {
  const bool delete_disks = fields.truth("delete_disks");
  BH_RETURN_IF_ERROR(fields.check());
  return answer_of(driver.remove(vm, delete_disks));
}

Answer serve_preflight(VmDriver& driver, const VmRef& vm, Request& fields) {
  BH_TRY(const auto description, fields.description());
  BH_RETURN_IF_ERROR(fields.check());
  return answer_of(driver.preflight(vm, description));
}

struct Served {
  std::string_view verb;
  Answer (*serve)(VmDriver&, const VmRef&, Request&);
};
constexpr Served kVerbs[] = {
    {"describe", [](VmDriver& d, const VmRef& vm, Request&) { return answer_of(d.describe(vm)); }},
    {"snapshot", serve_snapshot},
    {"changed-extents", serve_changed_extents},
    {"changed-bytes", serve_changed_bytes},
    {"release-snapshot", serve_release},
    {"forget-tokens", [](VmDriver& d, const VmRef& vm, Request&) { return answer_of(d.forget_tokens(vm)); }},
    {"shut-down", serve_shut_down},
    {"create", serve_create},
    {"start", [](VmDriver& d, const VmRef& vm, Request&) { return answer_of(d.start(vm)); }},
    {"first-write", serve_first_write},
    {"stop", [](VmDriver& d, const VmRef& vm, Request&) { return answer_of(d.stop(vm)); }},
    {"remove", serve_remove},
    {"preflight", serve_preflight},
    {"health", [](VmDriver& d, const VmRef& vm, Request&) { return answer_of(d.health(vm)); }},
};

}  // namespace

Result<boost::json::object> serve_driver_call(VmDriver& driver, std::string_view verb,
                                              const boost::json::object& request) {
  for (const auto& served : kVerbs) {
    if (served.verb != verb) continue;
    BH_TRY(const auto vm, vm_ref_from_json(request));
    Request fields(request);
    return served.serve(driver, vm, fields);
  }
  return make_error(ControlErrc::not_found, "driver verb '" + std::string(verb.substr(0, 64)) + "'");
}

Answer JsonDriver::call_vm(std::string_view verb, const VmRef& vm, const boost::json::object& more,
                           std::uint32_t more_time_s) {
  boost::json::object request = to_json_object(vm);
  for (const auto& [key, value] : more) request[key] = value;
  return call(verb, request, more_time_s);
}

Result<VmFacts> JsonDriver::describe(const VmRef& vm) { return read(call_vm("describe", vm), vm_facts_from_json); }

Result<Snapshot> JsonDriver::snapshot(const VmRef& vm, const std::string& id) {
  BH_TRY(Snapshot taken, read(call_vm("snapshot", vm, {{"id", id}}), snapshot_from_json));
  if (taken.id != id)
    return make_error(ControlErrc::driver_protocol, "snapshot: the id is not the one that was asked for");
  return taken;
}

Result<ChangedExtents> JsonDriver::changed_extents(const VmRef& vm, const std::string& disk,
                                                   const std::string& since_token, const std::string& id) {
  // A tracker is a hint: whatever goes wrong here, digests find the changes.
  auto changed = read(call_vm("changed-extents", vm, {{"disk", disk}, {"since_token", since_token}, {"id", id}}),
                      changed_extents_from_json);
  if (!changed) return ChangedExtents{std::nullopt, changed.error().to_string()};
  return changed;
}

Result<std::optional<std::uint64_t>> JsonDriver::changed_bytes(const VmRef& vm, const std::string& since_token) {
  BH_TRY(auto answer, call_vm("changed-bytes", vm, {{"since_token", since_token}}));
  const auto* bytes = answer.if_contains("bytes");
  if (bytes == nullptr || bytes->is_null()) return std::optional<std::uint64_t>();
  boost::system::error_code failed;
  const auto value = bytes->to_number<std::uint64_t>(failed);
  if (failed) return make_error(ControlErrc::driver_protocol, "changed-bytes: field 'bytes' is wrong");
  return std::optional<std::uint64_t>(value);
}

Result<void> JsonDriver::release_snapshot(const VmRef& vm, const std::string& id, bool accepted) {
  return done(call_vm("release-snapshot", vm, {{"id", id}, {"accepted", accepted}}));
}

Result<void> JsonDriver::forget_tokens(const VmRef& vm) { return done(call_vm("forget-tokens", vm)); }

Result<ShutdownOutcome> JsonDriver::shut_down(const VmRef& vm, const ShutdownRequest& request) {
  BH_TRY(const auto outcome,
         read(call_vm("shut-down", vm, {{"timeout_s", request.timeout_s}, {"allow_force", request.allow_force}},
                      request.timeout_s),
              shutdown_outcome_from_json));
  if (outcome.forced && !request.allow_force)
    return make_error(ControlErrc::driver_protocol, "shut-down: forced without being allowed to");
  return outcome;
}

Result<void> JsonDriver::create(const VmRef& vm, const VmDescription& description) {
  return done(call_vm("create", vm, {{"description", to_json_object(description)}}));
}
Result<StartOutcome> JsonDriver::start(const VmRef& vm) { return read(call_vm("start", vm), start_outcome_from_json); }
Result<FirstWrite> JsonDriver::first_write(const VmRef& vm, std::chrono::milliseconds wait) {
  return read(call_vm("first-write", vm, {{"wait_ms", wait.count()}}), first_write_from_json);
}
Result<void> JsonDriver::stop(const VmRef& vm) { return done(call_vm("stop", vm)); }
Result<void> JsonDriver::remove(const VmRef& vm, bool delete_disks) {
  return done(call_vm("remove", vm, {{"delete_disks", delete_disks}}));
}
Result<std::vector<Check>> JsonDriver::preflight(const VmRef& vm, const VmDescription& description) {
  return read(call_vm("preflight", vm, {{"description", to_json_object(description)}}), checks_from_json);
}
Result<Health> JsonDriver::health(const VmRef& vm) { return read(call_vm("health", vm), health_from_json); }

}  // namespace backhaul
