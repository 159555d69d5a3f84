#include "apps/appliance_state.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "base/process_lock.h"
#include "base/world.h"
#include "control/jobs/tokens.h"
#include "control/store/records.h"

namespace backhaul {
namespace {

// Writes the whole file or nothing, also over a power loss; mode 0600.
Result<void> write_private_file(const std::filesystem::path& path, const std::string& text) {
  const std::string temporary = path.string() + ".new";
  UniqueFd file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return Error::from_errno(errno, "create " + temporary);
  const auto written = ::write(file.get(), text.data(), text.size());
  if (written != static_cast<ssize_t>(text.size()) || ::fsync(file.get()) != 0)
    return Error::from_errno(errno, "write " + temporary);
  if (::rename(temporary.c_str(), path.c_str()) != 0) return Error::from_errno(errno, "rename " + temporary);
  UniqueFd directory(::open(path.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || ::fsync(directory.get()) != 0)
    return Error::from_errno(errno, "sync " + path.parent_path().string());
  return {};
}

Result<std::string> read_owner(const std::filesystem::path& path) {
  std::string owner;
  if (std::ifstream in(path); in && std::getline(in, owner) && !owner.empty()) return owner;
  owner = fmt::format("appliance-{:016x}", system_random().next());
  BH_RETURN_IF_ERROR(write_private_file(path, owner + "\n"));
  return owner;
}

}  // namespace

Result<ApplianceState> open_appliance_state(const std::filesystem::path& directory) {
  std::error_code failed;
  if (!std::filesystem::exists(directory, failed)) {
    std::filesystem::create_directories(directory.parent_path().empty() ? "." : directory.parent_path(), failed);
    if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST)
      return Error::from_errno(errno, "create " + directory.string());
  }
  ApplianceState state;
  BH_TRY(state.lock, take_process_lock(directory / kLockName,
                                       directory.string() + " is the state directory of an appliance that runs"));
  BH_TRY(state.owner, read_owner(directory / kOwnerName));
  BH_TRY(state.store, open_sqlite_store(directory / kJobStoreName));
  return state;
}

Result<std::filesystem::path> make_first_token(Store& store, const std::filesystem::path& directory) {
  BH_TRY(const auto tokens, store.list_tokens());
  if (!tokens.empty()) return std::filesystem::path();
  // The file first: a crash in between leaves a token that the store refuses, not a store that nobody can use.
  const auto made = make_token("admin", Role::admin, 0, system_clock().unix_time_s(), system_random());
  const auto path = directory / kAdminTokenName;
  BH_RETURN_IF_ERROR(write_private_file(path, made.secret + "\n"));
  BH_RETURN_IF_ERROR(store.add_token(made.record));
  return path;
}

Result<NewToken> create_local_token(Store& store, const std::string& name, Role role, std::int64_t lifetime_s) {
  if (!is_valid_id(name)) return make_error(BaseErrc::invalid_argument, "'" + name + "' is no name of a token");
  const auto now = system_clock().unix_time_s();
  auto made = make_token(name, role, lifetime_s, now, system_random());
  BH_RETURN_IF_ERROR(store.add_token(made.record));
  BH_RETURN_IF_ERROR(store.append_audit(
      {0, now, "local", "token.create", "token/" + name, "accepted", fmt::format("role {}", to_string(role))}));
  return made;
}

}  // namespace backhaul
