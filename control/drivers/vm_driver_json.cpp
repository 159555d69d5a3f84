#include "control/drivers/vm_driver_json.h"

#include <fmt/format.h>

#include <array>
#include <boost/json.hpp>

#include "control/model/control_error.h"

namespace backhaul {
namespace {

constexpr std::array<std::string_view, 4> kPowerStates{"absent", "off", "running", "unknown"};
constexpr std::size_t kMaxRanges = 4 * 1024 * 1024;  // 64 MiB of them; more is no hint but a full disk

Error wrong(std::string_view field) {
  return make_error(ControlErrc::driver_protocol, fmt::format("field '{}' is missing or wrong", field));
}

// Fields of one object; the first that is missing or wrong is remembered.
class Fields {
 public:
  explicit Fields(const boost::json::object& object) : object_(object) {}

  std::string text(std::string_view key, bool required = true) {
    const auto* value = object_.if_contains(key);
    if (value == nullptr && !required) return {};
    if (value == nullptr || !value->is_string()) return fail(key), std::string();
    return std::string(value->get_string());
  }
  template <class T>
  T number(std::string_view key, T otherwise, bool required = true) {
    const auto* value = object_.if_contains(key);
    if (value == nullptr && !required) return otherwise;
    boost::system::error_code failed;
    T read = value == nullptr ? otherwise : value->to_number<T>(failed);
    if (value == nullptr || failed) return fail(key), otherwise;
    return read;
  }
  bool truth(std::string_view key, bool required = true) {
    const auto* value = object_.if_contains(key);
    if (value == nullptr && !required) return false;
    if (value == nullptr || !value->is_bool()) return fail(key), false;
    return value->get_bool();
  }
  const boost::json::array& array(std::string_view key, bool required = true) {
    static const boost::json::array kEmpty;
    const auto* value = object_.if_contains(key);
    if (value == nullptr && !required) return kEmpty;
    if (value == nullptr || !value->is_array()) return fail(key), kEmpty;
    return value->get_array();
  }
  const boost::json::object* object(std::string_view key) {
    const auto* value = object_.if_contains(key);
    if (value == nullptr || value->is_null()) return nullptr;
    if (!value->is_object()) return fail(key), nullptr;
    return &value->get_object();
  }
  void fail(std::string_view key) {
    if (failed_.empty()) failed_ = key;
  }
  template <class T>
  Result<T> finish(T value) const {
    if (!failed_.empty()) return wrong(failed_);
    return value;
  }

