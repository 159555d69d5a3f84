// A lane's buffers: small pieces share one, and it is free again when its last user is gone.
#include "dataplane/disk/buffer_pool.h"

#include <gtest/gtest.h>

namespace backhaul {
namespace {

TEST(BufferPool, SmallPiecesShareABufferAndStartAligned) {
  BufferPool pool(2, 4 * kBlockSize);
  const auto first = pool.place(kBlockSize + 1), second = pool.place(100);
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->buffer, second->buffer);
  EXPECT_EQ(first->at, 0U);
  EXPECT_EQ(second->at, kBlockSize + kIoAlignment);
  EXPECT_EQ(pool.at(*second, 100).data(), pool.at(first->buffer).data() + second->at);
  EXPECT_EQ(pool.free_count(), 1U);
}

TEST(BufferPool, WhatDoesNotFitTakesTheNextBuffer) {
  BufferPool pool(2, 4 * kBlockSize);
  const auto first = pool.place(2 * kBlockSize);
  EXPECT_TRUE(pool.fits(2 * kBlockSize));
  EXPECT_FALSE(pool.fits(3 * kBlockSize));
  const auto second = pool.place(3 * kBlockSize);
  ASSERT_TRUE(first && second);
  EXPECT_NE(first->buffer, second->buffer);
  EXPECT_FALSE(pool.place(2 * kBlockSize)) << "all buffers are in use";
  EXPECT_TRUE(pool.place(kBlockSize)) << "the one that is being filled takes what fits";
  pool.release(first->buffer);  // nobody fills it any more
  EXPECT_EQ(pool.free_count(), 1U);
}

TEST(BufferPool, ABufferIsFreeWhenItsLastUserIsGone) {
  BufferPool pool(1, 4 * kBlockSize);
  const auto whole = pool.take();
  ASSERT_TRUE(whole);
  pool.hold(*whole);
  pool.release(*whole);
  EXPECT_FALSE(pool.take());
  pool.release(*whole);
  const auto piece = pool.place(kBlockSize);
  ASSERT_TRUE(piece);
  pool.release(piece->buffer);
  EXPECT_EQ(pool.free_count(), 0U) << "it is still being filled";
  const auto rest = pool.place(3 * kBlockSize);
  ASSERT_TRUE(rest);
  EXPECT_EQ(rest->buffer, piece->buffer);
  pool.release(rest->buffer);  // full, so nothing holds it
  EXPECT_EQ(pool.free_count(), 1U);
}

}  // namespace
}  // namespace backhaul
