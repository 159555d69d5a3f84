#include "control/drivers/qemu/qemu_bitmap.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

#include "control/model/control_error.h"
#include "dataplane/nbd/nbd.h"

namespace backhaul {
namespace {

namespace json = boost::json;

constexpr const char* kExport = "bhdirty";
constexpr std::size_t kMaxRanges = 1 << 20;  // 16 MiB of them; beyond this digests are as quick

// QEMU has one NBD server. Ours is on record before it runs; somebody else's is left alone.
Result<void> start_server(QemuSession& s) {
  s.record.nbd_started = true;
  BH_RETURN_IF_ERROR(s.save());
  std::error_code ignored;
  std::filesystem::remove(s.files.nbd(), ignored);
  const json::object address{{"type", "unix"}, {"data", json::object{{"path", s.files.nbd()}}}};
  auto started = s.qmp->execute("nbd-server-start", {{"addr", address}, {"max-connections", 1}});
  if (started) return {};
  s.record.nbd_started = false;
  BH_RETURN_IF_ERROR(s.save());
  return std::move(started).error();
}

Result<void> stop_server(QemuSession& s, bool it_runs) {
  auto stopped = s.qmp->execute("nbd-server-stop");  // comes back when the export is gone
  if (!stopped && (it_runs || s.qmp->broken())) return std::move(stopped).error();
  std::error_code ignored;
  std::filesystem::remove(s.files.nbd(), ignored);
  s.record.nbd_started = false;
  return s.save();
}

Result<std::vector<ByteRange>> read_exported(QemuSession& s, const QemuNode& node, const std::string& token,
                                             std::uint64_t size_bytes) {
  BH_RETURN_IF_ERROR(s.qmp->execute("block-export-add", {{"type", "nbd"},
                                                         {"id", kExport},
                                                         {"node-name", node.name},
                                                         {"name", kExport},
                                                         {"bitmaps", json::array{bitmap_name(token)}}}));
  BH_TRY(auto ranges, read_nbd_bitmap(with_nbd_socket(fmt::format("nbd+unix:///{}?socket=", kExport), s.files.nbd()),
                                      "qemu:dirty-bitmap:" + bitmap_name(token), size_bytes, kMaxRanges,
                                      std::chrono::seconds(s.options->timeout_s)));
  if (!ranges) return make_error(ControlErrc::driver_failed, "too many ranges to be a hint");
  return std::move(*ranges);
}

}  // namespace

Result<void> stop_dirty_export(QemuSession& s) {
  return s.record.nbd_started ? stop_server(s, false) : Result<void>();  // whether it came to run is not known
}

ChangedExtents read_dirty_ranges(QemuSession& s, const QemuNode& node, const std::string& token,
                                 std::uint64_t size_bytes) {
  const auto unknown = [](std::string why) { return ChangedExtents{std::nullopt, std::move(why)}; };
  const auto* bitmap = node.bitmap(token);
  if (bitmap == nullptr) return unknown("QEMU has no bitmap of this token: it was restarted, or the token is older");
  if (bitmap->recording || bitmap->busy || bitmap->inconsistent)
    return unknown(fmt::format("the bitmap is {}", bitmap->recording ? "still recording"
                                                   : bitmap->busy    ? "in use by something else"
                                                                     : "inconsistent"));
  if (bitmap->dirty_bytes == 0) return ChangedExtents{std::vector<ByteRange>(), {}};
  if (auto started = start_server(s); !started) return unknown(started.error().to_string());
  auto ranges = read_exported(s, node, token, size_bytes);
  if (auto stopped = stop_server(s, true); !stopped) return unknown(stopped.error().to_string());
  if (!ranges) return unknown(ranges.error().to_string());
  // QEMU counts whole granules, the last may reach beyond the end.
  std::uint64_t sum = 0;
  for (const auto& range : *ranges) sum += range.length;
  if (sum > bitmap->dirty_bytes || sum + kQemuGranularity < bitmap->dirty_bytes)
    return unknown(fmt::format("the bitmap counts {} bytes, its ranges hold {}", bitmap->dirty_bytes, sum));
  return ChangedExtents{std::move(*ranges), {}};
}

}  // namespace backhaul
