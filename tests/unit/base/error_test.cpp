#include "base/error.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace backhaul {
namespace {

Error peers(std::string symbol, Retry retry = Retry::no) {
  return Error::from_peer(std::move(symbol), "why", "", retry);
}

TEST(Error, IsTheCodeThatItWasMadeOf) {
  const auto error = make_error(BaseErrc::cancelled, "a job").with_context("disk os");
  EXPECT_TRUE(error.is(BaseErrc::cancelled));
  EXPECT_FALSE(error.is(BaseErrc::timed_out));
  EXPECT_FALSE(Error().is(BaseErrc::cancelled));
}

TEST(Error, OfTheSystemIsItsNumberAndNoOtherOfTheSameSymbol) {
  const auto error = Error::from_errno(ENOENT, "open x");
  EXPECT_TRUE(error.is(make_error_code(std::errc::no_such_file_or_directory)));
  EXPECT_FALSE(error.is(make_error_code(std::errc::io_error)));
  EXPECT_FALSE(Error::from_errno(EINVAL, "x").is({EBADF, std::generic_category()}));
}

TEST(Error, OfAPeerIsTheCodeOfItsSymbol) {
  const auto error = peers("base.timed_out").with_context("host agent hv1");
  EXPECT_TRUE(error.is(BaseErrc::timed_out));
  EXPECT_FALSE(error.is(BaseErrc::cancelled));
  EXPECT_TRUE(peers("io.no_space").is({ENOSPC, std::generic_category()}));
}

TEST(Error, OfAPeerIsNeverOneThatThisProcessMade) {
  const auto error = peers("base.cancelled");
  EXPECT_TRUE(error.is(BaseErrc::cancelled));
  EXPECT_EQ(error.code(), BaseErrc::peer_reported);
  EXPECT_TRUE(error.is(BaseErrc::peer_reported));
}

TEST(Error, OfAPeerWithASymbolThatWeDoNotKnowIsNoneOfOurs) {
  for (const auto* symbol : {"peer.newer", "base.cancelle", "base.cancelled2", "base."}) {
    const auto error = peers(symbol);
    for (int value = 1; value <= 6; ++value)
      if (const auto errc = static_cast<BaseErrc>(value); errc != BaseErrc::peer_reported)
        EXPECT_FALSE(error.is(errc)) << symbol << " is " << make_error(errc).symbol();
    EXPECT_EQ(error.symbol(), symbol);
  }
}

// "base.unknown" and "io.failed" are what every code has that has no symbol of its own.
TEST(Error, OfAPeerWithASymbolOfManyCodesIsNoneOfThem) {
  EXPECT_FALSE(peers("base.unknown").is({77, base_category()}));
  EXPECT_FALSE(peers("io.failed").is({EINVAL, std::generic_category()}));
}

TEST(Error, OfAPeerKeepsWhetherARetryCanHelp) {
  for (const auto retry : {Retry::no, Retry::later}) {
    const auto error = peers("base.timed_out", retry).with_context("more");
    EXPECT_TRUE(error.is(BaseErrc::timed_out));
    EXPECT_EQ(error.retry(), retry);
  }
  EXPECT_EQ(make_error(BaseErrc::timed_out).retry(), Retry::later);
}

}  // namespace
}  // namespace backhaul
