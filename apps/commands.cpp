#include "apps/commands.h"

#include <fmt/format.h>

#include <spdlog/spdlog.h>
#include <algorithm>

#include <boost/json/serialize.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "base/world.h"
#include "checksum/block_digest.h"
#include "control/model/control_error.h"
#include "dataplane/linux/linux_storage.h"
#include "dataplane/protocol/transfer.h"

namespace backhaul {
namespace {

std::atomic<bool> stop_flag{false};

extern "C" void on_stop_signal(int) { stop_flag.store(true); }

}  // namespace

int print_error(const Error& error, bool json) {
  const auto message = error.from_peer() ? error.cause() : error.message();
  if (json) {
    boost::json::object body{{"code", error.symbol()},
                             {"message", message},
                             {"cause", error.cause()},
                             {"fix", error.fix()},
                             {"retry", error.retry() == Retry::later}};
    print_json({{"error", std::move(body)}});
  }
  fmt::print(stderr, "backhaul: {}: {}\n", error.symbol(), message);
  if (!error.from_peer() && !error.cause().empty()) fmt::print(stderr, "  cause: {}\n", error.cause());
  if (!error.fix().empty()) fmt::print(stderr, "  fix:   {}\n", error.fix());
  const bool usage = error.code() == BaseErrc::invalid_argument || error.code() == ControlErrc::bad_file;
  return usage ? kExitUsage : kExitFailed;
}

void print_json(const boost::json::object& object) {
  const auto text = boost::json::serialize(object);
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fputc('\n', stdout);
  std::fflush(stdout);
}

Result<TlsRecords> read_tls_records(const std::string& text) {
  const auto records = parse_tls_records(text);
  if (records) return *records;
  return make_error(BaseErrc::invalid_argument, fmt::format("--tls-records '{}': allowed are auto, openssl", text));
}

std::string tls_directory(const std::string& directory, const std::string& node) {
  std::string chosen = directory;
  if (chosen.empty()) {
    const char* from_environment = std::getenv("BACKHAUL_TLS");
    chosen = from_environment != nullptr ? from_environment : "/etc/backhaul/tls";
  }
  std::error_code ignored;
  const std::filesystem::path path(chosen);
  if (!std::filesystem::exists(path / "node.crt", ignored) &&
      std::filesystem::exists(path / node / "node.crt", ignored))
    return (path / node).string();
  return chosen;
}

Result<DataplaneParts> real_parts() {
  BH_TRY(const auto kernel, select_hash_kernel());
  {
    BH_TRY(const auto hasher, make_block_hasher(kernel));
    spdlog::info("digests by {}", hasher->description());
  }
  DataplaneParts parts;
  parts.make_queue = [] { return make_uring_queue({kLaneQueueDepth}); };
  parts.make_hasher = [kernel] { return make_block_hasher(kernel); };
  parts.clock = &system_clock();
  parts.random = &system_random();
  return parts;
}

std::string human_bytes(double bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  int unit = 0;
  while (bytes >= 1024 && unit < 5) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, kUnits[unit]);
}

std::string progress_bar(double done, double total) {
  constexpr int kWidth = 24;
  const double fraction = total > 0 ? std::clamp(done / total, 0.0, 1.0) : 0;
  const int filled = static_cast<int>(kWidth * fraction);
  return fmt::format("[{}{}] {:3.0f}%", std::string(filled, '#'), std::string(kWidth - filled, '.'), 100 * fraction);
}

std::string human_seconds(double seconds) {
  const auto whole = static_cast<std::uint64_t>(seconds);
  if (whole >= 3600) return fmt::format("{}h{:02}m", whole / 3600, whole / 60 % 60);
  if (whole >= 60) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  return fmt::format("{}s", whole);
}

Result<std::uint64_t> parse_bytes(const std::string& text) {
  const auto bad = [&] { return make_error(BaseErrc::invalid_argument, "'" + text + "' is no number of bytes"); };
  std::size_t used = 0;
  std::uint64_t value = 0;
  for (; used < text.size() && text[used] >= '0' && text[used] <= '9'; ++used) {
    if (value > (std::uint64_t{1} << 50)) return bad();
    value = value * 10 + static_cast<std::uint64_t>(text[used] - '0');
  }
  if (used == 0 || text.size() > used + 1) return bad();
  if (used == text.size()) return value;
  std::uint64_t unit = 0;
  switch (text[used]) {
    case 'k':
    case 'K': unit = kKiB; break;
    case 'm':
    case 'M': unit = kMiB; break;
    case 'g':
    case 'G': unit = kGiB; break;
    case 't':
    case 'T': unit = kTiB; break;
    default: return bad();
  }
  if (value > (std::uint64_t{1} << 60) / unit) return bad();
  return value * unit;
}

const std::atomic<bool>& stop_on_signals() {
  struct sigaction action {};
  action.sa_handler = on_stop_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  return stop_flag;
}

}  // namespace backhaul
