// What only the Linux side of the disk seam has: links, direct I/O, block devices, limits, full file systems.
#include "dataplane/linux/linux_storage.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <thread>

#include "base/unique_fd.h"
#include "base/units.h"
#include "dataplane/disk/raw_disk.h"
#include "sim/sim_random.h"
#include "unit/dataplane/temporary_directory.h"

namespace backhaul {
namespace {

namespace fs = std::filesystem;

void fill(MutableBytes bytes, std::uint64_t seed) {
  sim::SimRandom random(seed);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random.next());
}

std::error_code os_error(int number) { return {number, std::generic_category()}; }

// One request, to its end.
Completion finish(IoQueue& io) {
  while (io.in_flight() != 0) {
    auto done = io.wait(nullptr, std::chrono::seconds(30));
    EXPECT_TRUE(done) << done.error().to_string();
    if (!done || done->empty()) break;
    return done->front();
  }
  ADD_FAILURE() << "no completion";
  return {};
}

Completion read(IoQueue& io, File& file, std::uint64_t offset, MutableBytes into) {
  io.read(file, offset, into, 1);
  return finish(io);
}

Completion write(IoQueue& io, File& file, std::uint64_t offset, Bytes from) {
  io.write(file, offset, from, 1);
  return finish(io);
}

class LinuxStorage : public ::testing::Test {
 protected:
  fs::path root() const { return directory_.path() / "store"; }
  Storage& storage() { return *storage_; }
  std::unique_ptr<IoQueue> queue() { return std::move(*make_uring_queue()); }

