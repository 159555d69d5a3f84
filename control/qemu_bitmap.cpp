#include "control/qemu_bitmap.h"

#include <fmt/format.h>
#include <libnbd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstring>
#include <thread>

#include "control/control_error.h"

namespace backhaul {
namespace {

namespace json = boost::json;
using SteadyClock = std::chrono::steady_clock;

constexpr const char* kExport = "bhdirty";
constexpr std::uint64_t kAskAtOnce = std::uint64_t{1} << 30;  // of one request
constexpr std::size_t kMaxRanges = 1 << 20;                   // 16 MiB of them; beyond this digests are as quick

struct CloseNbd {
  void operator()(nbd_handle* handle) const { nbd_close(handle); }
};
using Nbd = std::unique_ptr<nbd_handle, CloseNbd>;

Error nbd_failed(std::string_view what) {
  const char* why = nbd_get_error();
  return make_error(ControlErrc::driver_failed, fmt::format("{}: {}", what, why == nullptr ? "unknown" : why));
}

// What the replies have said so far.
struct Ranges {
  std::vector<ByteRange> dirty;
  std::uint64_t at = 0;  // where the next reply goes on
  std::uint64_t end = 0;
  bool too_many = false;

  void add(std::uint64_t length, bool is_dirty) {
    length = std::min(length, end - at);
    if (is_dirty && length != 0) {
      if (!dirty.empty() && dirty.back().end() == at)
        dirty.back().length += length;
      else if (dirty.size() < kMaxRanges)
        dirty.push_back({at, length});
      else
        too_many = true;
    }
    at += length;
  }
};

// One connection; every wait has a limit, so that a QEMU that hangs does not hang us.
class DirtyReader {
 public:
  DirtyReader(std::string socket, std::string context, std::chrono::milliseconds timeout)
      : socket_(std::move(socket)), context_(std::move(context)), timeout_(timeout) {}

  Result<std::vector<ByteRange>> read(std::uint64_t size_bytes) {
    nbd_.reset(nbd_create());
    if (!nbd_ || nbd_set_export_name(nbd_.get(), kExport) < 0 ||
        nbd_add_meta_context(nbd_.get(), context_.c_str()) < 0 || nbd_aio_connect_unix(nbd_.get(), socket_.c_str()) < 0)
      return nbd_failed("NBD");
    BH_CHECK(wait([&] { return nbd_aio_is_ready(nbd_.get()); }));
    if (nbd_can_meta_context(nbd_.get(), context_.c_str()) != 1)
      return make_error(ControlErrc::driver_failed, "QEMU does not export the bitmap");
    const auto exported = nbd_get_size(nbd_.get());
    if (exported < 0 || static_cast<std::uint64_t>(exported) < size_bytes)
      return make_error(ControlErrc::driver_failed, fmt::format("the export has {} bytes of {}", exported, size_bytes));
    ranges_.end = size_bytes;
    while (ranges_.at < size_bytes && !ranges_.too_many) BH_CHECK(ask());
    if (ranges_.too_many) return make_error(ControlErrc::driver_failed, "too many ranges to be a hint");
    nbd_shutdown(nbd_.get(), 0);
    return std::move(ranges_.dirty);
  }

 private:
  template <class Done>
  Result<void> wait(Done done) {
    const auto deadline = SteadyClock::now() + timeout_;
    for (;;) {
      const int finished = done();
      if (finished < 0 || nbd_aio_is_dead(nbd_.get()) == 1 || nbd_aio_is_closed(nbd_.get()) == 1)
        return nbd_failed("NBD");
      if (finished > 0) return {};
      if (SteadyClock::now() >= deadline) return make_error(ControlErrc::driver_timeout, "QEMU's NBD server is silent");
      if (nbd_poll(nbd_.get(), 1000) < 0) return nbd_failed("NBD");
    }
  }

  Result<void> ask() {
    const auto from = ranges_.at;
    const auto length = std::min(kAskAtOnce, (ranges_.end - from + 511) / 512 * 512);
    nbd_extent_callback extents{&DirtyReader::on_extents, this, nullptr};
    nbd_completion_callback completion{nullptr, nullptr, nullptr};
    const auto cookie = nbd_aio_block_status(nbd_.get(), length, from, extents, completion, 0);
    if (cookie < 0) return nbd_failed("NBD block status");
    BH_CHECK(wait([&] { return nbd_aio_command_completed(nbd_.get(), static_cast<std::uint64_t>(cookie)); }));
    if (ranges_.at == from) return make_error(ControlErrc::driver_failed, "NBD block status says nothing");
    return {};
  }

  static int on_extents(void* self, const char* context, std::uint64_t offset, std::uint32_t* entries,
                        std::size_t count, int*) {
    auto& reader = *static_cast<DirtyReader*>(self);
    if (reader.context_ != context || offset != reader.ranges_.at) return 0;
    for (std::size_t i = 0; i + 1 < count; i += 2) reader.ranges_.add(entries[i], (entries[i + 1] & 1) != 0);
    return 0;
  }

  const std::string socket_, context_;
  const std::chrono::milliseconds timeout_;
  Nbd nbd_;
  Ranges ranges_;
};

// QEMU has one NBD server. Ours is on record before it runs; somebody else's is left alone.
Result<void> start_server(QemuSession& s) {
  if (s.record.nbd_started) static_cast<void>(s.qmp->execute("nbd-server-stop"));  // a call before this one crashed
  s.record.nbd_started = true;
  BH_CHECK(s.save());
  std::error_code ignored;
  std::filesystem::remove(s.files.nbd(), ignored);
  const json::object address{{"type", "unix"}, {"data", json::object{{"path", s.files.nbd()}}}};
  auto started = s.qmp->execute("nbd-server-start", {{"addr", address}, {"max-connections", 1}});
  if (started) return {};
  s.record.nbd_started = false;
  BH_CHECK(s.save());
  return std::move(started).error();
}

Result<void> stop_server(QemuSession& s) {
  BH_CHECK(s.qmp->execute("nbd-server-stop"));  // takes the export with it
  std::error_code ignored;
  std::filesystem::remove(s.files.nbd(), ignored);
  s.record.nbd_started = false;
  return s.save();
}

Result<std::vector<ByteRange>> read_exported(QemuSession& s, const QemuNode& node, const std::string& token,
                                             std::uint64_t size_bytes) {
  BH_CHECK(s.qmp->execute("block-export-add", {{"type", "nbd"},
                                               {"id", kExport},
                                               {"node-name", node.name},
                                               {"name", kExport},
                                               {"bitmaps", json::array{bitmap_name(token)}}}));
  return DirtyReader(s.files.nbd(), "qemu:dirty-bitmap:" + bitmap_name(token),
                     std::chrono::seconds(s.options->timeout_s))
      .read(size_bytes);
}

}  // namespace

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
  if (auto stopped = stop_server(s); !stopped) return unknown(stopped.error().to_string());
  if (!ranges) return unknown(ranges.error().to_string());
  // QEMU counts whole granules, the last may reach beyond the end.
  std::uint64_t sum = 0;
  for (const auto& range : *ranges) sum += range.length;
  if (sum > bitmap->dirty_bytes || sum + kQemuGranularity < bitmap->dirty_bytes)
    return unknown(fmt::format("the bitmap counts {} bytes, its ranges hold {}", bitmap->dirty_bytes, sum));
  return ChangedExtents{std::move(*ranges), {}};
}

}  // namespace backhaul
