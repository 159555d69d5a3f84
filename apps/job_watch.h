// Follows a job until it waits for its operator or has ended, and shows it: one live line on a terminal, elsewhere a
// line for each change.
#pragma once

#include <string>

#include "apps/api_client.h"

namespace backhaul {

// Whether the job has ended, or is Suspended and waits for its operator with no request left to take up.
bool job_rests(const boost::json::value& job);

// Returns the job when `status_path`, or without it job_rests(), says that it rests. Survives a restart of the
// appliance. BaseErrc::cancelled after a signal.
Result<boost::json::value> watch_job(ApiClient& client, const std::string& id, bool quiet,
                                     const std::string& status_path = {});

// Prints a verb's answer, its job, or with `wait` how the job came to rest; returns the exit code. `cancels`: the verb
// cancels, so Cancelled is success.
int finish_verb(ApiClient& client, const ApiAnswer& answer, const std::string& what, bool wait, bool json,
                bool cancels = false);
// 0; 3 for a failed job, 4 for a cancelled one unless the verb `cancels`.
int job_exit_code(const boost::json::value& job, bool cancels);

}  // namespace backhaul
