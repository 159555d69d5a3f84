#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <thread>

#include "control/http/http.h"
#include "control/model/control_error.h"
#include "transport/pki/pki.h"
#include "transport/stream/transport_error.h"
#include "transport/tls/tls_server.h"

namespace backhaul {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;

// Both ends over TLS on loopback: the API's listener, and a client that has only the CA.
class HttpClientTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "backhaul-http-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    ASSERT_TRUE(pki_init(directory_));
    auto tls = TlsContext::load(TlsRole::api_server, directory_ / "host");
    ASSERT_TRUE(tls) << tls.error().to_string();
    server_tls_ = *tls;
    tls = TlsContext::load_ca(directory_ / "ca.crt");
    ASSERT_TRUE(tls) << tls.error().to_string();
    client_tls_ = *tls;
  }
  void TearDown() override {
    stop();
    std::error_code ignored;
    fs::remove_all(directory_, ignored);
  }

  // `talk` serves each connection.
  void start(TlsServer::Handler talk) {
    auto server = TlsServer::listen({"127.0.0.1", 0}, server_tls_);
    ASSERT_TRUE(server) << server.error().to_string();
    server_ = std::move(*server);
    server_->set_handler(kAlpnHttp, std::move(talk));
    running_ = std::async(std::launch::async, [this] { server_->run(stopping_); });
  }
  void start_http(HttpHandler handler) {
    start([this, handler = std::move(handler)](std::unique_ptr<TlsStream> stream) {
      ++connections_;
      serve_http(
          std::move(stream), handler,
          [](unsigned status, std::string_view) {
            HttpResponse response;
            response.status = status;
            return response;
          },
          system_clock(), stopping_, limits_);
    });
  }
  void stop() {
    if (!server_) return;
    server_->stop();
    running_.get();
    server_.reset();
  }
  HttpClient client() { return HttpClient({"127.0.0.1", server_->port()}, client_tls_, system_clock()); }

  fs::path directory_;
  std::shared_ptr<TlsContext> server_tls_, client_tls_;
  std::unique_ptr<TlsServer> server_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> connections_{0};
  HttpLimits limits_;
  std::future<void> running_;
};

HttpResponse echo(const HttpRequest& request) {
  HttpResponse response;
  response.status = 201;
  response.headers = {{"x-peer", request.peer}, {"x-asked", std::string(request.header("x-asked"))}};
  response.body = request.method + " " + request.target + " " + request.body;
  return response;
}

TEST_F(HttpClientTest, SendsAndKeepsTheConnection) {
  start_http(echo);
  auto http = client();
  for (int i = 0; i < 3; ++i) {
    auto response = http.send("POST", "/a?b=1", {{"X-Asked", "yes"}}, "body", seconds(10));
    ASSERT_TRUE(response) << response.error().to_string();
    EXPECT_EQ(response->status, 201U);
    EXPECT_EQ(response->content_type, "application/json");
    EXPECT_EQ(response->header("x-asked"), "yes");
    EXPECT_EQ(response->header("x-peer"), "127.0.0.1") << "no certificate: the address, without the port";
    EXPECT_EQ(response->body, "POST /a?b=1 body");
  }
  EXPECT_EQ(connections_, 1);
  auto head = http.send("HEAD", "/", {}, "", seconds(10));
  ASSERT_TRUE(head) << head.error().to_string();
  EXPECT_EQ(head->body, "");
  EXPECT_EQ(http.send("GET", "/", {}, "", seconds(10))->body, "GET / ");
  EXPECT_EQ(connections_, 1);
}

TEST_F(HttpClientTest, CarriesLargeBodiesBothWays) {
  start_http(echo);
  auto http = client();
  const std::string body(1'000'000, 'b');
  auto response = http.send("PUT", "/", {}, body, seconds(60));
  ASSERT_TRUE(response) << response.error().to_string();
  EXPECT_EQ(response->body, "PUT / " + body);
}

