// A VHDX disk from the command line, for tests that let other programs judge it. Prints errors as "symbol: ..." and
// exits 1.
//   vhdx_tool create FILE SIZE BLOCK_SIZE dynamic|fixed SECTOR_SIZE
//   vhdx_tool open   FILE read|write             "size sector format", after a replay of the log
//   vhdx_tool dump   FILE RAW                    the content, as a sparse raw file
//   vhdx_tool patch  FILE RAW KILL_AFTER OFFSET:LENGTH...
//     copies ranges of RAW to the same place of the disk, with a checkpoint after each; KILL_AFTER > 0: the program
//     ends abruptly before that change (write, resize or sync) of the file. It says "checkpoint N" for each that is
//     durable.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "dataplane/disk/vhdx.h"

namespace {

using namespace backhaul;

class PlainFile final : public File {
 public:
  PlainFile(std::string name, int flags, long kill_after)
      : name_(std::move(name)), fd_(::open(name_.c_str(), flags | O_CLOEXEC, 0600)), kill_after_(kill_after) {}
  ~PlainFile() override {
    if (fd_ >= 0) ::close(fd_);
  }
  bool is_open() const { return fd_ >= 0; }
  const std::string& name() const noexcept override { return name_; }
  std::uint64_t size() const noexcept override { return static_cast<std::uint64_t>(::lseek(fd_, 0, SEEK_END)); }
  bool is_block_device() const noexcept override { return false; }
  std::uint32_t io_alignment() const noexcept override { return 512; }
  Result<void> read_at(std::uint64_t offset, MutableBytes into) override {
    const auto got = ::pread(fd_, into.data(), into.size(), static_cast<off_t>(offset));
    return check(got == static_cast<ssize_t>(into.size()), "read");
  }
  Result<void> write_at(std::uint64_t offset, Bytes from) override {
    count_change();
    const auto put = ::pwrite(fd_, from.data(), from.size(), static_cast<off_t>(offset));
    return check(put == static_cast<ssize_t>(from.size()), "write");
  }
  Result<void> zero_at(std::uint64_t offset, std::uint64_t length) override {
    return write_at(offset, std::vector<std::byte>(length));
  }
  Result<void> resize(std::uint64_t size) override {
    count_change();
    return check(::ftruncate(fd_, static_cast<off_t>(size)) == 0, "resize");
  }
  Result<void> sync() override {
    count_change();  // the tests kill the program, not the machine
    return {};
  }
  Result<std::optional<ByteRange>> next_data(std::uint64_t from) override {
    const auto start = ::lseek(fd_, static_cast<off_t>(from), SEEK_DATA);
    if (start < 0) return std::optional<ByteRange>();
    const auto end = ::lseek(fd_, start, SEEK_HOLE);
    return std::optional(ByteRange{static_cast<std::uint64_t>(start), static_cast<std::uint64_t>(end - start)});
  }
  void drop_cache(std::uint64_t, std::uint64_t) noexcept override {}
  Result<FileIdentity> identity() override { return FileIdentity{}; }

 private:
  Result<void> check(bool ok, const char* what) const {
    if (ok) return {};
    return Error::from_errno(errno == 0 ? EIO : errno, std::string(what) + " " + name_);
  }
  void count_change() {
    if (kill_after_ > 0 && --kill_after_ == 0) ::_exit(9);
  }

