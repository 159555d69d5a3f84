// The driver interface's values as JSON: what the `command` driver's contract says (docs/command_driver.md), and what a
// host agent's HTTP interface carries. Reading is strict: a missing or wrong field is ControlErrc::driver_protocol with
// the field's name.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include "control/drivers/vm_driver.h"

namespace backhaul {

boost::json::object to_json_object(const VmRef& vm);
boost::json::object to_json_object(const VmDescription& vm);
boost::json::object to_json_object(const DiskPlace& disk);
boost::json::object to_json_object(const VmFacts& facts);
boost::json::object to_json_object(const Snapshot& snapshot);
boost::json::object to_json_object(const ChangedExtents& changed);
boost::json::object to_json_object(const StartOutcome& outcome);
boost::json::object to_json_object(const ShutdownOutcome& outcome);
boost::json::object to_json_object(const FirstWrite& write);
boost::json::object to_json_object(const std::vector<Check>& checks);
boost::json::object to_json_object(const Health& health);

Result<VmRef> vm_ref_from_json(const boost::json::object& object);
Result<VmDescription> vm_description_from_json(const boost::json::object& object);
Result<VmFacts> vm_facts_from_json(const boost::json::object& object);
Result<Snapshot> snapshot_from_json(const boost::json::object& object);
Result<ChangedExtents> changed_extents_from_json(const boost::json::object& object);
Result<StartOutcome> start_outcome_from_json(const boost::json::object& object);
Result<ShutdownOutcome> shutdown_outcome_from_json(const boost::json::object& object);
Result<FirstWrite> first_write_from_json(const boost::json::object& object);
Result<std::vector<Check>> checks_from_json(const boost::json::object& object);
Result<Health> health_from_json(const boost::json::object& object);

}  // namespace backhaul
