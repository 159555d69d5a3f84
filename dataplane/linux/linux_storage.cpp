#include "dataplane/linux/linux_storage.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "base/unique_fd.h"
#include "dataplane/linux/linux_file.h"

namespace backhaul {
namespace {

constexpr int kDirectory = O_RDONLY | O_DIRECTORY | O_CLOEXEC;

// The last name of a path and the directory that it stands in ("" is the root).
struct SplitPath {
  std::string directory, name;
};

SplitPath split(std::string_view path) {
  const auto slash = path.rfind('/');
  if (slash == std::string_view::npos) return {"", std::string(path)};
  return {std::string(path.substr(0, slash)), std::string(path.substr(slash + 1))};
}

// EXDEV is openat2's word for a path that leaves the root, ELOOP for a magic link or for links that loop.
Error open_error(int number, const std::string& what) {
  if (number == EXDEV || number == ELOOP) return make_error(IoErrc::outside_store, what);
  return Error::from_errno(number, what);
}

class LinuxStorage final : public Storage {
 public:
  explicit LinuxStorage(UniqueFd root) : root_(std::move(root)) {}

  Result<Kind> kind(std::string_view path) override;
  Result<std::unique_ptr<File>> open(std::string_view path, OpenMode mode) override;
  Result<std::unique_ptr<File>> create(std::string_view path) override;
  Result<void> clone(std::string_view from, std::string_view to) override;
  Result<void> rename(std::string_view from, std::string_view to, bool replace) override;
  Result<void> take_ownership(std::string_view path, std::string_view like) override;
  Result<void> remove(std::string_view path) override;
  Result<void> make_directory(std::string_view path) override;
  Result<void> remove_directory(std::string_view path) override;
  Result<std::vector<std::string>> list(std::string_view path) override;
  Result<std::uint64_t> free_space_bytes() override;

 private:
  // Beneath the root; descriptor or -errno.
  int open_at(const std::string& path, int flags) const;
  Result<UniqueFd> open_directory(const std::string& path, int more_flags = 0) const;
  Result<UniqueFd> create_at(const UniqueFd& directory, std::string_view path, const std::string& name) const;

