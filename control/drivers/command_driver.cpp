#include "control/drivers/command_driver.h"

#include <fmt/format.h>

#include <boost/json.hpp>

#include "control/drivers/child_process.h"
#include "control/drivers/json_driver.h"
#include "control/model/control_error.h"

namespace backhaul {
namespace {

constexpr int kShutdownRefused = 3;  // the contract's exit statuses
constexpr int kPassingFault = 4;

class CommandDriver final : public JsonDriver {
 public:
  explicit CommandDriver(CommandDriverOptions options) : options_(std::move(options)) {}

 private:
  Result<boost::json::object> call(std::string_view verb, const boost::json::object& request,
                                   std::uint32_t more_time_s) override {
    boost::json::object input = request;
    input["verb"] = verb;
    std::vector<std::string> argv = options_.command;
    argv.emplace_back(verb);
    BH_TRY(ChildOutcome outcome, run_child(argv, boost::json::serialize(input) + "\n",
                                           std::chrono::seconds(options_.timeout_s + more_time_s), options_.env));
    if (outcome.exit_status != 0) return refusal(verb, request, outcome);
    boost::system::error_code failed;
    auto answer = boost::json::parse(outcome.output, failed);
    if (failed || !answer.is_object())
      return make_error(ControlErrc::driver_protocol, fmt::format("{}: the answer is no JSON object", verb));
    return std::move(answer.get_object());
  }

  static Error refusal(std::string_view verb, const boost::json::object& request, const ChildOutcome& outcome) {
    std::string cause =
        fmt::format("{} of VM {}: status {}", verb, std::string(request.at("vm").as_string()), outcome.exit_status);
    if (!outcome.errors.empty()) cause += ": " + outcome.errors.substr(0, outcome.errors.find_last_not_of("\r\n ") + 1);
    if (outcome.exit_status == kShutdownRefused) return make_error(ControlErrc::shutdown_refused, std::move(cause));
    if (outcome.exit_status == kPassingFault) return make_error(BaseErrc::timed_out, std::move(cause));
    return make_error(ControlErrc::driver_failed, std::move(cause));
  }

  const CommandDriverOptions options_;
};

}  // namespace

std::unique_ptr<VmDriver> make_command_driver(CommandDriverOptions options) {
  return std::make_unique<CommandDriver>(std::move(options));
}

}  // namespace backhaul
