#include <gtest/gtest.h>

#include <vector>

#include "control/http/http.h"
#include "unit/control/http/script_stream.h"

namespace backhaul {
namespace {

using test::ScriptStream;
using test::TickingClock;
using ::testing::Test;

// One connection, served to its end in this thread. The handler echoes what it got.
class HttpServer : public Test {
 protected:
  HttpServer() : peer_(std::make_unique<ScriptStream>(clock_, output_)) {
    handler_ = [](const HttpRequest& request) {
      HttpResponse response;
      response.content_type = "text/plain";
      response.body = request.method + " " + request.target + " [" + request.body + "]";
      return response;
    };
  }

  const std::string& serve() {
    serve_http(
        std::move(peer_),
        [&](const HttpRequest& request) {
          requests_.push_back(request);
          return handler_(request);
        },
        [&](unsigned status, std::string_view why) {
          refusals_.push_back(status);
          HttpResponse response;
          response.status = status;
          response.body = "{\"why\":\"" + std::string(why) + "\"}";
          return response;
        },
        clock_, stopping_, limits_);
    return output_;
  }

  std::size_t count(std::string_view what) const {
    std::size_t found = 0;
    for (std::size_t at = 0; (at = output_.find(what, at)) != std::string::npos; at += what.size()) ++found;
    return found;
  }
  // The connection was refused with this status, answered, and ended; no handler saw the request.
  void expect_refused(unsigned status) {
    serve();
    EXPECT_EQ(refusals_, std::vector<unsigned>{status});
    EXPECT_TRUE(requests_.empty());
    EXPECT_TRUE(output_.starts_with("HTTP/1.1 " + std::to_string(status) + " ")) << output_;
    EXPECT_EQ(count("connection: close"), 1U) << output_;
    EXPECT_TRUE(output_.ends_with("[closed]"));
  }

