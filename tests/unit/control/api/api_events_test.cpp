#include "unit/control/api/api_fixture.h"

namespace backhaul::test {
namespace {

// Takes what a stream writes, and says when it is over: after `limit` pieces, or so many looks.
class Listener final : public HttpBodyWriter {
 public:
  explicit Listener(std::size_t limit, std::function<void()> on_look = {})
      : limit_(limit), on_look_(std::move(on_look)) {}
  Result<void> write(std::string_view piece) override {
    text += piece;
    pieces.emplace_back(piece);
    return {};
  }
  bool stopping() const noexcept override {
    ++looks_;
    if (on_look_) on_look_();
    return pieces.size() >= limit_ || looks_ > 20;
  }
  std::string text;
  std::vector<std::string> pieces;

 private:
  std::size_t limit_;
  std::function<void()> on_look_;
  mutable int looks_ = 0;
};

class ApiEvents : public ApiFixture {
 protected:
  Result<void> listen(Listener& listener, const std::string& last_id = {}, const std::string& who = "reader") {
    const auto answer =
        call("GET", "/v1/events", {}, who, last_id.empty() ? HttpHeaders{} : HttpHeaders{{"last-event-id", last_id}});
    EXPECT_EQ(answer.status, 200U) << answer.response.body;
    EXPECT_EQ(answer.response.content_type, "text/event-stream");
    return answer.response.stream(listener);
  }
  void change(const std::string& id, int i) {
    auto item = fake::make_item(id);
    item.vm.memory_mib = 2000 + static_cast<unsigned>(i);
    ASSERT_TRUE(bench.service->put_item(fake::kAdmin, item));
  }
  // The value of the last line with this name.
  static std::string last(const std::string& text, const std::string& name) {
    const auto at = text.rfind("\n" + name + ": ");
    if (at == std::string::npos) return {};
    const auto begin = at + name.size() + 3;
    return text.substr(begin, text.find('\n', begin) - begin);
  }
};

TEST_F(ApiEvents, TellWhatChangesWhileOneListens) {
  bool done = false;
  Listener listener(3, [&] {
    if (!std::exchange(done, true)) declare("web");
  });
  ASSERT_TRUE(listen(listener));
  EXPECT_TRUE(listener.text.starts_with("retry: ")) << listener.text;
  EXPECT_EQ(last(listener.text, "event"), "item");
  const auto data = json::parse(last(listener.text, "data"));
  EXPECT_EQ(data.at("kind"), "item");
  EXPECT_EQ(data.at("id"), "web");
  EXPECT_EQ(data.at("state"), "FailoverCommitted");
}

TEST_F(ApiEvents, AreTakenUpWhereTheyWereLeft) {
  bool done = false;
  Listener first(2, [&] {
    if (!std::exchange(done, true)) declare("a");
  });
  ASSERT_TRUE(listen(first));
  const std::string id =
      first.text.substr(first.text.find("\nid: ") + 5, first.text.find("\nevent") - first.text.find("\nid: ") - 5);
  bench.add_item(fake::make_item("b"));
  bench.add_item(fake::make_item("c"));
  Listener second(1 + 2);
  ASSERT_TRUE(listen(second, id));
  EXPECT_EQ(second.text.find("\"id\":\"a\""), std::string::npos) << second.text;
  EXPECT_NE(second.text.find("\"id\":\"b\""), std::string::npos);
  EXPECT_NE(second.text.find("\"id\":\"c\""), std::string::npos);
  EXPECT_EQ(second.text.find("reset"), std::string::npos);
}

TEST_F(ApiEvents, SayWhenSomethingIsMissing) {
  for (const char* unknown : {"otherone-5", "5", "x"}) {
    Listener listener(2);
    ASSERT_TRUE(listen(listener, unknown));
    EXPECT_NE(listener.text.find("event: reset\n"), std::string::npos) << unknown;
  }
  bool done = false;
  Listener first(2, [&] {
    if (!std::exchange(done, true)) declare("a");
  });
  ASSERT_TRUE(listen(first));
  const std::string id = last(first.text, "id");
  for (int i = 0; i < 1100; ++i) change("a", i);  // 1024 are kept
  Listener late(2);
  ASSERT_TRUE(listen(late, id));
  EXPECT_NE(late.text.find("event: reset\n"), std::string::npos);

  // A client that does not read: its mailbox overflows while it looks away.
  done = false;
  Listener slow(3, [&] {
    if (std::exchange(done, true)) return;
    for (int i = 0; i < 1100; ++i) change("a", 5000 + i);
  });
  ASSERT_TRUE(listen(slow));
  EXPECT_NE(slow.text.find("event: reset\n"), std::string::npos);
}

TEST_F(ApiEvents, KeepTheLinkAliveAndEndWithTheToken) {
  const auto made = call("PUT", "/v1/tokens/short", R"({"properties": {"role": "Reader"}})");
  const std::string secret = made.at("/properties/secret").as_string().c_str();
  int looks = 0;
  Listener listener(1000, [&] {
    bench.world.clock.sleep_for(std::chrono::seconds(16));
    if (++looks == 2) (void)bench.service->remove_token(fake::kAdmin, "short");
  });
  ASSERT_TRUE(listen(listener, {}, secret));
  EXPECT_NE(listener.text.find("\n\n: "), std::string::npos) << listener.text;
  EXPECT_EQ(looks, 2) << "the stream outlived its token";
}

TEST_F(ApiEvents, StreamsAreCounted) {
  {
    const auto first = call("GET", "/v1/events"), second = call("GET", "/v1/events");
    EXPECT_EQ(second.status, 200U);
    const auto third = call("GET", "/v1/events");
    EXPECT_EQ(third.status, 503U);
    EXPECT_EQ(third.code(), "http.too_many_streams");
  }
  EXPECT_EQ(call("GET", "/v1/events").status, 200U) << "a stream that ended gives its place back";
}

}  // namespace
}  // namespace backhaul::test