  std::string name_;
  int fd_;
  long kill_after_;
};

int fail(const Error& error) {
  std::fprintf(stderr, "%s\n", error.to_string().c_str());
  return 1;
}

std::uint64_t number(const std::string& text) { return std::strtoull(text.c_str(), nullptr, 0); }

Result<std::unique_ptr<Disk>> open(const std::string& path, OpenMode mode, long kill_after = 0) {
  auto file = std::make_unique<PlainFile>(path, mode == OpenMode::write ? O_RDWR : O_RDONLY, kill_after);
  if (!file->is_open()) return Error::from_errno(errno, "open " + path);
  return open_vhdx(std::move(file), mode, system_random());
}

Result<void> create(const std::vector<std::string>& args) {
  auto file = std::make_unique<PlainFile>(args[1], O_RDWR | O_CREAT | O_EXCL, 0);
  if (!file->is_open()) return Error::from_errno(errno, "create " + args[1]);
  const auto format = args[4] == "fixed" ? DiskFormat::vhdx_fixed : DiskFormat::vhdx;
  BH_TRY(auto disk, create_vhdx(std::move(file),
                                {format, number(args[2]), static_cast<std::uint32_t>(number(args[3])),
                                 static_cast<std::uint32_t>(number(args[5]))},
                                system_random()));
  return disk->close();
}

Result<void> show(const std::vector<std::string>& args) {
  BH_TRY(auto disk, open(args[1], args[2] == "write" ? OpenMode::write : OpenMode::read));
  std::printf("%llu %u %s\n", static_cast<unsigned long long>(disk->size()), disk->logical_sector_size(),
              disk->format() == DiskFormat::vhdx_fixed ? "fixed" : "dynamic");
  return disk->close();
}

Result<void> copy(File& from, std::uint64_t from_offset, File& to, std::uint64_t to_offset, std::uint64_t length) {
  std::vector<std::byte> buffer;
  for (std::uint64_t done = 0; done < length; done += buffer.size()) {
    buffer.resize(std::min(length - done, kMiB));
    BH_RETURN_IF_ERROR(from.read_at(from_offset + done, buffer));
    BH_RETURN_IF_ERROR(to.write_at(to_offset + done, buffer));
  }
  return {};
}

// Copies by map() alone; where next_data() finds no data, the content must be zeros.
Result<void> dump(const std::vector<std::string>& args) {
  BH_TRY(auto disk, open(args[1], OpenMode::read));
  PlainFile raw(args[2], O_RDWR | O_CREAT | O_TRUNC, 0);
  BH_RETURN_IF_ERROR(raw.resize(disk->size()));
  for (std::uint64_t offset = 0; offset < disk->size();) {
    BH_TRY(const auto run, disk->next_data(offset));
    if (!run) break;
    for (offset = run->offset; offset < run->end();) {
      const auto segment = disk->map(offset, run->end() - offset);
      if (segment.kind == Segment::Kind::data)
        BH_RETURN_IF_ERROR(copy(disk->file(), segment.file_offset, raw, offset, segment.length));
      offset += segment.length;
    }
  }
  return {};
}

Result<void> patch(const std::vector<std::string>& args) {
  BH_TRY(auto disk, open(args[1], OpenMode::write, static_cast<long>(number(args[3]))));
  PlainFile raw(args[2], O_RDONLY, 0);
  for (std::size_t i = 4; i < args.size(); ++i) {
    const auto colon = args[i].find(':');
    auto offset = number(args[i].substr(0, colon));
    const auto end = offset + number(args[i].substr(colon + 1));
    while (offset < end) {
      BH_TRY(const auto segment, disk->allocate(offset, end - offset));
      BH_RETURN_IF_ERROR(copy(raw, offset, disk->file(), segment.file_offset, segment.length));
      offset += segment.length;
    }
    BH_RETURN_IF_ERROR(disk->checkpoint());
    std::printf("checkpoint %zu\n", i - 3);
    std::fflush(stdout);
  }
  return disk->close();
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  const auto run = [&](const char* verb, std::size_t least, auto function) -> std::optional<int> {
    if (args.size() < least || args[0] != verb) return std::nullopt;
    const Result<void> done = function(args);
    return done ? 0 : fail(done.error());
  };
  if (const auto code = run("create", 6, create)) return *code;
  if (const auto code = run("open", 3, show)) return *code;
  if (const auto code = run("dump", 3, dump)) return *code;
  if (const auto code = run("patch", 5, patch)) return *code;
  std::fprintf(stderr, "usage: see the top of vhdx_tool.cpp\n");
  return 2;
}
