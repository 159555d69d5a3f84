// An appliance's data plane and a host agent in one process, over real TLS on loopback and real files.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <random>
#include <string>
#include <thread>

#include "control/agents/driver_set.h"
#include "control/agents/engine_data_plane.h"
#include "control/agents/host_services.h"
#include "dataplane/linux/linux_storage.h"
#include "dataplane/target/host_protocol.h"
#include "transport/pki/pki.h"
#include "transport/tls/tls_server.h"
#include "unit/dataplane/temporary_directory.h"

namespace backhaul::testing {

namespace fs = std::filesystem;

inline DataplaneParts make_parts() {
  DataplaneParts parts;
  parts.make_queue = [] { return make_uring_queue({kLaneQueueDepth}); };
  parts.make_hasher = [] { return make_block_hasher(*select_hash_kernel()); };
  parts.clock = &system_clock();
  parts.random = &system_random();
  return parts;
}

// A directory of disks and what serves it.
struct Site {
  fs::path root;
  DataplaneParts parts = make_parts();
  std::unique_ptr<Storage> storage;
  SourcePaths paths;
  std::unique_ptr<TargetStore> store;
  std::atomic<bool> stopping{false};
  std::unique_ptr<LocalNode> node;

  Site(const fs::path& in_root, const fs::path& tls) : root(in_root) {
    fs::create_directories(root);
    storage = *open_linux_storage(root);
    paths = *SourcePaths::make(root, {});
    store = std::make_unique<TargetStore>(*storage, parts);
    node = std::make_unique<LocalNode>(LocalNode{*store, paths, parts, tls, {"LAN"}, {1, 2}});
  }

  void write(const std::string& name, const std::string& content) const {
    std::ofstream(root / name, std::ios::binary) << content;
  }
  std::string read(const std::string& name) const {
    std::ifstream in(root / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
};

inline std::string noise(std::size_t size, unsigned seed) {
  std::mt19937_64 random(seed);
  std::string text(size, '\0');
  for (auto& c : text) c = static_cast<char>(random());
  return text;
}

// A host agent that can be killed and started again on the same port.
class Agent {
 public:
  Agent(Site& site, const fs::path& tls, std::map<std::string, VmDriver*> drivers)
      : site_(site), tls_(tls), drivers_(std::move(drivers)) {
    start();
  }
  ~Agent() { stop(); }
  void stop() {
    if (!server_) return;
    server_->stop();
    thread_.join();
    server_.reset();
  }
  void start() {
    site_.stopping = false;
    auto listening = TlsServer::listen({"127.0.0.1", port_}, *TlsContext::load(TlsRole::server, tls_));
    ASSERT_TRUE(listening) << listening.error().to_string();
    server_ = std::move(*listening);
    port_ = server_->port();
    thread_ = std::thread([this] { run(); });
  }
  std::uint16_t port() const { return port_; }

 private:
  void run() {
    OfferedStreams offers;
    HostProtocol protocol(*site_.store, site_.stopping, &offers);
    HostServices services(*site_.node, offers, drivers_);
    server_->set_handler(kAlpnBackhaul,
                         [&](std::unique_ptr<TlsStream> stream) { (void)protocol.serve(std::move(stream)); });
    server_->set_handler(kAlpnHttp, [&](std::unique_ptr<TlsStream> stream) {
      serve_http(
          std::move(stream), [&](const HttpRequest& request) { return services.handle(request); }, HostServices::refuse,
          system_clock(), site_.stopping, kHostHttpLimits);
    });
    server_->run(site_.stopping);
  }

  Site& site_;
  const fs::path tls_;
  const std::map<std::string, VmDriver*> drivers_;
  std::uint16_t port_ = 0;
  std::unique_ptr<TlsServer> server_;
  std::thread thread_;
};

class TwoSites : public ::testing::Test {
 protected:
  TwoSites() {
    EXPECT_TRUE(pki_init(directory_.path() / "tls"));
    recovery_ = std::make_unique<Site>(directory_.path() / "recovery", directory_.path() / "tls/appliance");
    primary_ = std::make_unique<Site>(directory_.path() / "primary", directory_.path() / "tls/host");
    agent_ = std::make_unique<Agent>(*primary_, directory_.path() / "tls/host", agent_drivers_);
    connect();
  }
  ~TwoSites() override {
    plane_.reset();
    agent_.reset();
  }

  // A new appliance, as after a restart of the process.
  void connect() {
    plane_.reset();
    auto tls = *TlsContext::load(TlsRole::client, directory_.path() / "tls/appliance");
    clients_ = make_host_clients({{"hv01", {"127.0.0.1", agent_->port()}}}, tls, system_clock());
    plane_ = std::make_unique<EngineDataPlane>(*recovery_->node, clients_, TransferDefaults{});
  }

  RoundRequest round(const DiskRef& source, const DiskRef& target, std::uint64_t epoch) {
    RoundRequest request;
    request.run = "test/" + std::to_string(epoch);
    request.source = source;
    request.target = target;
    request.target_format = DiskFormat::raw;
    request.epoch = epoch;
    return request;
  }
  Result<TransferStats> finish(const RoundRequest& request) {
    BH_TRY(const auto handle, plane_->start_round(request));
    auto result = wait_for(handle);
    plane_->forget_round(handle);
    return result;
  }
  Result<TransferStats> wait_for(RoundHandle handle) {
    while (true) {
      BH_TRY(auto seen, plane_->poll_round(handle));
      if (seen.ended) return std::move(*seen.ended);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  // Empty, or the error.
  static std::string why_failed(const Result<TransferStats>& result) {
    return result ? std::string() : result.error().to_string();
  }

  TemporaryDirectory directory_;
  std::map<std::string, VmDriver*> agent_drivers_;
  std::unique_ptr<Site> recovery_, primary_;
  std::unique_ptr<Agent> agent_;
  HostClients clients_;
  std::unique_ptr<EngineDataPlane> plane_;
};

}  // namespace backhaul::testing