  TickingClock clock_;
  std::string output_;
  std::unique_ptr<ScriptStream> peer_;
  std::atomic<bool> stopping_{false};
  HttpLimits limits_;
  HttpHandler handler_;
  std::vector<HttpRequest> requests_;
  std::vector<unsigned> refusals_;
};

constexpr std::string_view kGet = "GET /a?b=%20 HTTP/1.1\r\nHost: x\r\nX-Mixed-Case: Value\r\n\r\n";

TEST_F(HttpServer, AnswersARequestAndKeepsTheConnection) {
  peer_->send(kGet).wait(59).send(kGet);
  const auto& output = serve();
  EXPECT_EQ(requests_.size(), 2U);
  EXPECT_EQ(requests_[0].method, "GET");
  EXPECT_EQ(requests_[0].target, "/a?b=%20");
  EXPECT_EQ(requests_[0].header("x-mixed-case"), "Value");
  EXPECT_EQ(requests_[0].peer, "scripted");
  EXPECT_EQ(count("HTTP/1.1 200 OK\r\n"), 2U);
  EXPECT_EQ(count("content-length: 15\r\n"), 2U) << output;
  EXPECT_EQ(count("date: Fri, 15 Jan 2027 08:00:00 GMT"), 2U) << output;
}

TEST_F(HttpServer, TwoRequestsInOnePacketAreAnsweredInOrder) {
  peer_->send("POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: x\r\n\r\nGET /3");
  const auto& output = serve();
  ASSERT_EQ(requests_.size(), 2U);  // the third is cut off and nobody is told
  EXPECT_EQ(requests_[0].body, "abc");
  EXPECT_LT(output.find("POST /1 [abc]"), output.find("GET /2 []"));
}

TEST_F(HttpServer, ReadsARequestThatComesByteByByte) {
  limits_.request = std::chrono::seconds(200);
  peer_->drip("POST /slow HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
  serve();
  ASSERT_EQ(requests_.size(), 1U) << output_;
  EXPECT_EQ(requests_[0].body, "abc");
}

TEST_F(HttpServer, ASlowClientIsRefused) {
  peer_->drip(kGet);
  expect_refused(408);
}
TEST_F(HttpServer, HalfAHeaderAndThenSilenceIsRefused) {
  peer_->send("GET / HTTP/1.1\r\nHost:").stay();
  expect_refused(408);
}
TEST_F(HttpServer, HalfABodyAndThenSilenceIsRefused) {
  peer_->send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc").stay();
  expect_refused(408);
}

TEST_F(HttpServer, AnIdleConnectionIsClosedWithoutAWord) {
  peer_->stay();
  EXPECT_EQ(serve(), "[closed]");
  EXPECT_GE(clock_.now(), limits_.idle);
}
TEST_F(HttpServer, AnEarlyCloseEndsTheConnectionQuietly) {
  for (const std::string_view begun :
       {"", "G", "GET / HTTP/1.1\r\nHost: x\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"}) {
    output_.clear();
    peer_ = std::make_unique<ScriptStream>(clock_, output_);
    peer_->send(begun);
    EXPECT_EQ(serve(), "[closed]");
  }
  EXPECT_TRUE(requests_.empty());
}

TEST_F(HttpServer, GarbageIsRefused) {
  peer_->send("\x16\x03\x01\x02garbage\r\n\r\n");
  expect_refused(400);
}
TEST_F(HttpServer, AHugeHeaderIsRefusedBeforeItIsKept) {
  std::string header = "GET / HTTP/1.1\r\nHost: x\r\n";
  for (int i = 0; i < 10'000; ++i) header += "A: b\r\n";
  peer_->send(header + "\r\n");
  expect_refused(431);
}
TEST_F(HttpServer, AHugeTargetIsRefused) {
  peer_->send("GET /" + std::string(100'000, 'a') + " HTTP/1.1\r\nHost: x\r\n\r\n");
  expect_refused(431);
}
TEST_F(HttpServer, AHugeBodyIsRefusedByItsLengthAlone) {
  peer_->send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n").stay();
  expect_refused(413);
}
TEST_F(HttpServer, AChunkedBodyIsRefusedWhenItGrowsTooLarge) {
  limits_.body_bytes = 100;
  peer_->send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 11; ++i) peer_->send("a\r\n0123456789\r\n");
  expect_refused(413);
}
TEST_F(HttpServer, AnEndlessChunkHeaderIsRefused) {
  peer_->send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + std::string(100'000, 'x'));
  expect_refused(400);
}
TEST_F(HttpServer, ABodyOfExactlyTheLimitIsTaken) {
  limits_.body_bytes = 100;
  peer_->send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n" + std::string(100, 'b'));
  serve();
  ASSERT_EQ(requests_.size(), 1U);
  EXPECT_EQ(requests_[0].body.size(), 100U);
}

class Smuggling : public HttpServer, public ::testing::WithParamInterface<const char*> {};
TEST_P(Smuggling, IsRefused) {
  peer_->send("POST / HTTP/1.1\r\nHost: x\r\n" + std::string(GetParam()) +
              "\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: x\r\n\r\n");
  expect_refused(400);
}
INSTANTIATE_TEST_SUITE_P(
    Ways, Smuggling,
    ::testing::Values("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                      "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                      "Transfer-Encoding: gzip\r\nContent-Length: 5\r\n", "Content-Length: 5\r\nContent-Length: 6\r\n",
                      "Content-Length: 5\r\nContent-Length: 5\r\n", "Content-Length: 5, 5\r\n",
                      "Content-Length: +5\r\n", "Content-Length: -1\r\n", "Content-Length: 99999999999999999999\r\n",
                      "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: xchunked\r\n",
                      "Transfer-Encoding: chunked, identity\r\n", "Transfer-Encoding : chunked\r\n", "Host: y\r\n",
                      "Authorization: a\r\nAuthorization: b\r\n"));

TEST_F(HttpServer, AHostIsNeeded) {
  peer_->send("GET / HTTP/1.1\r\n\r\n");
  expect_refused(400);
}
TEST_F(HttpServer, UnencodedBytesInTheTargetAreRefused) {
  peer_->send("GET /\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n");
  expect_refused(400);
}
TEST_F(HttpServer, ATrailerIsNoHeader) {
  peer_->send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nAuthorization: Bearer t\r\n\r\n");
  serve();
  ASSERT_EQ(requests_.size(), 1U) << output_;
  EXPECT_EQ(requests_[0].header("authorization"), "");
}

TEST_F(HttpServer, SaysContinueToWhoAsksBeforeTheBody) {
  peer_->send("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").wait(1).send("ab");
  const auto& output = serve();
  EXPECT_TRUE(output.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")) << output;
  ASSERT_EQ(requests_.size(), 1U);
  EXPECT_EQ(requests_[0].body, "ab");
}
TEST_F(HttpServer, SaysNoContinueForABodyThatIsTooLarge) {
  peer_->send("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\nExpect: 100-continue\r\n\r\n");
  expect_refused(413);
}
TEST_F(HttpServer, AnotherExpectationIsRefused) {
  peer_->send("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: miracles\r\n\r\nab");
  expect_refused(417);
}

TEST_F(HttpServer, HeadGetsTheHeaderAlone) {
  peer_->send("HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n").send(kGet);
  const auto& output = serve();
  EXPECT_EQ(count("content-length: 10\r\n"), 1U);  // of "HEAD /a []"
  EXPECT_EQ(output.find("HEAD /a"), std::string::npos);
  EXPECT_EQ(count("HTTP/1.1 200 OK"), 2U);
}
TEST_F(HttpServer, NoContentHasNoBodyAndNoLength) {
  handler_ = [](const HttpRequest&) {
    HttpResponse response;
    response.status = 204;
    response.body = "must not be sent";
    return response;
  };
  peer_->send(kGet);
  const auto& output = serve();
  EXPECT_TRUE(output.starts_with("HTTP/1.1 204 No Content\r\n"));
  EXPECT_EQ(output.find("content-"), std::string::npos) << output;
  EXPECT_EQ(output.find("must not"), std::string::npos);
}

TEST_F(HttpServer, ClosesWhenAsked) {
  peer_->send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").send(kGet);
  serve();
  EXPECT_EQ(requests_.size(), 1U);
  EXPECT_EQ(count("connection: close"), 1U);
}
TEST_F(HttpServer, AnOldClientIsAnsweredAndClosed) {
  peer_->send("GET / HTTP/1.0\r\n\r\n").send(kGet);
  serve();
  EXPECT_EQ(requests_.size(), 1U);
  EXPECT_EQ(count("connection: close"), 1U);
}
TEST_F(HttpServer, ClosesAfterItsNumberOfRequests) {
  limits_.requests_per_connection = 2;
  peer_->send(kGet).send(kGet).send(kGet);
  serve();
  EXPECT_EQ(requests_.size(), 2U);
  EXPECT_EQ(count("connection: close"), 1U);
}
TEST_F(HttpServer, AStopEndsAnIdleConnection) {
  handler_ = [this](const HttpRequest&) {
    stopping_ = true;
    return HttpResponse();
  };
  peer_->send(kGet).stay();
  serve();
  EXPECT_EQ(count("HTTP/1.1 200 OK"), 1U);
  EXPECT_EQ(count("connection: close"), 0U);  // it did not know yet when it began to answer
  EXPECT_LT(clock_.now(), limits_.idle);
}

TEST_F(HttpServer, AClientThatTakesNothingIsGivenUp) {
  handler_ = [](const HttpRequest&) {
    HttpResponse response;
    response.body = std::string(100'000, 'x');
    return response;
  };
  peer_->send(kGet).send(kGet).take_at_most(1000);
  serve();
  EXPECT_EQ(requests_.size(), 1U);
  EXPECT_GE(clock_.now(), limits_.write);
  EXPECT_LT(clock_.now(), 2 * limits_.write);
}

TEST_F(HttpServer, AHandlerThatThrowsGivesAnAnswer) {
  handler_ = [](const HttpRequest&) -> HttpResponse { throw std::runtime_error("a defect"); };
  peer_->send(kGet).send(kGet);
  const auto& output = serve();
  EXPECT_EQ(count("HTTP/1.1 500 Internal Server Error"), 2U);
  EXPECT_EQ(output.find("a defect"), std::string::npos);
}

TEST_F(HttpServer, AHeaderOfTheHandlerCannotEndTheHeader) {
  handler_ = [](const HttpRequest&) {
    HttpResponse response;
    response.headers = {{"x-good", "yes"}, {"x-bad", "a\r\nset-cookie: b"}};
    return response;
  };
  peer_->send(kGet);
  const auto& output = serve();
  EXPECT_NE(output.find("x-good: yes\r\n"), std::string::npos);
  EXPECT_EQ(output.find("set-cookie"), std::string::npos);
}

// Streams

HttpResponse streaming(std::function<Result<void>(HttpBodyWriter&)> stream) {
  HttpResponse response;
  response.content_type = "text/event-stream";
  response.stream = std::move(stream);
  return response;
}

TEST_F(HttpServer, StreamsPieceByPiece) {
  handler_ = [](const HttpRequest&) {
    return streaming([](HttpBodyWriter& writer) -> Result<void> {
      BH_RETURN_IF_ERROR(writer.write("first"));
      BH_RETURN_IF_ERROR(writer.write(""));
      return writer.write("the second");
    });
  };
  peer_->send(kGet).send(kGet).stay();
  const auto& output = serve();
  EXPECT_TRUE(output.ends_with("connection: close\r\n\r\n5\r\nfirst\r\na\r\nthe second\r\n0\r\n\r\n[closed]"))
      << output;
  EXPECT_EQ(requests_.size(), 1U);
}
TEST_F(HttpServer, AStreamThatFailsIsNotEnded) {
  handler_ = [](const HttpRequest&) {
    return streaming([](HttpBodyWriter& writer) -> Result<void> {
      BH_RETURN_IF_ERROR(writer.write("first"));
      return make_error(BaseErrc::internal);
    });
  };
  peer_->send(kGet).stay();
  EXPECT_TRUE(serve().ends_with("5\r\nfirst\r\n[closed]"));
}
TEST_F(HttpServer, AStreamLearnsThatItsClientIsGone) {
  handler_ = [](const HttpRequest&) {
    return streaming([](HttpBodyWriter& writer) -> Result<void> {
      for (int i = 0; i < 1000; ++i) {
        if (writer.stopping()) return {};
        BH_RETURN_IF_ERROR(writer.write("x"));
      }
      ADD_FAILURE() << "the client is gone and nobody noticed";
      return {};
    });
  };
  peer_->send(kGet).wait(3);
  EXPECT_GT(serve().size(), 0U);
}
TEST_F(HttpServer, AStreamEndsWhenTheServerStops) {
  handler_ = [this](const HttpRequest&) {
    return streaming([this](HttpBodyWriter& writer) -> Result<void> {
      stopping_ = true;
      EXPECT_TRUE(writer.stopping());
      return writer.write("too late");
    });
  };
  peer_->send(kGet).stay();
  EXPECT_EQ(serve().find("too late"), std::string::npos);
}
TEST_F(HttpServer, HeadOfAStreamStartsNone) {
  handler_ = [](const HttpRequest&) {
    return streaming([](HttpBodyWriter&) -> Result<void> {
      ADD_FAILURE() << "nobody wants the body";
      return {};
    });
  };
  peer_->send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").stay();
  EXPECT_TRUE(serve().ends_with("\r\n\r\n[closed]"));
}

}  // namespace
}  // namespace backhaul
