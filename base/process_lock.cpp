#include "base/process_lock.h"

#include <fcntl.h>

#include <cerrno>
#include <utility>

namespace backhaul {

Result<UniqueFd> take_process_lock(const std::filesystem::path& path, std::string held) {
  UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!file) return Error::from_errno(errno, "open " + path.string());
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(file.get(), F_SETLK, &lock) == 0) return file;
  if (errno != EACCES && errno != EAGAIN) return Error::from_errno(errno, "lock " + path.string());
  // 0: the holder is in a process namespace that ours does not see.
  if (::fcntl(file.get(), F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK && lock.l_pid > 0)
    held += " (process " + std::to_string(lock.l_pid) + ")";
  return make_error(BaseErrc::invalid_argument, std::move(held));
}

}  // namespace backhaul
