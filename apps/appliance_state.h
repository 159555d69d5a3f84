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

// What lies in the state directory.
inline constexpr const char* kJobStoreName = "jobs.db";
inline constexpr const char* kLockName = "lock";
inline constexpr const char* kOwnerName = "owner";             // this appliance's name in leases
inline constexpr const char* kAdminTokenName = "admin.token";  // mode 0600; written once

struct ApplianceState {
  UniqueFd lock;      // held as long as this lives; the kernel gives it back when the process dies
  std::string owner;  // random, the same for each start: a new process takes up its own leases at once
  std::unique_ptr<Store> store;
};

// Makes the directory (mode 0700) and what is missing in it. Errors: invalid_argument (another appliance runs on it),
// those of the file system, store_failed, store_damaged.
Result<ApplianceState> open_appliance_state(const std::filesystem::path& directory);

// A store without any token gets one of role Admin, whose text is put into admin.token. Gives the file's path when it
// did so.
Result<std::filesystem::path> make_first_token(Store& store, const std::filesystem::path& directory);

// For the appliance's own machine, beside an appliance that runs or not: whoever may write the directory is Admin.
Result<NewToken> create_local_token(Store& store, const std::string& name, Role role, std::int64_t lifetime_s);

}  // namespace backhaul