  const UniqueFd root_;
};

Result<void> sync_directory(const UniqueFd& directory, std::string_view path) {
  while (::fsync(directory.get()) != 0)
    if (errno != EINTR) return Error::from_errno(errno, "sync the directory of " + std::string(path));
  return {};
}

int LinuxStorage::open_at(const std::string& path, int flags) const {
  struct open_how how {};
  how.flags = static_cast<std::uint64_t>(flags);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  const char* text = path.empty() ? "." : path.c_str();
  // EAGAIN: a rename elsewhere raced with the walk; the kernel asks to try again.
  for (int attempt = 0; attempt < 100; ++attempt) {
    const long fd = ::syscall(SYS_openat2, root_.get(), text, &how, sizeof how);
    if (fd >= 0) return static_cast<int>(fd);
    if (errno != EAGAIN && errno != EINTR) break;
  }
  return -errno;
}

Result<UniqueFd> LinuxStorage::open_directory(const std::string& path, int more_flags) const {
  const int fd = open_at(path, kDirectory | more_flags);
  if (fd < 0) return open_error(-fd, "open the directory " + (path.empty() ? std::string("of the store") : path));
  return UniqueFd(fd);
}

Result<Storage::Kind> LinuxStorage::kind(std::string_view path) {
  BH_RETURN_IF_ERROR(check_store_path(path));
  const std::string name(path);
  const UniqueFd fd(open_at(name, O_PATH | O_CLOEXEC));
  if (fd.get() == -ENOENT || fd.get() == -ENOTDIR) return Kind::none;
  if (fd.get() < 0) return open_error(-fd.get(), "look at " + name);
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return Error::from_errno(errno, "look at " + name);
  // A link that stays inside is followed by open(), but a rename or a removal would hit the link: so it is no disk.
  struct stat itself {};
  const UniqueFd unfollowed(open_at(name, O_PATH | O_CLOEXEC | O_NOFOLLOW));
  if (unfollowed.get() < 0 || ::fstat(unfollowed.get(), &itself) != 0 || S_ISLNK(itself.st_mode)) return Kind::other;
  if (S_ISREG(status.st_mode)) return Kind::file;
  if (S_ISDIR(status.st_mode)) return Kind::directory;
  if (S_ISBLK(status.st_mode)) return Kind::block_device;
  return Kind::other;
}

Result<std::unique_ptr<File>> LinuxStorage::open(std::string_view path, OpenMode mode) {
  BH_RETURN_IF_ERROR(check_store_path(path));
  const std::string name(path);
  // Probed first, so that a path that leaves the store gets its own error.
  const UniqueFd probe(open_at(name, O_PATH | O_CLOEXEC));
  if (probe.get() < 0) return open_error(-probe.get(), "open " + name);
  BH_TRY(auto file, LinuxFile::open(name, mode, [&](int flags) { return open_at(name, flags); }));
  return std::unique_ptr<File>(std::move(file));
}

Result<UniqueFd> LinuxStorage::create_at(const UniqueFd& directory, std::string_view path,
                                         const std::string& name) const {
  // O_EXCL never follows a link in the last name, and the directory was reached beneath the root.
  const int fd = ::openat(directory.get(), name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return Error::from_errno(errno, "create " + std::string(path));
  return UniqueFd(fd);
}

Result<std::unique_ptr<File>> LinuxStorage::create(std::string_view path) {
  BH_RETURN_IF_ERROR(check_store_path(path));
  const auto [parent, name] = split(path);
  BH_TRY(const auto directory, open_directory(parent));
  BH_TRY(auto fd, create_at(directory, path, name));
  BH_RETURN_IF_ERROR(sync_directory(directory, path));
  const std::string full(path);
  BH_TRY(auto file,
         LinuxFile::adopt(full, OpenMode::write, std::move(fd), [&](int flags) { return open_at(full, flags); }));
  return std::unique_ptr<File>(std::move(file));
}

Result<void> LinuxStorage::clone(std::string_view from, std::string_view to) {
  BH_RETURN_IF_ERROR(check_store_path(from));
  BH_RETURN_IF_ERROR(check_store_path(to));
  const UniqueFd source(open_at(std::string(from), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (source.get() < 0) return open_error(-source.get(), "open " + std::string(from));
  const auto [parent, name] = split(to);
  BH_TRY(const auto directory, open_directory(parent));
  BH_TRY(const auto target, create_at(directory, to, name));
  int number = 0;
  while (::ioctl(target.get(), FICLONE, source.get()) != 0) {
    if (errno == EINTR) continue;
    number = errno;
    break;
  }
  if (number == 0 && ::fsync(target.get()) != 0) number = errno;
  if (number == 0) return sync_directory(directory, to);
  ::unlinkat(directory.get(), name.c_str(), 0);
  const std::string what = "clone " + std::string(from) + " to " + std::string(to);
  const bool unsupported = number == EOPNOTSUPP || number == ENOTTY || number == EINVAL || number == EXDEV ||
                           number == ENOSYS || number == EISDIR;
  if (unsupported) return make_error(IoErrc::clone_unsupported, what);
  return Error::from_errno(number, what);
}

Result<void> LinuxStorage::rename(std::string_view from, std::string_view to, bool replace) {
  BH_RETURN_IF_ERROR(check_store_path(from));
  BH_RETURN_IF_ERROR(check_store_path(to));
  const auto [from_parent, from_name] = split(from);
  const auto [to_parent, to_name] = split(to);
  BH_TRY(const auto from_directory, open_directory(from_parent));
  BH_TRY(const auto to_directory, open_directory(to_parent));
  if (::renameat2(from_directory.get(), from_name.c_str(), to_directory.get(), to_name.c_str(),
                  replace ? 0 : RENAME_NOREPLACE) != 0)
    return Error::from_errno(errno, "rename " + std::string(from) + " to " + std::string(to));
  // The new name first: after a power loss between the two there may be both names, never none.
  BH_RETURN_IF_ERROR(sync_directory(to_directory, to));
  if (from_parent == to_parent) return {};
  return sync_directory(from_directory, from);
}

Result<void> LinuxStorage::take_ownership(std::string_view path, std::string_view like) {
  BH_RETURN_IF_ERROR(check_store_path(path));
  BH_RETURN_IF_ERROR(check_store_path(like));
  const int from = open_at(std::string(like), O_PATH | O_CLOEXEC);
  if (from < 0) return open_error(-from, "look at " + std::string(like));
  const UniqueFd model(from);
  struct stat status {};
  if (::fstat(model.get(), &status) != 0) return Error::from_errno(errno, "look at " + std::string(like));
  const int to = open_at(std::string(path), O_RDONLY | O_CLOEXEC);
  if (to < 0) return open_error(-to, "open " + std::string(path));
  const UniqueFd file(to);
  // Only root may give files away; a refusal is no reason to fail the transfer.
  if (::fchown(file.get(), status.st_uid, status.st_gid) != 0 && errno != EPERM)
    return Error::from_errno(errno, "give " + std::string(path) + " its owner");
  if (::fchmod(file.get(), status.st_mode & 07777) != 0 && errno != EPERM)
    return Error::from_errno(errno, "give " + std::string(path) + " its permissions");
  return {};
}

Result<void> LinuxStorage::remove(std::string_view path) {
  BH_RETURN_IF_ERROR(check_store_path(path));
  const auto [parent, name] = split(path);
  auto directory = open_directory(parent);
  if (!directory && directory.error().is(make_error_code(std::errc::no_such_file_or_directory))) return {};
  if (!directory) return std::move(directory).error();
  if (::unlinkat(directory->get(), name.c_str(), 0) != 0 && errno != ENOENT)
    return Error::from_errno(errno, "remove " + std::string(path));
  // Synced even when it was not there: an earlier run may have removed it and died before its sync.
  return sync_directory(*directory, path);
}

Result<void> LinuxStorage::make_directory(std::string_view path) {
  BH_RETURN_IF_ERROR(check_store_path(path));
  for (std::size_t start = 0; start < path.size();) {
    const std::size_t end = std::min(path.find('/', start), path.size());
    const auto so_far = path.substr(0, end);
    const auto [parent, name] = split(so_far);
    BH_TRY(const auto directory, open_directory(parent));
    if (::mkdirat(directory.get(), name.c_str(), 0700) != 0 && errno != EEXIST)
      return Error::from_errno(errno, "make the directory " + std::string(so_far));
    BH_TRY(const auto made, open_directory(std::string(so_far)));
    BH_RETURN_IF_ERROR(sync_directory(directory, so_far));
    start = end + 1;
  }
  return {};
}

struct DirectoryCloser {
  void operator()(DIR* stream) const { ::closedir(stream); }
};

// Names, sorted; `directories`, when given, counts the subdirectories among them.
Result<std::vector<std::string>> names_in(const UniqueFd& directory, std::string_view path, unsigned* directories) {
  const int again = ::openat(directory.get(), ".", kDirectory);
  if (again < 0) return Error::from_errno(errno, "list " + std::string(path));
  const std::unique_ptr<DIR, DirectoryCloser> stream(::fdopendir(again));
  if (!stream) {
    ::close(again);
    return Error::from_errno(errno, "list " + std::string(path));
  }
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(stream.get());
    if (entry == nullptr) {
      if (errno != 0) return Error::from_errno(errno, "list " + std::string(path));
      break;
    }
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (directories != nullptr) {
      struct stat status {};
      if (::fstatat(directory.get(), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(status.st_mode))
        ++*directories;
    }
    names.emplace_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

Result<void> LinuxStorage::remove_directory(std::string_view path) {
  BH_RETURN_IF_ERROR(check_store_path(path));
  const auto [parent, name] = split(path);
  auto opened = open_directory(std::string(path), O_NOFOLLOW);
  if (!opened && opened.error().is(make_error_code(std::errc::no_such_file_or_directory))) return {};
  if (!opened) return std::move(opened).error();
  const UniqueFd directory = std::move(*opened);
  unsigned subdirectories = 0;
  BH_TRY(const auto names, names_in(directory, path, &subdirectories));
  if (subdirectories != 0) return Error::from_errno(ENOTEMPTY, "remove the directory " + std::string(path));
  for (const auto& file : names)
    if (::unlinkat(directory.get(), file.c_str(), 0) != 0 && errno != ENOENT)
      return Error::from_errno(errno, "remove " + std::string(path) + "/" + file);
  BH_TRY(const auto above, open_directory(parent));
  if (::unlinkat(above.get(), name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT)
    return Error::from_errno(errno, "remove the directory " + std::string(path));
  return sync_directory(above, path);
}

Result<std::vector<std::string>> LinuxStorage::list(std::string_view path) {
  if (!path.empty()) BH_RETURN_IF_ERROR(check_store_path(path));
  BH_TRY(const auto directory, open_directory(std::string(path)));
  return names_in(directory, path, nullptr);
}

Result<std::uint64_t> LinuxStorage::free_space_bytes() {
  struct statvfs status {};
  if (::fstatvfs(root_.get(), &status) != 0) return Error::from_errno(errno, "ask the store's free space");
  return std::uint64_t{status.f_bavail} * status.f_frsize;
}

}  // namespace

Result<std::unique_ptr<Storage>> open_linux_storage(const std::filesystem::path& root) {
  const int fd = ::open(root.c_str(), kDirectory);
  if (fd < 0) return Error::from_errno(errno, "open the store " + root.string());
  return std::unique_ptr<Storage>(std::make_unique<LinuxStorage>(UniqueFd(fd)));
}

}  // namespace backhaul