 private:
  TemporaryDirectory directory_;
  std::unique_ptr<Storage> storage_ = [this] {
    fs::create_directory(root());
    std::ofstream(directory_.path() / "secret") << "outside";
    return std::move(*open_linux_storage(root()));
  }();
};

TEST_F(LinuxStorage, LinksThatLeaveTheStoreAreRefusedAndOthersFollowed) {
  std::ofstream(root() / "inside") << "inside";
  fs::create_directory(root() / "directory");
  fs::create_symlink("../secret", root() / "out");
  fs::create_symlink("/etc/hostname", root() / "absolute");
  fs::create_symlink(root() / "inside", root() / "absolute_inside");
  fs::create_symlink("/proc/self/fd/0", root() / "magic");
  fs::create_symlink("loop", root() / "loop");
  fs::create_directory_symlink("..", root() / "up");
  fs::create_symlink("../inside", root() / "directory" / "link");

  for (const char* path : {"out", "absolute", "absolute_inside", "magic", "loop", "up/secret"}) {
    EXPECT_EQ(storage().open(path, OpenMode::write).error().code(), IoErrc::outside_store) << path;
    EXPECT_EQ(storage().kind(path).error().code(), IoErrc::outside_store) << path;
    EXPECT_EQ(storage().clone(path, "copy").error().code(), IoErrc::outside_store) << path;
  }
  EXPECT_EQ(storage().create("up/new").error().code(), IoErrc::outside_store);
  EXPECT_EQ(storage().create("out").error().code(), os_error(EEXIST)) << "a link is never written through";
  EXPECT_EQ(storage().remove("up/secret").error().code(), IoErrc::outside_store);
  EXPECT_EQ(storage().rename("inside", "up/stolen", true).error().code(), IoErrc::outside_store);
  EXPECT_EQ(storage().rename("up/secret", "mine", true).error().code(), IoErrc::outside_store);
  EXPECT_EQ(storage().list("up").error().code(), IoErrc::outside_store);
  EXPECT_EQ(storage().make_directory("up/new").error().code(), IoErrc::outside_store);
  EXPECT_FALSE(storage().remove_directory("up"));
  EXPECT_TRUE(fs::exists(root().parent_path() / "secret"));
  EXPECT_FALSE(fs::exists(root().parent_path() / "new"));

  EXPECT_EQ(*storage().kind("directory/link"), Storage::Kind::other) << "a rename would move the link, not the file";
  auto followed = storage().open("directory/link", OpenMode::read);
  ASSERT_TRUE(followed) << followed.error().to_string();
  EXPECT_EQ((*followed)->size(), 6U);
  ASSERT_TRUE(storage().remove("out")) << "removing a link removes the link";
  EXPECT_TRUE(fs::exists(root().parent_path() / "secret"));
}

TEST_F(LinuxStorage, PipesAndDirectoriesAreNoDisks) {
  ASSERT_EQ(::mkfifo((root() / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(storage().open("pipe", OpenMode::write).error().code(), IoErrc::not_a_disk);
  EXPECT_EQ(*storage().kind("pipe"), Storage::Kind::other);
  EXPECT_EQ(open_linux_file("/dev/null", OpenMode::read).error().code(), IoErrc::not_a_disk);
  EXPECT_EQ(open_linux_file(root(), OpenMode::read).error().code(), IoErrc::not_a_disk);
  EXPECT_EQ(open_linux_file(root() / "none", OpenMode::read).error().code(), os_error(ENOENT));
  EXPECT_FALSE(open_linux_storage(root() / "none"));
}

TEST_F(LinuxStorage, NewFilesAreTheOwnersAlone) {
  ASSERT_TRUE(storage().create("disk"));
  struct stat status {};
  ASSERT_EQ(::stat((root() / "disk").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600U);
}

// Pages of the file that the page cache holds.
std::size_t cached_pages(const fs::path& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY));
  const std::size_t size = fs::file_size(path);
  void* map = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  std::vector<unsigned char> resident(div_up(size, 4096));
  EXPECT_EQ(::mincore(map, size, resident.data()), 0);
  ::munmap(map, size);
  return static_cast<std::size_t>(std::count_if(resident.begin(), resident.end(), [](auto page) { return page & 1; }));
}

TEST_F(LinuxStorage, QueueGoesPastThePageCacheForAllButTheTail) {
  auto file = std::move(*storage().create("disk"));
  constexpr std::uint64_t kSize = kMiB + 700;
  ASSERT_TRUE(file->resize(kSize));
  if (UniqueFd probe(::open((root() / "disk").c_str(), O_RDONLY | O_DIRECT)); !probe)
    GTEST_SKIP() << "the file system of the temporary directory refuses O_DIRECT";
  auto io = queue();
  AlignedBuffer memory(2 * kMiB);
  fill(memory.span(), 1);
  ASSERT_EQ(write(*io, *file, 0, memory.span().first(kSize)).bytes, kSize);
  EXPECT_LE(cached_pages(root() / "disk"), 1U);
  ASSERT_TRUE(file->sync());
  ASSERT_EQ(read(*io, *file, 0, memory.span()).bytes, kSize);
  EXPECT_LE(cached_pages(root() / "disk"), 1U);

  std::vector<std::byte> through_cache(kMiB);
  ASSERT_TRUE(file->read_at(0, through_cache));
  EXPECT_GE(cached_pages(root() / "disk"), 256U) << "the measure works";
  file->drop_cache(0, kMiB);
  EXPECT_LE(cached_pages(root() / "disk"), 1U);
}

TEST_F(LinuxStorage, RegisteredMemoryReadsLikeAnyOther) {
  auto file = std::move(*storage().create("disk"));
  ASSERT_TRUE(file->resize(4 * kMiB + 123));
  auto io = queue();
  AlignedBuffer registered(4 * kMiB), second(kMiB), plain(4 * kMiB);
  io->register_memory(registered.span());
  io->register_memory(second.span());
  fill(registered.span(), 2);
  ASSERT_EQ(write(*io, *file, 0, registered.span()).bytes, 4 * kMiB);
  for (const auto& [offset, length] :
       {std::pair{0UL, 4UL * kMiB}, {4096UL, 65536UL}, {5UL, 100'000UL}, {3UL * kMiB, kMiB}}) {
    const std::uint64_t shift = offset % 4096;
    std::fill_n(registered.data(), registered.size(), std::byte{0});
    const auto wanted = std::min(length, 4 * kMiB - shift);
    ASSERT_EQ(read(*io, *file, offset, registered.span().subspan(shift, wanted)).bytes, wanted);
    ASSERT_EQ(read(*io, *file, offset, plain.span().subspan(shift, wanted)).bytes, wanted);
    EXPECT_EQ(std::memcmp(registered.data() + shift, plain.data() + shift, wanted), 0) << offset;
  }
  ASSERT_EQ(read(*io, *file, kMiB, second.span()).bytes, kMiB);
  ASSERT_EQ(read(*io, *file, kMiB, plain.span().first(kMiB)).bytes, kMiB);
  EXPECT_EQ(std::memcmp(second.data(), plain.data(), kMiB), 0);
}

// In a child: limits and privileges are the process's.
TEST_F(LinuxStorage, WithoutTheRightToLockMemoryTheQueueWorksUnregistered) {
  auto file = std::move(*storage().create("disk"));
  ASSERT_TRUE(file->resize(8 * kMiB));
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const rlimit limit{256 * kKiB, 256 * kKiB};
    if (::setrlimit(RLIMIT_MEMLOCK, &limit) != 0) ::_exit(10);
    if (::geteuid() == 0 && ::setresuid(65534, 65534, 65534) != 0) ::_exit(11);  // root may lock what it likes
    auto made = make_uring_queue();
    if (!made) ::_exit(12);
    AlignedBuffer memory(8 * kMiB), back(8 * kMiB);
    (*made)->register_memory(memory.span());
    (*made)->register_memory(memory.span());
    fill(memory.span(), 3);
    if (write(**made, *file, 0, memory.span()).bytes != memory.size()) ::_exit(13);
    if (read(**made, *file, 0, back.span()).bytes != back.size()) ::_exit(14);
    ::_exit(std::memcmp(memory.data(), back.data(), back.size()) == 0 ? 0 : 15);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(LinuxStorage, QueueMadeByOneThreadServesAnother) {
  auto file = std::move(*storage().create("disk"));
  ASSERT_TRUE(file->resize(kMiB));
  auto io = queue();
  AlignedBuffer memory(kMiB);
  io->register_memory(memory.span());
  std::uint32_t bytes = 0;
  std::thread([&] {
    bytes = read(*io, *file, 0, memory.span()).bytes;
    io.reset();
  }).join();
  EXPECT_EQ(bytes, kMiB);
}

TEST_F(LinuxStorage, QueueDepthIsBounded) {
  EXPECT_EQ(make_uring_queue({.depth = 0}).error().code(), BaseErrc::invalid_argument);
  EXPECT_EQ(make_uring_queue({.depth = 1'000'000}).error().code(), BaseErrc::invalid_argument);
  EXPECT_EQ((*make_uring_queue({.depth = 1}))->capacity(), 1U);
}

// Mounted for one test; a file system of two MiB.
class SmallFileSystem {
 public:
  bool mount() {
    mounted_ = ::mount("tmpfs", directory_.path().c_str(), "tmpfs", 0, "size=2m") == 0;
    return mounted_;
  }
  ~SmallFileSystem() {
    if (!mounted_) return;
    EXPECT_EQ(::umount(directory_.path().c_str()), 0) << std::strerror(errno);
  }
  const fs::path& path() const { return directory_.path(); }

 private:
  TemporaryDirectory directory_;
  bool mounted_ = false;
};

TEST(LinuxStorageFull, AFullFileSystemIsSaidAndLeavesTheRestAlone) {
  SmallFileSystem small;
  if (!small.mount()) GTEST_SKIP() << "mounting a tmpfs is not permitted here";
  auto storage = std::move(*open_linux_storage(small.path()));
  auto file = std::move(*storage->create("disk"));
  ASSERT_TRUE(file->resize(8 * kMiB));
  auto io = std::move(*make_uring_queue());
  AlignedBuffer memory(kMiB);
  fill(memory.span(), 4);
  EXPECT_LE(*storage->free_space_bytes(), 2 * kMiB);
  ASSERT_EQ(write(*io, *file, 0, memory.span()).error, 0);
  EXPECT_EQ(
      write(*io, *file, 2 * kMiB, memory.span().first(kMiB)).error + write(*io, *file, 4 * kMiB, memory.span()).error,
      ENOSPC);
  const auto refused = file->write_at(6 * kMiB, memory.span());
  EXPECT_EQ(refused.error().symbol(), "io.no_space");
  std::vector<std::byte> back(kMiB);
  ASSERT_TRUE(file->read_at(0, back));
  EXPECT_EQ(std::memcmp(back.data(), memory.data(), kMiB), 0);
  file.reset();
  io.reset();
}

// A loop device over a file of an odd number of sectors.
class LoopDevice {
 public:
  bool attach(const fs::path& backing) {
    const UniqueFd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
    const UniqueFd file(::open(backing.c_str(), O_RDWR | O_CLOEXEC));
    if (!control || !file) return false;
    // Another process may take the free one first.
    for (int attempt = 0; attempt < 10; ++attempt) {
      const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
      if (number < 0) return false;
      path_ = "/dev/loop" + std::to_string(number);
      device_.reset(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
      loop_config config{};
      config.fd = static_cast<__u32>(file.get());
      if (device_ && ::ioctl(device_.get(), LOOP_CONFIGURE, &config) == 0) return true;
      if (!device_ || errno != EBUSY) break;
    }
    device_.reset();
    return false;
  }
  ~LoopDevice() {
    if (!device_) return;
    EXPECT_EQ(::ioctl(device_.get(), LOOP_CLR_FD), 0);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  UniqueFd device_;
};

class LinuxBlockDevice : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kSize = 2 * kMiB + 3 * 512;
  void SetUp() override {
    std::ofstream(backing()).close();
    fs::resize_file(backing(), kSize);
    if (!device_.attach(backing())) GTEST_SKIP() << "loop devices are not available here";
    file_ = std::move(*open_linux_file(device_.path(), OpenMode::write));
  }
  fs::path backing() const { return directory_.path() / "backing"; }
  const std::string& path() const { return device_.path(); }
  File& file() { return *file_; }
  std::unique_ptr<File> take_file() { return std::move(file_); }

 private:
  TemporaryDirectory directory_;
  LoopDevice device_;
  std::unique_ptr<File> file_;
};

TEST_F(LinuxBlockDevice, HasItsSizeAndAllOfItIsData) {
  EXPECT_EQ(file().size(), kSize);
  EXPECT_TRUE(file().is_block_device());
  EXPECT_EQ(file().next_data(512)->value(), (ByteRange{512, kSize - 512}));
  EXPECT_FALSE(file().next_data(kSize)->has_value());
  EXPECT_EQ(file().resize(kSize + 512).error().code(), IoErrc::fixed_size);
  const auto identity = *file().identity();
  EXPECT_EQ(identity.size, kSize);
  EXPECT_EQ(identity.modified_ns, 0) << "a device cannot tell whether its content changed";
}

TEST_F(LinuxBlockDevice, IsWrittenByOneUserOnly) {
  EXPECT_EQ(open_linux_file(path(), OpenMode::write).error().code(), os_error(EBUSY));
  EXPECT_TRUE(open_linux_file(path(), OpenMode::read)) << "reading is free";
}

TEST_F(LinuxBlockDevice, TailsAndZeroingAreExact) {
  auto io = std::move(*make_uring_queue());
  AlignedBuffer memory(4 * kMiB);
  fill(memory.span(), 6);
  std::vector<std::byte> expected(memory.data(), memory.data() + kSize);
  ASSERT_EQ(write(*io, file(), 0, memory.span().first(kSize)).bytes, kSize);
  EXPECT_EQ(write(*io, file(), 512, memory.span().first(kSize)).error, EINVAL);
  const std::byte one{1};
  EXPECT_EQ(file().write_at(kSize, {&one, 1}).error().code(), os_error(ENOSPC));
  for (const auto& [offset, length] :
       {std::pair{100UL, 50UL}, {4000UL, 200UL}, {5000UL, 100'000UL}, {kSize - 2000, 2000UL}}) {
    ASSERT_TRUE(file().zero_at(offset, length));
    std::fill_n(expected.begin() + static_cast<std::ptrdiff_t>(offset), length, std::byte{0});
  }
  ASSERT_EQ(read(*io, file(), 0, memory.span()).bytes, kSize) << "short at the end";
  EXPECT_EQ(std::memcmp(memory.data(), expected.data(), kSize), 0);
  ASSERT_EQ(read(*io, file(), kSize - 512, memory.span().first(512)).bytes, 512U);
  EXPECT_EQ(std::memcmp(memory.data(), expected.data() + kSize - 512, 512), 0);
  ASSERT_TRUE(file().sync());
}

TEST_F(LinuxBlockDevice, AReadErrorOfTheDeviceIsTheRequestsError) {
  auto io = std::move(*make_uring_queue());
  AlignedBuffer memory(kMiB);
  fs::resize_file(backing(), kMiB);  // the device keeps its size, and has nothing behind
  EXPECT_EQ(read(*io, file(), kMiB, memory.span()).error, EIO);
  EXPECT_EQ(read(*io, file(), 0, memory.span()).bytes, kMiB);
  std::byte bytes[512];
  EXPECT_EQ(file().read_at(kMiB + 4096, bytes).error().symbol(), "io.device_error");
}

TEST_F(LinuxBlockDevice, HoldsARawDiskThatIsNotLarger) {
  auto small = create_raw_disk(take_file(), {.size = kMiB});
  ASSERT_TRUE(small);
  EXPECT_EQ((*small)->size(), kMiB);
  EXPECT_EQ((*small)->next_data(0)->value(), (ByteRange{0, kMiB}));
  small->reset();
  auto file_again = std::move(*open_linux_file(path(), OpenMode::write));
  EXPECT_EQ(create_raw_disk(std::move(file_again), {.size = kSize + 512}).error().code(), IoErrc::too_small);
}

}  // namespace
}  // namespace backhaul
