#include "transport/tls/tls_server.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include <spdlog/spdlog.h>

#include <chrono>
#include <list>
#include <map>
#include <thread>

namespace backhaul {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

constexpr std::chrono::seconds kHandshakeTimeout{10};

Error from_asio(const boost::system::error_code& code, const std::string& what) {
  return Error::from_errno(code.value(), what);
}

// A program that a killed daemon was about to start has a copy of its socket, and so its port, for a moment.
constexpr std::chrono::seconds kPortPatience{2};
constexpr std::chrono::milliseconds kPortInterval{20};

struct Connection {
  std::thread thread;
  std::atomic<bool> done{false};
};

class AsioTlsServer final : public TlsServer {
 public:
  explicit AsioTlsServer(std::shared_ptr<TlsContext> context)
      : context_(std::move(context)), acceptor_(io_), signals_(io_), pause_(io_) {}
  ~AsioTlsServer() override { join_all(true); }

  Result<void> open(const Endpoint& address) {
    boost::system::error_code code;
    const auto what = "listen on " + address.host + ":" + std::to_string(address.port);
    tcp::resolver resolver(io_);
    const auto found = resolver.resolve(address.host, std::to_string(address.port), tcp::resolver::passive, code);
    if (code || found.empty()) return make_error(BaseErrc::invalid_argument, what + ": no such address");
    const auto endpoint = found.begin()->endpoint();
    const auto deadline = std::chrono::steady_clock::now() + kPortPatience;
    code = listen_at(endpoint);
    while (code == asio::error::address_in_use && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(kPortInterval);
      code = listen_at(endpoint);
    }
    if (code) return from_asio(code, what);
    port_ = acceptor_.local_endpoint(code).port();
    // From here on a signal waits for run(): whoever hears that we listen may already send one.
    signals_.add(SIGINT, code);
    signals_.add(SIGTERM, code);
    signals_.async_wait([this](const boost::system::error_code& failed, int) {
      if (!failed) io_.stop();
    });
    return {};
  }

  std::uint16_t port() const noexcept override { return port_; }
  void set_handler(std::string_view alpn, Handler handler) override {
    handlers_[std::string(alpn)] = std::move(handler);
  }

  void run(std::atomic<bool>& stopping) override {
    boost::system::error_code code;
    accept();
    io_.run();
    stopping.store(true);
    acceptor_.close(code);
    join_all(true);
  }

  void stop() override {
    asio::post(io_, [this] { io_.stop(); });
  }

 private:
  boost::system::error_code listen_at(const tcp::endpoint& endpoint) {
    boost::system::error_code code;
    acceptor_.close(code);
    acceptor_.open(endpoint.protocol(), code);
    if (!code) acceptor_.set_option(tcp::acceptor::reuse_address(true), code);
    if (!code) acceptor_.bind(endpoint, code);
    if (!code) acceptor_.listen(tcp::acceptor::max_listen_connections, code);
    return code;
  }

  void accept() {
    acceptor_.async_accept([this](const boost::system::error_code& code, tcp::socket socket) {
      if (code == asio::error::operation_aborted) return;
      join_all(false);
      if (code) {
        // Out of descriptors or memory: let connections end before the next try.
        spdlog::warn("accept: {}", code.message());
        pause_.expires_after(std::chrono::milliseconds(200));
        pause_.async_wait([this](const boost::system::error_code& failed) {
          if (!failed) accept();
        });
        return;
      }
      start(std::move(socket));
      accept();
    });
  }

  void start(tcp::socket socket) {
    if (connections_.size() >= kMaxConnections) {
      spdlog::warn("{} connections are open: one more is refused", kMaxConnections);
      return;
    }
    boost::system::error_code code;
    UniqueFd fd(socket.release(code));
    if (code) return;
    auto& connection = connections_.emplace_back();
    connection.thread = std::thread([this, &connection, fd = std::move(fd)]() mutable {
      serve(std::move(fd));
      connection.done.store(true);
    });
  }

  void serve(UniqueFd fd) {
    auto stream = tls_accept(*context_, std::move(fd), kHandshakeTimeout);
    if (!stream) {
      spdlog::warn("handshake: {}", stream.error().to_string());
      return;
    }
    const auto handler = handlers_.find((*stream)->alpn());
    if (handler == handlers_.end()) {
      spdlog::warn("{}: no handler for protocol {}", (*stream)->peer_name(), (*stream)->alpn());
      (*stream)->close();
      return;
    }
    handler->second(std::move(*stream));
  }

  void join_all(bool wait) {
    for (auto it = connections_.begin(); it != connections_.end();) {
      if (!wait && !it->done.load()) {
        ++it;
        continue;
      }
      if (it->thread.joinable()) it->thread.join();
      it = connections_.erase(it);
    }
  }

  asio::io_context io_{1};
  std::shared_ptr<TlsContext> context_;
  tcp::acceptor acceptor_;
  asio::signal_set signals_;
  asio::steady_timer pause_;
  std::uint16_t port_ = 0;
  std::map<std::string, Handler, std::less<>> handlers_;
  std::list<Connection> connections_;
};

}  // namespace

Result<std::unique_ptr<TlsServer>> TlsServer::listen(const Endpoint& address, std::shared_ptr<TlsContext> context) {
  auto server = std::make_unique<AsioTlsServer>(std::move(context));
  BH_RETURN_IF_ERROR(server->open(address));
  return std::unique_ptr<TlsServer>(std::move(server));
}

}  // namespace backhaul
