#include "control/command_driver.h"

#include <fmt/format.h>

#include <boost/json.hpp>

#include "control/child_process.h"
#include "control/control_error.h"
#include "control/vm_driver_json.h"

namespace backhaul {
namespace {

constexpr int kShutdownRefused = 3;  // the contract's exit statuses
constexpr int kPassingFault = 4;

class CommandDriver final : public VmDriver {
 public:
  explicit CommandDriver(CommandDriverOptions options) : options_(std::move(options)) {}

  Result<VmFacts> describe(const VmRef& vm) override { return read(call("describe", vm), vm_facts_from_json); }
  Result<Snapshot> snapshot(const VmRef& vm, const std::string& id) override {
    BH_TRY(Snapshot taken, read(call("snapshot", vm, {{"id", id}}), snapshot_from_json));
    if (taken.id != id)
      return make_error(ControlErrc::driver_protocol, "snapshot: the id is not the one that was asked for");
    return taken;
  }
  Result<ChangedExtents> changed_extents(const VmRef& vm, const std::string& disk, const std::string& since_token,
                                         const std::string& id) override {
    // A tracker is a hint: whatever goes wrong here, digests find the changes.
    auto changed = read(call("changed-extents", vm, {{"disk", disk}, {"since_token", since_token}, {"id", id}}),
                        changed_extents_from_json);
    if (!changed) return ChangedExtents{std::nullopt, changed.error().to_string()};
    return changed;
  }
  Result<std::optional<std::uint64_t>> changed_bytes(const VmRef& vm, const std::string& since_token) override {
    BH_TRY(auto answer, call("changed-bytes", vm, {{"since_token", since_token}}));
    const auto* bytes = answer.if_contains("bytes");
    if (bytes == nullptr || bytes->is_null()) return std::optional<std::uint64_t>();
    boost::system::error_code failed;
    const auto value = bytes->to_number<std::uint64_t>(failed);
    if (failed) return make_error(ControlErrc::driver_protocol, "changed-bytes: field 'bytes' is wrong");
    return std::optional<std::uint64_t>(value);
  }
  Result<void> release_snapshot(const VmRef& vm, const std::string& id, bool accepted) override {
    return done(call("release-snapshot", vm, {{"id", id}, {"accepted", accepted}}));
  }
  Result<void> forget_tokens(const VmRef& vm) override { return done(call("forget-tokens", vm)); }
  Result<ShutdownOutcome> shut_down(const VmRef& vm, const ShutdownRequest& request) override {
    BH_TRY(auto answer, call("shut-down", vm, {{"timeout_s", request.timeout_s}, {"allow_force", request.allow_force}},
                             request.timeout_s));
    const auto* forced = answer.if_contains("forced");
    const bool was_forced = forced != nullptr && forced->is_bool() && forced->get_bool();
    if (was_forced && !request.allow_force)
      return make_error(ControlErrc::driver_protocol, "shut-down: forced without being allowed to");
    return ShutdownOutcome{was_forced};
  }
  Result<void> create(const VmRef& vm, const VmDescription& description) override {
    return done(call("create", vm, {{"description", to_json_object(description)}}));
  }
  Result<void> start(const VmRef& vm) override { return done(call("start", vm)); }
  Result<void> stop(const VmRef& vm) override { return done(call("stop", vm)); }
  Result<void> remove(const VmRef& vm, bool delete_disks) override {
    return done(call("remove", vm, {{"delete_disks", delete_disks}}));
  }
  Result<std::vector<Check>> preflight(const VmRef& vm, const VmDescription& description) override {
    return read(call("preflight", vm, {{"description", to_json_object(description)}}), checks_from_json);
  }
  Result<Health> health(const VmRef& vm) override { return read(call("health", vm), health_from_json); }

 private:
  using Answer = Result<boost::json::object>;

  Answer call(const char* verb, const VmRef& vm, const boost::json::object& more = {}, std::uint32_t more_time_s = 0) {
    boost::json::object request = to_json_object(vm);
    request["verb"] = verb;
    for (const auto& [key, value] : more) request[key] = value;
    std::vector<std::string> argv = options_.command;
    argv.push_back(verb);
    BH_TRY(ChildOutcome outcome, run_child(argv, boost::json::serialize(request) + "\n",
                                           std::chrono::seconds(options_.timeout_s + more_time_s), options_.env));
    if (outcome.exit_status != 0) return refusal(verb, vm, outcome);
    boost::system::error_code failed;
    auto answer = boost::json::parse(outcome.output, failed);
    if (failed || !answer.is_object())
      return make_error(ControlErrc::driver_protocol, fmt::format("{}: the answer is no JSON object", verb));
    return std::move(answer.get_object());
  }

  static Error refusal(const char* verb, const VmRef& vm, const ChildOutcome& outcome) {
    std::string cause = fmt::format("{} of VM {}: status {}", verb, vm.vm, outcome.exit_status);
    if (!outcome.errors.empty()) cause += ": " + outcome.errors.substr(0, outcome.errors.find_last_not_of("\r\n ") + 1);
    if (outcome.exit_status == kShutdownRefused) return make_error(ControlErrc::shutdown_refused, std::move(cause));
    if (outcome.exit_status == kPassingFault) return make_error(BaseErrc::timed_out, std::move(cause));
    return make_error(ControlErrc::driver_failed, std::move(cause));
  }

  template <class Parse>
  static auto read(Answer answer, Parse parse) -> decltype(parse(*answer)) {
    if (!answer) return std::move(answer).error();
    return parse(*answer);
  }
  static Result<void> done(const Answer& answer) {
    if (!answer) return answer.error();
    return {};
  }

  const CommandDriverOptions options_;
};

}  // namespace

std::unique_ptr<VmDriver> make_command_driver(CommandDriverOptions options) {
  return std::make_unique<CommandDriver>(std::move(options));
}

}  // namespace backhaul
