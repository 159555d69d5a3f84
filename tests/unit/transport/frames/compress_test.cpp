#include "transport/frames/compress.h"

#include <gtest/gtest.h>
#include <zstd.h>

#include <ctime>
#include <random>
#include <string_view>
#include <vector>

#include "base/units.h"
#include "transport/stream/transport_error.h"

namespace backhaul {
namespace {

std::vector<std::byte> noise(std::size_t size) {
  std::mt19937_64 random(size);
  std::vector<std::byte> bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

// Not wall time: other programs must not decide a test.
double thread_cpu_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

std::vector<std::byte> prose(std::size_t size) {
  std::mt19937_64 random(size);
  constexpr std::string_view kWords[] = {"disk ", "block ", "extent ", "lane ", "target ", "source\n", "digest "};
  std::vector<std::byte> bytes;
  while (bytes.size() < size)
    for (const char c : kWords[random() % std::size(kWords)]) bytes.push_back(static_cast<std::byte>(c));
  bytes.resize(size);
  return bytes;
}

TEST(CompressTest, what_shrinks_comes_back_the_same) {
  for (const auto mode : {CompressMode::zstd, CompressMode::automatic})
    for (const std::size_t size : {std::size_t{512}, std::size_t{kBlockSize}, std::size_t{kMiB}}) {
      Compressor compressor(mode);
      const auto raw = prose(size);
      std::vector<std::byte> into(Compressor::bound(size)), back(size);
      const auto compressed = compressor.compress(raw, into);
      ASSERT_GT(compressed, 0U) << size;
      EXPECT_LT(compressed, size - size / 8);
      Decompressor decompressor;
      ASSERT_TRUE(decompressor.decompress(std::span(into).first(compressed), back));
      EXPECT_EQ(back, raw);
    }
}

TEST(CompressTest, what_does_not_shrink_is_sent_raw) {
  std::vector<std::byte> into(Compressor::bound(kMiB));
  for (const auto mode : {CompressMode::zstd, CompressMode::automatic, CompressMode::off})
    EXPECT_EQ(Compressor(mode).compress(noise(kMiB), into), 0U);
  EXPECT_EQ(Compressor(CompressMode::off).compress(prose(kMiB), into), 0U);
  EXPECT_EQ(Compressor(CompressMode::zstd).compress({}, into), 0U);
}

TEST(CompressTest, a_small_place_is_no_error) {
  std::vector<std::byte> into(10);
  EXPECT_EQ(Compressor(CompressMode::zstd).compress(prose(kBlockSize), into), 0U);
}

TEST(CompressTest, automatic_finds_data_that_shrinks_behind_data_that_does_not) {
  Compressor compressor(CompressMode::automatic);
  std::vector<std::byte> into(Compressor::bound(kMiB));
  const auto incompressible = noise(kMiB), text = prose(kMiB);
  for (int i = 0; i < 200; ++i) EXPECT_EQ(compressor.compress(incompressible, into), 0U);
  int raw = 0;
  while (compressor.compress(text, into) == 0) ASSERT_LE(++raw, 32) << "tried again too late";
  for (int i = 0; i < 10; ++i) EXPECT_GT(compressor.compress(text, into), 0U) << "goes on while it shrinks";
}

TEST(CompressTest, automatic_costs_next_to_nothing_on_data_that_does_not_shrink) {
  const auto incompressible = noise(kMiB);
  std::vector<std::byte> into(Compressor::bound(kMiB));
  const auto time_of = [&](CompressMode mode, int rounds) {
    Compressor compressor(mode);
    const double start = thread_cpu_seconds();
    for (int i = 0; i < rounds; ++i) compressor.compress(incompressible, into);
    return (thread_cpu_seconds() - start) / rounds;
  };
  // Against zstd's own pass over the same data, so that the machine's speed and the sanitizers cancel out.
  EXPECT_LT(time_of(CompressMode::automatic, 256) * 20, time_of(CompressMode::zstd, 32));
}

TEST(DecompressTest, refuses_what_does_not_fill_the_place_exactly) {
  const auto raw = prose(kBlockSize);
  std::vector<std::byte> frame(Compressor::bound(raw.size()));
  frame.resize(Compressor(CompressMode::zstd).compress(raw, frame));
  Decompressor decompressor;
  std::vector<std::byte> into(raw.size());
  for (const std::size_t size : {raw.size() - 1, raw.size() + 1, std::size_t{0}}) {
    std::vector<std::byte> other(size);
    EXPECT_EQ(decompressor.decompress(frame, other).error(), make_error_code(TransportErrc::decompress_failed));
  }
  for (const std::size_t size : {std::size_t{0}, std::size_t{3}, std::size_t{5}, std::size_t{8}, frame.size() - 1})
    EXPECT_FALSE(decompressor.decompress(std::span(frame).first(size), into)) << size;
  auto twice = frame;
  twice.insert(twice.end(), frame.begin(), frame.end());
  EXPECT_FALSE(decompressor.decompress(twice, into)) << "two frames";
  EXPECT_TRUE(decompressor.decompress(frame, into)) << "still usable after failures";
}

TEST(DecompressTest, refuses_a_window_above_the_limit) {
  // Not a single segment, content size in two bytes, window descriptor for 2 GiB, content of 256 + 0 bytes: one RLE
  // block.
  const unsigned char bytes[] = {0x28, 0xB5, 0x2F, 0xFD, 0x40, 0xA8, 0x00, 0x00, 0x03, 0x08, 0x00, 0x41};
  std::vector<std::byte> into(256);
  Decompressor decompressor;
  const auto frame = as_bytes(bytes, sizeof bytes);
  ASSERT_EQ(ZSTD_getFrameContentSize(bytes, sizeof bytes), 256U);
  const auto refused = decompressor.decompress(frame, into);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().cause().find("window"), std::string::npos) << refused.error().cause();
  unsigned char small[sizeof bytes];
  std::copy(std::begin(bytes), std::end(bytes), small);
  small[5] = 0x00;  // 1 KiB
  EXPECT_TRUE(decompressor.decompress(as_bytes(small, sizeof small), into)) << "the window alone was wrong";
}

TEST(DecompressTest, garbage_never_crashes) {
  std::mt19937_64 random(1);
  const auto raw = prose(4096);
  std::vector<std::byte> good(Compressor::bound(raw.size())), into(raw.size());
  good.resize(Compressor(CompressMode::zstd).compress(raw, good));
  Decompressor decompressor;
  for (int i = 0; i < 2000; ++i) {
    auto bad = good;
    bad[random() % bad.size()] ^= static_cast<std::byte>(1 + random() % 255);
    auto result = decompressor.decompress(bad, into);
    if (!result) {
      EXPECT_EQ(result.error(), make_error_code(TransportErrc::decompress_failed));
    }
  }
}

}  // namespace
}  // namespace backhaul
