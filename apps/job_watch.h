// Follows a job until it waits for its operator or has ended, and shows it meanwhile: one live line on a terminal,
// a line for each change elsewhere.
#pragma once

#include <string>

#include "apps/api_client.h"

namespace backhaul {

// Whether nothing more happens by itself that was asked for: ended, or Suspended with no request left to take up.
bool job_rests(const boost::json::value& job);

// The job as it came to rest; `status_path` of a verb's answer says when, without it job_rests(). Survives a restart of
// the appliance. BaseErrc::cancelled after a signal.
Result<boost::json::value> watch_job(ApiClient& client, const std::string& id, bool quiet,
                                     const std::string& status_path = {});

// What a verb's answer says: its job, or with `wait` how the job came to rest. Prints and gives the exit code.
// `cancels`: a job that ends Cancelled has done what was asked.
int finish_verb(ApiClient& client, const ApiAnswer& answer, const std::string& what, bool wait, bool json,
                bool cancels = false);
// 0; 3 for a job that failed, 4 for one that was cancelled.
int job_exit_code(const boost::json::value& job, bool cancels);

}  // namespace backhaul
