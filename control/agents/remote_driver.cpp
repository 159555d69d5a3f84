#include "control/agents/remote_driver.h"

#include "control/drivers/json_driver.h"

namespace backhaul {
namespace {

// Longer than any driver's own timeout should be: the agent's driver gives up first and says why.
constexpr std::chrono::minutes kCallTimeout{15};

class RemoteDriver final : public JsonDriver {
 public:
  RemoteDriver(HostClient& client, std::string driver) : client_(client), driver_(std::move(driver)) {}

 private:
  Result<boost::json::object> call(std::string_view verb, const boost::json::object& request,
                                   std::uint32_t more_time_s) override {
    const boost::json::object body{{"driver", driver_}, {"verb", verb}, {"request", request}};
    return client_.call("driver", body, kCallTimeout + std::chrono::seconds(more_time_s));
  }

  HostClient& client_;
  const std::string driver_;
};

}  // namespace

std::unique_ptr<VmDriver> make_remote_driver(HostClient& client, std::string driver) {
  return std::make_unique<RemoteDriver>(client, std::move(driver));
}

}  // namespace backhaul
