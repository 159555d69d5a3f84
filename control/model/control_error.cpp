#include "control/model/control_error.h"

namespace backhaul {

const ErrorCategory& control_category() noexcept {
  static constexpr ErrorInfo kTable[] = {
      {"control.not_found", "there is no such object", "List the objects and check the name.", Retry::no},
      {"control.invalid", "a value of the request is not allowed", "Correct the value that the cause names.",
       Retry::no},
      {"control.forbidden_in_phase", "the present state does not allow this",
       "See allowedOperations or allowedActions for what is possible now.", Retry::no},
      {"control.conflict", "the object exists already or was changed meanwhile",
       "Read it again, then repeat the change.", Retry::later},
      {"control.forbidden_role", "the token's role does not allow this",
       "Use a token of the role that the cause names.", Retry::no},
      {"control.unauthenticated", "the token is not valid",
       "Create a token with `backhaul token create` and send it as a bearer token.", Retry::no},
      {"control.precondition_failed", "the checks before a failover found a problem",
       "Resolve each cause, run preflight again, then repeat the request.", Retry::no},
      {"control.busy", "a limit of this appliance is reached", "Wait for running jobs to end, or raise the limit.",
       Retry::later},
      {"control.store_failed", "the job store could not be read or written",
       "Check the store's disk: space, permissions, errors in the kernel log.", Retry::later},
      {"control.store_damaged", "the job store's content cannot be used",
       "Restore the store from a backup, or start the version of Backhaul that wrote it.", Retry::no},
      {"control.bad_file", "the file has mistakes", "Correct each line that the cause names.", Retry::no},
      {"control.driver_failed", "the VM driver could not do what was asked",
       "See the cause; correct it at the hypervisor, then restart the job.", Retry::no},
      {"control.driver_protocol", "the VM driver's answer breaks its contract",
       "Correct the driver (docs/command_driver.md).", Retry::no},
      {"control.driver_timeout", "the VM driver did not answer in time",
       "Check the hypervisor, or raise the driver's timeout, then restart the job.", Retry::later},
      {"control.shutdown_refused", "the guest did not shut down in time",
       "Shut the guest down from inside, or allow a forced shutdown, then restart the job.", Retry::no},
      {"control.host_unreachable", "the host agent cannot be reached",
       "Check that the host agent runs and that its address and certificates are right.", Retry::later},
      {"control.not_verified", "the two ends' digests differ",
       "Restart the job: the disks are compared again. If it repeats, check both disks' devices.", Retry::later},
      {"control.action_failed", "an action of the recovery plan failed",
       "Correct what the action reports, then restart the job.", Retry::no},
      {"control.item_failed", "an item of the recovery plan failed",
       "Resolve the item's own error, then restart the plan's job: only what failed is repeated.", Retry::no},
      {"control.http_protocol", "the peer does not speak HTTP", "Check the address: another service may listen there.",
       Retry::no},
  };
  static const TableCategory category("control", kTable);
  return category;
}

}  // namespace backhaul
