// What the conformance tests of the disk seam share: a place for each kind of storage, content, and the fixture.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <map>

#include "base/unique_fd.h"
#include "base/units.h"
#include "dataplane/linux/linux_storage.h"
#include "sim/sim_random.h"
#include "sim/sim_storage.h"
#include "unit/dataplane/temporary_directory.h"

namespace backhaul::conformance {

using std::chrono::milliseconds;
using std::chrono::seconds;

std::error_code errno_code(int number) { return {number, std::generic_category()}; }

// Storage with a maker of queues; what it stands on lives as long.
class Place {
 public:
  virtual ~Place() = default;
  virtual Storage& storage() = 0;
  virtual std::unique_ptr<IoQueue> queue(unsigned depth) = 0;
};

class LinuxPlace final : public Place {
 public:
  explicit LinuxPlace(const std::string& parent)
      : directory_(parent), storage_(std::move(open_linux_storage(directory_.path()).value())) {}
  Storage& storage() override { return *storage_; }
  std::unique_ptr<IoQueue> queue(unsigned depth) override {
    return std::move(make_uring_queue({.depth = depth}).value());
  }

 private:
  TemporaryDirectory directory_;
  std::unique_ptr<Storage> storage_;
};

class SimPlace final : public Place {
 public:
  SimPlace() : storage_({.seed = sim::seed_from_environment(7)}) {}
  Storage& storage() override { return storage_; }
  std::unique_ptr<IoQueue> queue(unsigned depth) override { return storage_.make_queue(depth); }

 private:
  sim::SimStorage storage_;
};

inline std::unique_ptr<Place> make_place(const std::string& kind) {
  if (kind == "Sim") return std::make_unique<SimPlace>();
  return std::make_unique<LinuxPlace>(kind == "Tmpfs" ? "/dev/shm" : ::testing::TempDir());
}

class StorageConformance : public ::testing::TestWithParam<const char*> {
 protected:
  Storage& storage() { return place_->storage(); }
  std::unique_ptr<IoQueue> queue(unsigned depth = 16) { return place_->queue(depth); }

  std::unique_ptr<File> create(std::string_view path, std::uint64_t size = 0) {
    auto file = storage().create(path);
    EXPECT_TRUE(file) << file.error().to_string();
    EXPECT_TRUE((*file)->resize(size));
    return std::move(*file);
  }

  // 100 bytes of `value`.
  void fill_file(std::string_view path, unsigned char value) {
    const std::vector<std::byte> bytes(100, std::byte{value});
    EXPECT_TRUE(create(path)->write_at(0, bytes));
  }

  // Waits until everything in flight has completed.
  std::map<std::uint64_t, Completion> finish(IoQueue& io) {
    std::map<std::uint64_t, Completion> all;
    for (int calls = 0; io.in_flight() != 0 && calls < 1000; ++calls) {
      auto some = io.wait(nullptr, seconds(10));
      EXPECT_TRUE(some) << some.error().to_string();
      if (!some || some->empty()) break;
      for (const auto& one : *some) EXPECT_TRUE(all.emplace(one.tag, one).second) << "tag twice: " << one.tag;
    }
    EXPECT_EQ(io.in_flight(), 0U);
    return all;
  }

 private:
  std::unique_ptr<Place> place_ = make_place(GetParam());
};

inline void fill(MutableBytes bytes, std::uint64_t seed) {
  sim::SimRandom random(seed);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random.next());
}

inline std::vector<std::byte> read_all(File& file) {
  std::vector<std::byte> bytes(file.size());
  auto done = file.read_at(0, bytes);
  EXPECT_TRUE(done) << done.error().to_string();
  return bytes;
}

inline bool all_zero(Bytes bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte byte) { return byte == std::byte{0}; });
}

// Names
// ----------------------------------------------------------------------------------------------------------------

class SocketPair {
 public:
  SocketPair() {
    int ends[2] = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    near.reset(ends[0]);
    far.reset(ends[1]);
  }
  UniqueFd near, far;
};

}  // namespace backhaul::conformance
