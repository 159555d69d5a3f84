#include "control/drivers/qemu/qemu_record.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cerrno>
#include <stdexcept>

#include "base/unique_fd.h"
#include "control/drivers/qemu/qemu_blocks.h"
#include "control/model/control_error.h"
#include "control/model/model_fields.h"

namespace backhaul {
namespace {

namespace json = boost::json;

constexpr const char* kStateFile = "state.json";
constexpr const char* kDefinitionFile = "vm.json";
constexpr std::size_t kMaxFile = 4 * 1024 * 1024;
constexpr std::array<std::string_view, 4> kPhases{"taking", "open", "broken", "releasing"};

json::object to_object(const HeldDisk& disk) {
  return {{"name", disk.name},
          {"path", disk.path},
          {"format", to_string(disk.format)},
          {"size_bytes", disk.size_bytes},
          {"overlay_file", disk.overlay_file},
          {"overlay_node", disk.overlay_node},
          {"job", disk.job}};
}

json::object to_object(const HeldSnapshot& held) {
  json::array disks;
  for (const auto& disk : held.disks) disks.push_back(to_object(disk));
  return {{"id", held.id},   {"token", held.token},           {"phase", kPhases[static_cast<std::size_t>(held.phase)]},
          {"off", held.off}, {"why_broken", held.why_broken}, {"disks", std::move(disks)}};
}

// Members of an object of ours; a missing or wrong one throws, and parse_file() turns that into an error.

DiskFormat format_at(const json::object& disk) {
  const auto format = parse_disk_format(text_at(disk, "format"));
  if (!format) throw std::runtime_error("format");
  return *format;
}

HeldSnapshot held_from(const json::object& object) {
  HeldSnapshot held;
  held.id = text_at(object, "id");
  held.token = text_at(object, "token");
  const auto phase = std::find(kPhases.begin(), kPhases.end(), text_at(object, "phase"));
  if (phase == kPhases.end()) throw std::runtime_error("phase");
  held.phase = static_cast<HoldPhase>(phase - kPhases.begin());
  held.off = object.at("off").as_bool();
  held.why_broken = text_at(object, "why_broken");
  for (const auto& value : object.at("disks").as_array()) {
    const auto& disk = value.as_object();
    held.disks.push_back({text_at(disk, "name"), text_at(disk, "path"), format_at(disk),
                          disk.at("size_bytes").to_number<std::uint64_t>(), text_at(disk, "overlay_file"),
                          text_at(disk, "overlay_node"), text_at(disk, "job")});
  }
  return held;
}

QemuRecord record_from(const json::object& object) {
  QemuRecord record;
  if (const auto& held = object.at("snapshot"); !held.is_null()) record.snapshot = held_from(held.as_object());
  record.counter = object.at("counter").to_number<std::uint64_t>();
  record.start_token = text_at(object, "start_token");
  record.qmp = text_at(object, "qmp");
  if (const auto* writes = object.if_contains("start_writes")) record.start_writes = writes->to_number<std::uint64_t>();
  if (const auto* started = object.if_contains("started_unix_ms"))
    record.started_unix_ms = started->to_number<std::int64_t>();
  record.powered_off = object.at("powered_off").as_bool();
  record.paused_by_us = object.at("paused_by_us").as_bool();
  record.nbd_started = object.at("nbd_started").as_bool();
  return record;
}

QemuDefinition definition_from(const json::object& object) {
  QemuDefinition definition;
  auto vm = read_fields<VmDescription>(object.at("vm").as_object(), From::peer, "vm", ControlErrc::driver_failed);
  if (!vm) throw std::runtime_error(vm.error().cause());
  definition.vm = std::move(*vm);
  for (const auto& value : object.at("disks").as_array()) {
    const auto& disk = value.as_object();
    definition.disks.push_back({text_at(disk, "name"), text_at(disk, "path"), format_at(disk),
                                disk.at("size_bytes").to_number<std::uint64_t>()});
  }
  definition.machine = text_at(object, "machine");
  definition.disk_bus = text_at(object, "disk_bus");
  definition.nic_model = text_at(object, "nic_model");
  return definition;
}

// Nothing when there is no such file.
template <class T>
Result<std::optional<T>> parse_file(const std::filesystem::path& file, T (*parse)(const json::object&)) {
  UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd && errno == ENOENT) return std::optional<T>();
  if (!fd) return Error::from_errno(errno, "open " + file.string());
  std::string content(kMaxFile, '\0');
  std::size_t size = 0;
  while (size < content.size()) {
    const auto got = ::read(fd.get(), content.data() + size, content.size() - size);
    if (got < 0) return Error::from_errno(errno, "read " + file.string());
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  content.resize(size);
  try {
    return std::optional<T>(parse(json::parse(content).as_object()));
  } catch (const std::exception& damage) {
    return make_error(ControlErrc::driver_failed, fmt::format("{} is damaged: {}", file.string(), damage.what()));
  }
}

Result<void> replace_file(const std::filesystem::path& file, const json::object& object) {
  const auto fresh = file.string() + ".new";
  const auto content = json::serialize(object) + "\n";
  UniqueFd fd(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd) return Error::from_errno(errno, "create " + fresh);
  const auto put = ::write(fd.get(), content.data(), content.size());
  if (put != static_cast<ssize_t>(content.size())) return Error::from_errno(put < 0 ? errno : ENOSPC, "write " + fresh);
  if (::fsync(fd.get()) != 0) return Error::from_errno(errno, "sync " + fresh);
  if (::rename(fresh.c_str(), file.c_str()) != 0) return Error::from_errno(errno, "rename " + fresh);
  return sync_directory(file.parent_path());
}

}  // namespace

Result<QemuRecord> load_qemu_record(const std::filesystem::path& directory) {
  BH_TRY(auto record, parse_file<QemuRecord>(directory / kStateFile, record_from));
  return std::move(record).value_or(QemuRecord());
}

Result<void> save_qemu_record(const std::filesystem::path& directory, const QemuRecord& record) {
  json::object object{{"snapshot", nullptr},
                      {"counter", record.counter},
                      {"start_token", record.start_token},
                      {"start_writes", record.start_writes},
                      {"started_unix_ms", record.started_unix_ms},
                      {"qmp", record.qmp},
                      {"powered_off", record.powered_off},
                      {"paused_by_us", record.paused_by_us},
                      {"nbd_started", record.nbd_started}};
  if (record.snapshot) object["snapshot"] = to_object(*record.snapshot);
  return replace_file(directory / kStateFile, object);
}

Result<std::optional<QemuDefinition>> load_qemu_definition(const std::filesystem::path& directory) {
  return parse_file<QemuDefinition>(directory / kDefinitionFile, definition_from);
}

Result<void> save_qemu_definition(const std::filesystem::path& directory, const QemuDefinition& definition) {
  json::array disks;
  for (const auto& disk : definition.disks) disks.push_back(write_fields(disk));
  return replace_file(directory / kDefinitionFile, {{"vm", write_fields(definition.vm)},
                                                    {"disks", std::move(disks)},
                                                    {"machine", definition.machine},
                                                    {"disk_bus", definition.disk_bus},
                                                    {"nic_model", definition.nic_model}});
}

Result<void> sync_directory(const std::filesystem::path& directory) {
  UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return Error::from_errno(errno, "sync " + directory.string());
  return {};
}

Result<void> remove_durably(const std::filesystem::path& file) {
  if (::unlink(file.c_str()) != 0) {
    if (errno == ENOENT) return {};
    return Error::from_errno(errno, "delete " + file.string());
  }
  return sync_directory(file.parent_path());
}

}  // namespace backhaul