 private:
  const boost::json::object& object_;
  std::string failed_;
};

std::vector<DiskPlace> disks_of(Fields& fields, bool required) {
  std::vector<DiskPlace> disks;
  for (const auto& value : fields.array("disks", required)) {
    if (!value.is_object()) {
      fields.fail("disks");
      break;
    }
    Fields disk(value.get_object());
    DiskPlace place{disk.text("name"), disk.text("path"), disk.text("format", false),
                    disk.number<std::uint64_t>("size_bytes", 0, false)};
    if (place.format.empty()) place.format = "raw";
    auto read = disk.finish(std::move(place));
    if (!read) {
      fields.fail("disks");
      break;
    }
    disks.push_back(std::move(*read));
  }
  return disks;
}

boost::json::array disks_to_json(const std::vector<DiskPlace>& disks) {
  boost::json::array array;
  for (const auto& disk : disks) array.push_back(to_json_object(disk));
  return array;
}

}  // namespace

std::string_view to_string(PowerState state) noexcept { return kPowerStates[static_cast<std::size_t>(state)]; }
std::optional<PowerState> parse_power_state(std::string_view text) noexcept {
  for (std::size_t i = 0; i < kPowerStates.size(); ++i)
    if (kPowerStates[i] == text) return static_cast<PowerState>(i);
  return std::nullopt;
}

boost::json::object to_json_object(const DiskPlace& disk) {
  return {{"name", disk.name}, {"path", disk.path}, {"format", disk.format}, {"size_bytes", disk.size_bytes}};
}
boost::json::object to_json_object(const VmRef& vm) {
  return {{"vm", vm.vm}, {"settings", vm.settings}, {"disks", disks_to_json(vm.disks)}};
}
boost::json::object to_json_object(const VmDescription& vm) {
  boost::json::array nics;
  for (const auto& nic : vm.nics) nics.push_back({{"name", nic.name}, {"network", nic.network}, {"mac", nic.mac}});
  return {{"name", vm.name},         {"generation", vm.generation},   {"memory_mib", vm.memory_mib}, {"cpus", vm.cpus},
          {"firmware", vm.firmware}, {"secure_boot", vm.secure_boot}, {"nics", std::move(nics)}};
}
boost::json::object to_json_object(const VmFacts& facts) {
  boost::json::object object{{"power", to_string(facts.power)}, {"disks", disks_to_json(facts.disks)}};
  if (facts.vm) object["description"] = to_json_object(*facts.vm);
  return object;
}
boost::json::object to_json_object(const Snapshot& snapshot) {
  boost::json::array disks;
  for (const auto& disk : snapshot.disks)
    disks.push_back(
        {{"name", disk.name}, {"path", disk.path}, {"format", disk.format}, {"size_bytes", disk.size_bytes}});
  return {{"id", snapshot.id}, {"token", snapshot.token}, {"disks", std::move(disks)}};
}
boost::json::object to_json_object(const ChangedExtents& changed) {
  if (!changed.ranges) return {{"extents", nullptr}, {"why_unknown", changed.why_unknown}};
  boost::json::array extents;
  for (const auto& range : *changed.ranges) extents.push_back({range.offset, range.length});
  return {{"extents", std::move(extents)}};
}
boost::json::object to_json_object(const StartOutcome& outcome) {
  if (outcome.token.empty()) return {};
  return {{"token", outcome.token}};
}
boost::json::object to_json_object(const ShutdownOutcome& outcome) {
  boost::json::object object{{"forced", outcome.forced}};
  if (outcome.last_write_age_ms) object["last_write_age_ms"] = *outcome.last_write_age_ms;
  return object;
}
boost::json::object to_json_object(const FirstWrite& write) {
  switch (write.kind) {
    case FirstWrite::cannot_tell: return {};
    case FirstWrite::not_yet: return {{"age_ms", nullptr}};
    case FirstWrite::seen: return {{"age_ms", write.age_ms}, {"unsure_ms", write.unsure_ms}};
  }
  return {};
}
boost::json::object to_json_object(const std::vector<Check>& checks) {
  boost::json::array array;
  for (const auto& check : checks)
    array.push_back({{"name", check.name},
                     {"level", to_string(check.level)},
                     {"code", check.code},
                     {"cause", check.cause},
                     {"fix", check.fix}});
  return {{"checks", std::move(array)}};
}
boost::json::object to_json_object(const Health& health) {
  return {{"healthy", health.healthy}, {"detail", health.detail}};
}

Result<VmRef> vm_ref_from_json(const boost::json::object& object) {
  Fields fields(object);
  VmRef vm;
  vm.vm = fields.text("vm");
  if (const auto* settings = fields.object("settings")) vm.settings = *settings;
  vm.disks = disks_of(fields, false);
  return fields.finish(std::move(vm));
}

Result<VmDescription> vm_description_from_json(const boost::json::object& object) {
  Fields fields(object);
  VmDescription vm;
  vm.name = fields.text("name");
  vm.generation = fields.number<std::uint32_t>("generation", 2, false);
  vm.memory_mib = fields.number<std::uint64_t>("memory_mib", 0, false);
  vm.cpus = fields.number<std::uint32_t>("cpus", 1, false);
  if (auto firmware = fields.text("firmware", false); !firmware.empty()) vm.firmware = firmware;
  vm.secure_boot = fields.truth("secure_boot", false);
  for (const auto& value : fields.array("nics", false)) {
    if (!value.is_object()) return wrong("nics");
    Fields nic(value.get_object());
    BH_TRY(vm.nics.emplace_back(),
           nic.finish(Nic{nic.text("name", false), nic.text("network"), nic.text("mac", false)}));
  }
  return fields.finish(std::move(vm));
}

Result<VmFacts> vm_facts_from_json(const boost::json::object& object) {
  Fields fields(object);
  VmFacts facts;
  auto power = parse_power_state(fields.text("power"));
  if (!power) return wrong("power");
  facts.power = *power;
  facts.disks = disks_of(fields, false);
  if (const auto* vm = fields.object("description")) {
    BH_TRY(facts.vm, vm_description_from_json(*vm));
  }
  return fields.finish(std::move(facts));
}

Result<Snapshot> snapshot_from_json(const boost::json::object& object) {
  Fields fields(object);
  Snapshot snapshot;
  snapshot.id = fields.text("id");
  snapshot.token = fields.text("token", false);
  for (auto& disk : disks_of(fields, true))
    snapshot.disks.push_back({disk.name, disk.path, disk.format, disk.size_bytes});
  return fields.finish(std::move(snapshot));
}

Result<ChangedExtents> changed_extents_from_json(const boost::json::object& object) {
  Fields fields(object);
  ChangedExtents changed;
  const auto* extents = object.if_contains("extents");
  if (extents == nullptr) return wrong("extents");
  if (extents->is_null()) {
    changed.why_unknown = fields.text("why_unknown", false);
    return fields.finish(std::move(changed));
  }
  const auto& array = fields.array("extents");
  if (array.size() > kMaxRanges) return ChangedExtents{std::nullopt, "too many extents to be a hint"};
  changed.ranges.emplace();
  for (const auto& value : array) {
    boost::system::error_code failed;
    ByteRange range;
    if (!value.is_array() || value.get_array().size() != 2) return wrong("extents");
    range.offset = value.get_array()[0].to_number<std::uint64_t>(failed);
    if (!failed) range.length = value.get_array()[1].to_number<std::uint64_t>(failed);
    if (failed || range.end() < range.offset) return wrong("extents");
    if (range.length != 0) changed.ranges->push_back(range);
  }
  return fields.finish(std::move(changed));
}

Result<StartOutcome> start_outcome_from_json(const boost::json::object& object) {
  Fields fields(object);
  StartOutcome outcome{fields.text("token", false)};
  return fields.finish(std::move(outcome));
}

Result<ShutdownOutcome> shutdown_outcome_from_json(const boost::json::object& object) {
  Fields fields(object);
  ShutdownOutcome outcome{fields.truth("forced", false), std::nullopt};
  if (const auto* age = object.if_contains("last_write_age_ms"); age != nullptr && !age->is_null())
    outcome.last_write_age_ms = fields.number<std::uint64_t>("last_write_age_ms", 0);
  return fields.finish(outcome);
}

Result<FirstWrite> first_write_from_json(const boost::json::object& object) {
  const auto* age = object.if_contains("age_ms");
  if (age == nullptr) return FirstWrite{};
  if (age->is_null()) return FirstWrite{FirstWrite::not_yet};
  Fields fields(object);
  FirstWrite write{FirstWrite::seen, fields.number<std::uint64_t>("age_ms", 0),
                   fields.number<std::uint64_t>("unsure_ms", 0, false)};
  return fields.finish(write);
}

Result<std::vector<Check>> checks_from_json(const boost::json::object& object) {
  Fields fields(object);
  std::vector<Check> checks;
  for (const auto& value : fields.array("checks")) {
    if (!value.is_object()) return wrong("checks");
    Fields check(value.get_object());
    Check read{check.text("name"), CheckLevel::ok, check.text("code", false), check.text("cause", false),
               check.text("fix", false)};
    const std::string level = check.text("level");
    if (level != "ok" && level != "warning" && level != "failed") check.fail("level");
    read.level = level == "failed" ? CheckLevel::failed : level == "warning" ? CheckLevel::warning : CheckLevel::ok;
    BH_TRY(checks.emplace_back(), check.finish(std::move(read)));
  }
  return fields.finish(std::move(checks));
}

Result<Health> health_from_json(const boost::json::object& object) {
  Fields fields(object);
  Health health{fields.truth("healthy"), fields.text("detail", false)};
  return fields.finish(std::move(health));
}

}  // namespace backhaul
