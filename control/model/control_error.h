// The control layer's errors, independent of HTTP; the HTTP layer has one table from these to status codes.
#pragma once

#include "base/error.h"

namespace backhaul {

enum class ControlErrc {
  not_found = 1,        // no such item, job, plan or token                              404
  invalid,              // a value of the request is not allowed                         400
  forbidden_in_phase,   // the verb is not allowed in the present state                  409
  conflict,             // someone else changed the object meanwhile, or it exists       409 (412 with If-Match)
  forbidden_role,       // the caller's role does not allow it                           403
  unauthenticated,      // no such token, or it is revoked or expired                    401
  precondition_failed,  // preflight found what would make the operation fail            409
  busy,                 // a limit of this appliance is reached                          429
  store_failed,         // the job store could not be read or written                    500
  store_damaged,        // the store's content is not what this version writes           500
  bad_file,             // an item or plan file has mistakes; the cause lists them       400
  driver_failed,        // the VM driver reported that it could not do it                job error
  driver_protocol,      // the driver's answer breaks its contract                       job error
  driver_timeout,       // the driver did not answer in time and was killed              job error
  shutdown_refused,     // the guest did not shut down, and force is not allowed         job error
  host_unreachable,     // the host agent cannot be reached                              job error
  not_verified,         // the two ends' digests differ                                  job error
  action_failed,        // an action of a plan failed                                    job error
  item_failed,          // an item of a plan failed                                      job error
  http_protocol,        // a server's answer is not HTTP                                 (client)
};
const ErrorCategory& control_category() noexcept;
inline std::error_code make_error_code(ControlErrc value) { return {static_cast<int>(value), control_category()}; }

}  // namespace backhaul

template <>
struct std::is_error_code_enum<backhaul::ControlErrc> : std::true_type {};
