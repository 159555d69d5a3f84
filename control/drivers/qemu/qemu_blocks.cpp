#include "control/drivers/qemu/qemu_blocks.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <filesystem>

#include "control/model/control_error.h"

namespace backhaul {
namespace {

namespace json = boost::json;

constexpr std::string_view kPrefix = "backhaul:";

// Reads an answer; a member that is missing or of another type throws, and this turns it into an error.
template <class Read>
auto read(std::string_view command, Read function) -> Result<decltype(function())> {
  try {
    return function();
  } catch (const std::exception& problem) {
    return make_error(ControlErrc::driver_protocol, fmt::format("{}: {}", command, problem.what()));
  }
}

bool flag(const json::object& object, const char* key) {
  const auto* value = object.if_contains(key);
  return value != nullptr && value->as_bool();
}

QemuNode node_from(const json::object& object) {
  QemuNode node;
  node.name = text_at(object, "node-name");
  node.driver = text_at(object, "drv");
  node.file = text_at(object, "file");
  node.virtual_size = object.at("image").as_object().at("virtual-size").to_number<std::uint64_t>();
  if (const auto* bitmaps = object.if_contains("dirty-bitmaps"))
    for (const auto& value : bitmaps->as_array()) {
      const auto& bitmap = value.as_object();
      const auto* name = bitmap.if_contains("name");
      if (name == nullptr) continue;  // a job's own
      node.bitmaps.push_back({std::string(name->as_string()), bitmap.at("count").to_number<std::uint64_t>(),
                              flag(bitmap, "recording"), flag(bitmap, "busy"), flag(bitmap, "inconsistent")});
    }
  return node;
}

}  // namespace

Error driver_failed(std::string cause) { return make_error(ControlErrc::driver_failed, std::move(cause)); }

std::string text_at(const json::object& object, const char* key) { return std::string(object.at(key).as_string()); }

std::string bitmap_name(std::string_view token) { return std::string(kPrefix) + std::string(token); }
bool is_our_bitmap(std::string_view name) { return name.starts_with(kPrefix); }

const QemuBitmap* QemuNode::bitmap(std::string_view token) const {
  const auto wanted = bitmap_name(token);
  const auto found = std::find_if(bitmaps.begin(), bitmaps.end(), [&](const auto& b) { return b.name == wanted; });
  return found == bitmaps.end() ? nullptr : &*found;
}

const QemuNode* QemuView::node(std::string_view name) const {
  const auto found = std::find_if(nodes.begin(), nodes.end(), [&](const auto& n) { return n.name == name; });
  return found == nodes.end() ? nullptr : &*found;
}

const QemuJob* QemuView::job(std::string_view id) const {
  const auto found = std::find_if(jobs.begin(), jobs.end(), [&](const auto& j) { return j.id == id; });
  return found == jobs.end() ? nullptr : &*found;
}

const QemuNode* QemuView::disk(const std::string& path, DiskFormat format) const {
  for (const auto& node : nodes) {
    if (node.driver != qemu_format(format)) continue;
    std::error_code failed;
    if (node.file == path || (std::filesystem::equivalent(node.file, path, failed) && !failed)) return &node;
  }
  return nullptr;
}

Result<QemuView> look_at_qemu(QmpClient& qmp) {
  QemuView view;
  BH_TRY(view.status, query_status(qmp));
  BH_TRY(const auto nodes, qmp.execute("query-named-block-nodes", {{"flat", true}}));
  BH_TRY(view.nodes, read("query-named-block-nodes", [&] {
           std::vector<QemuNode> list;
           for (const auto& value : nodes.as_array()) list.push_back(node_from(value.as_object()));
           return list;
         }));
  BH_TRY(const auto devices, qmp.execute("query-block"));
  BH_TRY(view.tops, read("query-block", [&] {
           std::set<std::string, std::less<>> tops;
           for (const auto& value : devices.as_array())
             if (const auto* inserted = value.as_object().if_contains("inserted"))
               tops.insert(text_at(inserted->as_object(), "node-name"));
           return tops;
         }));
  BH_TRY(view.jobs, query_jobs(qmp));
  return view;
}

Result<std::string> query_status(QmpClient& qmp) {
  BH_TRY(const auto answer, qmp.execute("query-status"));
  return read("query-status", [&] { return text_at(answer.as_object(), "status"); });
}

Result<QemuWrites> query_writes(QmpClient& qmp) {
  BH_TRY(const auto answer, qmp.execute("query-blockstats"));
  return read("query-blockstats", [&] {
    QemuWrites writes;
    for (const auto& value : answer.as_array()) {
      const auto& stats = value.as_object().at("stats").as_object();
      writes.acknowledged += stats.at("wr_operations").to_number<std::uint64_t>();
      if (const auto* idle = stats.if_contains("idle_time_ns")) {
        const auto idle_ms = idle->to_number<std::uint64_t>() / 1'000'000;
        writes.idle_ms = std::min(writes.idle_ms.value_or(idle_ms), idle_ms);
      }
    }
    return writes;
  });
}

Result<std::vector<QemuJob>> query_jobs(QmpClient& qmp) {
  BH_TRY(const auto answer, qmp.execute("query-jobs"));
  return read("query-jobs", [&] {
    std::vector<QemuJob> jobs;
    for (const auto& value : answer.as_array()) {
      const auto& job = value.as_object();
      const auto* error = job.if_contains("error");
      jobs.push_back({text_at(job, "id"), text_at(job, "status"),
                      error == nullptr ? std::string() : std::string(error->as_string()),
                      job.at("current-progress").to_number<std::uint64_t>(),
                      job.at("total-progress").to_number<std::uint64_t>()});
    }
    return jobs;
  });
}

json::object action(std::string_view type, json::object data) { return {{"type", type}, {"data", std::move(data)}}; }

Result<void> run_transaction(QmpClient& qmp, json::array actions) {
  if (actions.empty()) return {};
  BH_RETURN_IF_ERROR(qmp.execute("transaction", {{"actions", std::move(actions)}}));
  return {};
}

}  // namespace backhaul
