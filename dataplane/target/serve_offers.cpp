#include "dataplane/target/serve_offers.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "dataplane/protocol/engine_error.h"
#include "dataplane/protocol/messages.h"
#include "dataplane/protocol/offered_streams.h"
#include "dataplane/target/host_protocol.h"
#include "transport/frames/frame_io.h"

namespace backhaul {
namespace {

// A stream that was served for so long was worth dialling.
constexpr std::chrono::seconds kUsefulTime{1};

class Worker {
 public:
  Worker(const OfferOptions& options, TargetStore& local, TlsContext& tls, const std::atomic<bool>& stop)
      : options_(options), local_(local), tls_(tls), stop_(stop), clock_(*local.parts().clock) {}

  void run() {
    Backoff backoff(options_.retry, *local_.parts().random);
    while (!stop_.load()) {
      const auto started = clock_.now();
      const auto served = serve_one();
      const bool refused = !served && is_refused_offer(served.error());
      if (!refused && (served || clock_.now() - started > kUsefulTime)) backoff.progress();
      if (served || stop_.load()) continue;
      spdlog::debug("offer {} to {}:{}: {}", options_.id, options_.endpoint.host, options_.endpoint.port,
                    served.error().to_string());
      Clock::Duration delay{};
      (void)backoff.next(delay);
      const auto until = clock_.now() + delay;
      while (!stop_.load() && clock_.now() < until)
        clock_.sleep_for(std::min<Clock::Duration>(kStopPollInterval, until - clock_.now()));
    }
  }

 private:
  Result<void> serve_one() {
    BH_TRY(auto dialled, tls_connect(tls_, options_.endpoint, kAlpnBackhaul, kConnectTimeout));
    ControlChannel channel(std::move(dialled));
    BH_RETURN_IF_ERROR(exchange_hello(channel, kConnectTimeout));
    BH_RETURN_IF_ERROR(channel.send(FrameType::offer, to_json(Offer{options_.id}), 0, kSendTimeout));
    auto stream = channel.release();
    // The other end speaks first, when it needs the stream.
    while (true) {
      if (stop_.load()) {
        stream->close();
        return {};
      }
      BH_TRY(const bool ready, wait_stream(*stream, false, kStopPollInterval));
      if (ready) break;
    }
    return HostProtocol(local_, stop_).serve(std::move(stream));
  }

  const OfferOptions& options_;
  TargetStore& local_;
  TlsContext& tls_;
  const std::atomic<bool>& stop_;
  Clock& clock_;
};

}  // namespace

Result<void> serve_offers(const OfferOptions& options, TargetStore& local, TlsContext& tls,
                          const std::atomic<bool>& stop) {
  if (!is_offer_id(options.id))
    return make_error(BaseErrc::invalid_argument, "'" + options.id.substr(0, 100) + "' is no name for an offer");
  const auto count =
      std::min<std::size_t>(std::clamp<std::uint32_t>(options.lanes, 1, kMaxLanes) + 3U, kMaxOfferedStreams);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < count; ++i) threads.emplace_back([&] { Worker(options, local, tls, stop).run(); });
  for (auto& thread : threads) thread.join();
  return {};
}

}  // namespace backhaul
