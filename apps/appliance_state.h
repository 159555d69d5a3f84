// The appliance's state directory: the job store, the lock that keeps a second appliance away, the first Admin token.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/error.h"
#include "base/unique_fd.h"
#include "control/jobs/service.h"
#include "control/store/store.h"

namespace backhaul {

// Names of the files in the state directory.
inline constexpr const char* kJobStoreName = "jobs.db";
inline constexpr const char* kLockName = "lock";
inline constexpr const char* kOwnerName = "owner";             // this appliance's name in leases
inline constexpr const char* kAdminTokenName = "admin.token";  // mode 0600; written once

struct ApplianceState {
  UniqueFd lock;      // held as long as this lives; the kernel frees it when the process dies
  std::string owner;  // random, the same after each start, so that a new process takes its own leases at once
  std::unique_ptr<Store> store;
};

// Makes the directory (mode 0700) and what is missing in it. Errors: invalid_argument (another appliance uses it),
// those of the file system, store_failed, store_damaged.
Result<ApplianceState> open_appliance_state(const std::filesystem::path& directory);

// Gives a store without tokens one of role Admin and writes its text to admin.token. Returns the file's path, or an
// empty one when the store had a token.
Result<std::filesystem::path> make_first_token(Store& store, const std::filesystem::path& directory);

// Creates a token on the appliance's machine, also while it runs: who may write the directory is Admin.
Result<NewToken> create_local_token(Store& store, const std::string& name, Role role, std::int64_t lifetime_s);

}  // namespace backhaul