TEST_F(HttpClientTest, DialsAgainWhenTheServerClosed) {
  limits_.requests_per_connection = 1;
  start_http(echo);
  auto http = client();
  for (int i = 0; i < 3; ++i) {
    auto response = http.send("POST", "/", {}, "", seconds(10));
    ASSERT_TRUE(response) << response.error().to_string();
  }
  EXPECT_EQ(connections_, 3);
}

TEST_F(HttpClientTest, ARefusedBodyStillGivesTheAnswer) {
  start_http(echo);
  auto http = client();
  auto response = http.send("POST", "/", {}, std::string(3'000'000, 'b'), seconds(60));
  ASSERT_TRUE(response) << response.error().to_string();
  EXPECT_EQ(response->status, 413U);
  EXPECT_EQ(http.send("GET", "/", {}, "", seconds(10))->status, 201U);
}

TEST_F(HttpClientTest, StreamsUntilTheEndOrUntilToldToStop) {
  start_http([](const HttpRequest& request) {
    HttpResponse response;
    response.content_type = "text/event-stream";
    response.stream = [endless = request.target == "/endless"](HttpBodyWriter& writer) -> Result<void> {
      for (int i = 0; i < 3; ++i) BH_RETURN_IF_ERROR(writer.write("piece "));
      while (endless && !writer.stopping()) std::this_thread::yield();
      return {};
    };
    return response;
  });
  auto http = client();
  std::string all;
  auto response = http.stream("GET", "/", {}, [&](std::string_view piece) {
    all += piece;
    return true;
  });
  ASSERT_TRUE(response) << response.error().to_string();
  EXPECT_EQ(response->status, 200U);
  EXPECT_EQ(response->content_type, "text/event-stream");
  EXPECT_EQ(all, "piece piece piece ");
  all.clear();
  response = http.stream("GET", "/endless", {}, [&](std::string_view piece) {
    all += piece;
    return all.size() < 18;
  });
  ASSERT_TRUE(response) << response.error().to_string();
  EXPECT_EQ(all, "piece piece piece ");
  EXPECT_EQ(http.send("HEAD", "/", {}, "", seconds(10))->status, 200U);
}

// A server that says exactly this, whatever it is asked, and closes.
TlsServer::Handler says(std::string bytes) {
  return [bytes = std::move(bytes)](std::unique_ptr<TlsStream> stream) {
    std::byte scratch[4096];
    std::size_t got = 0;
    while (got == 0) {
      auto read = stream->read_some(scratch);
      if (!read) return;
      got = *read;
      if (got == 0) (void)wait_stream(*stream, false, seconds(10));
    }
    (void)stream->write_some(Bytes(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()));
    (void)stream->flush();
    stream->close();
  };
}

TEST_F(HttpClientTest, SkipsInterimAnswersAndReadsABodyWithoutALength) {
  start(says("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nto the end"));
  auto response = client().send("GET", "/", {}, "", seconds(10));
  ASSERT_TRUE(response) << response.error().to_string();
  EXPECT_EQ(response->status, 200U);
  EXPECT_EQ(response->body, "to the end");
}
TEST_F(HttpClientTest, WhatIsNoHttpIsAnError) {
  start(says("220 mail ready\r\n"));
  auto response = client().send("GET", "/", {}, "", seconds(10));
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error(), make_error_code(ControlErrc::http_protocol)) << response.error().to_string();
}
TEST_F(HttpClientTest, ACutAnswerIsAnError) {
  start(says("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"));
  auto response = client().send("POST", "/", {}, "", seconds(10));
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error(), make_error_code(TransportErrc::closed)) << response.error().to_string();
}
TEST_F(HttpClientTest, ASilentServerTimesOut) {
  start([this](std::unique_ptr<TlsStream> stream) {
    while (!stopping_) (void)wait_stream(*stream, false, std::chrono::milliseconds(10));
  });
  auto response = client().send("GET", "/", {}, "", std::chrono::milliseconds(200));
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error(), make_error_code(BaseErrc::timed_out)) << response.error().to_string();
}

}  // namespace
}  // namespace backhaul
