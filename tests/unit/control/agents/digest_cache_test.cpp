// What rounds leave to the next ones: used when it is there, replaced when a round ends, dropped when it is wrong.
#include "control/agents/digest_cache.h"

#include <gtest/gtest.h>

#include "dataplane/protocol/engine_error.h"

namespace backhaul {
namespace {

std::shared_ptr<const DiskDigests> digests_of(std::size_t extents) {
  auto digests = std::make_shared<DiskDigests>();
  digests->extents.resize(extents);
  return digests;
}

struct Cache : ::testing::Test {
  DigestCache cache{10 * sizeof(Sha256)};
  SendRequest hinted() {
    SendRequest request;
    request.changed.emplace();
    return request;
  }
  Result<SendResult> success(std::shared_ptr<const DiskDigests> digests) {
    SendResult result;
    result.digests = std::move(digests);
    return result;
  }
};

TEST_F(Cache, a_list_of_changes_is_used_only_with_the_digests_of_the_round_before) {
  auto first = hinted();
  const auto left = digests_of(3);
  EXPECT_TRUE(cache.run("a", first, [&](const SendRequest& request) {
    EXPECT_FALSE(request.changed) << "compares everything";
    EXPECT_TRUE(request.keep_digests);
    return success(left);
  }));
  auto second = hinted();
  EXPECT_TRUE(cache.run("a", second, [&](const SendRequest& request) {
    EXPECT_TRUE(request.changed);
    EXPECT_EQ(request.base, left);
    return success(digests_of(3));
  }));
  EXPECT_NE(cache.find("a"), left);
  auto other = hinted();
  EXPECT_TRUE(cache.run("b", other, [&](const SendRequest& request) {
    EXPECT_FALSE(request.changed) << "another disk";
    return success(nullptr);
  }));
}

TEST_F(Cache, without_verification_a_list_of_changes_needs_no_digests) {
  auto request = hinted();
  request.verify = VerifyMode::none;
  EXPECT_TRUE(cache.run("a", request, [&](const SendRequest& ready) {
    EXPECT_TRUE(ready.changed);
    return success(nullptr);
  }));
}

TEST_F(Cache, a_lost_link_keeps_them_and_a_wrong_root_drops_them) {
  cache.put("a", digests_of(3));
  auto request = hinted();
  EXPECT_FALSE(cache.run(
      "a", request, [](const SendRequest&) -> Result<SendResult> { return Error::from_errno(ECONNRESET, "link"); }));
  EXPECT_TRUE(cache.find("a"));
  EXPECT_FALSE(cache.run(
      "a", request, [](const SendRequest&) -> Result<SendResult> { return make_error(EngineErrc::root_mismatch); }));
  EXPECT_FALSE(cache.find("a"));
}

TEST_F(Cache, a_round_over_everything_that_failed_drops_them) {
  cache.put("a", digests_of(3));
  SendRequest request;
  EXPECT_FALSE(cache.run(
      "a", request, [](const SendRequest&) -> Result<SendResult> { return Error::from_errno(ECONNRESET, "link"); }));
  EXPECT_FALSE(cache.find("a")) << "the target holds a part of another moment";
}

TEST_F(Cache, is_bounded_and_forgets_what_was_not_used_for_longest) {
  cache.put("a", digests_of(4));
  cache.put("b", digests_of(4));
  EXPECT_TRUE(cache.find("a"));
  cache.put("c", digests_of(4));
  EXPECT_FALSE(cache.find("b"));
  EXPECT_TRUE(cache.find("a"));
  EXPECT_TRUE(cache.find("c"));
  cache.put("huge", digests_of(11));
  EXPECT_FALSE(cache.find("huge"));
}

}  // namespace
}  // namespace backhaul
