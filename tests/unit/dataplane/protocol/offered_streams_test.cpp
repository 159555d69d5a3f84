// Streams that were offered: who may, how many wait, and which of them a sender gets.
#include "dataplane/protocol/offered_streams.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "dataplane/protocol/engine_error.h"
#include "sim/memory_stream.h"

namespace backhaul {
namespace {

using std::chrono::milliseconds;

template <class Value>
void expect_error(const Result<Value>& result, EngineErrc code) {
  ASSERT_TRUE(result.has_error());
  EXPECT_EQ(result.error(), make_error_code(code)) << result.error().to_string();
}

class OfferedStreamsTest : public ::testing::Test {
 protected:
  // The dialler's end stays in `diallers_`, in order.
  Result<void> offer(const std::string& id = "send", const std::string& peer = "appliance") {
    auto [ours, theirs] = sim::make_memory_pair();
    auto result = offered_.offer(id, peer, [&] { return std::unique_ptr<ByteStream>(std::move(ours)); });
    if (result) diallers_.push_back(std::move(theirs));
    EXPECT_EQ(ours != nullptr, result.has_error()) << "taken although refused, or not taken";
    return result;
  }
  // The number of the dialler whose stream the sender got.
  int dial() {
    auto stream = offered_.dial("send", milliseconds(0));
    if (!stream) return -1;
    const std::byte hello{7};
    EXPECT_TRUE((*stream)->write_some({&hello, 1}));
    for (std::size_t i = 0; i < diallers_.size(); ++i) {
      std::byte got{};
      const auto read = diallers_[i]->read_some({&got, 1});
      if (read && *read == 1) return static_cast<int>(i);
    }
    return -2;
  }
  bool closed(std::size_t dialler) {
    std::byte got{};
    return diallers_[dialler]->read_some({&got, 1}).has_error();
  }

  OfferedStreams offered_;
  std::vector<std::unique_ptr<sim::MemoryStream>> diallers_;
};

TEST_F(OfferedStreamsTest, OnlyNamesThatAreExpectedAreTaken) {
  expect_error(offer(), EngineErrc::offer_unknown);
  offered_.expect("send");
  EXPECT_TRUE(offer());
  expect_error(offer("other"), EngineErrc::offer_unknown);
  offered_.withdraw("other");
  offered_.withdraw("send");
  expect_error(offer(), EngineErrc::offer_unknown);
}

TEST_F(OfferedStreamsTest, AnotherNodeThanTheOneExpectedIsRefused) {
  offered_.expect("send", "appliance");
  expect_error(offer("send", "rogue"), EngineErrc::offer_unknown);
  EXPECT_TRUE(offer("send", "appliance"));
}

TEST_F(OfferedStreamsTest, TheOldestIsTakenFirst) {
  offered_.expect("send");
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(offer());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(dial(), i);
  expect_error(offered_.dial("send", milliseconds(0)), EngineErrc::offer_none);
}

TEST_F(OfferedStreamsTest, NoMoreThanTheLimitWaitAndDeadOnesDoNotCount) {
  offered_.expect("send");
  for (std::size_t i = 0; i < kMaxOfferedStreams; ++i) ASSERT_TRUE(offer());
  expect_error(offer(), EngineErrc::offer_full);
  diallers_[4]->close();
  EXPECT_TRUE(offer());
  expect_error(offer(), EngineErrc::offer_full);
  offered_.expect("other");
  EXPECT_TRUE(offer("other"));  // every name has its own
}

TEST_F(OfferedStreamsTest, WhoWentAwayOrSpokeUnaskedIsSkippedAndClosed) {
  offered_.expect("send");
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(offer());
  diallers_[0]->close();
  diallers_[1]->cut();
  const std::byte word{1};
  ASSERT_TRUE(diallers_[2]->write_some({&word, 1}));
  ASSERT_TRUE(diallers_[2]->flush());
  EXPECT_EQ(dial(), 3);
  EXPECT_TRUE(closed(2));
}

TEST_F(OfferedStreamsTest, AWithdrawnNameClosesWhatWaits) {
  offered_.expect("send");
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(offer());
  auto taken = offered_.dial("send", milliseconds(0));
  ASSERT_TRUE(taken);
  offered_.withdraw("send");
  EXPECT_FALSE(closed(0)) << "a stream in use is its sender's";
  EXPECT_TRUE(closed(1));
  expect_error(offered_.dial("send", milliseconds(0)), EngineErrc::offer_withdrawn);
}

TEST_F(OfferedStreamsTest, ASenderWaitsForAStreamThatComesLater) {
  offered_.expect("send");
  std::thread later([&] { EXPECT_TRUE(offer()); });
  EXPECT_TRUE(offered_.dial("send", std::chrono::minutes(5)));
  later.join();
}

TEST_F(OfferedStreamsTest, ASenderThatWaitsHearsOfTheWithdrawal) {
  offered_.expect("send");
  std::thread later([&] { offered_.withdraw("send"); });
  expect_error(offered_.dial("send", std::chrono::minutes(5)), EngineErrc::offer_withdrawn);
  later.join();
}

// Many diallers and senders at once: every stream is given once (tsan).
TEST_F(OfferedStreamsTest, EveryStreamIsGivenOnce) {
  constexpr int kThreads = 4, kEach = 200;
  offered_.expect("send");
  std::atomic<int> given{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      std::vector<std::unique_ptr<sim::MemoryStream>> alive;
      for (int i = 0; i < kEach;) {
        auto [ours, theirs] = sim::make_memory_pair();
        const auto put = offered_.offer("send", "", [&] { return std::unique_ptr<ByteStream>(std::move(ours)); });
        if (!put) {
          std::this_thread::yield();
          continue;
        }
        alive.push_back(std::move(theirs));
        ++i;
      }
      while (given.load() < kThreads * kEach) std::this_thread::yield();
    });
    threads.emplace_back([&] {
      for (int i = 0; i < kEach; ++i) given += offered_.dial("send", std::chrono::minutes(5)) ? 1 : 0;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(given.load(), kThreads * kEach);
}

}  // namespace
}  // namespace backhaul
