#include "apps/progress_printer.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "apps/commands.h"

namespace backhaul {
namespace {

constexpr std::chrono::seconds kLineInterval{5};  // off a terminal

std::string describe(const TransferProgress& progress) {
  if (progress.bytes_total == 0) return progress.phase;
  const auto done = static_cast<double>(progress.bytes_done);
  const auto total = static_cast<double>(progress.bytes_total);
  return fmt::format("{:<8} {} {} of {}, {}/s, left {}, sent {}", progress.phase, progress_bar(done, total),
                     human_bytes(done), human_bytes(total), human_bytes(progress.bytes_per_s),
                     progress.bytes_per_s > 0 ? human_seconds(progress.seconds_left) : "?",
                     human_bytes(static_cast<double>(progress.payload_bytes)));
}

}  // namespace

ProgressPrinter::ProgressPrinter(bool quiet) : quiet_(quiet), terminal_(isatty(STDERR_FILENO) == 1) {}

void ProgressPrinter::update(const TransferProgress& progress) {
  if (quiet_) return;
  if (progress.phase == "retry") {
    finish();
    fmt::print(stderr, "retrying: {}\n", progress.detail);
    return;
  }
  const bool new_phase = progress.phase != phase_;
  phase_ = progress.phase;
  const auto now = system_clock().now();
  if (!terminal_ && !new_phase && now - last_ < kLineInterval) return;
  last_ = now;
  const auto text = describe(progress);
  if (terminal_)
    fmt::print(stderr, "\r{:<118.118}", text);
  else
    fmt::print(stderr, "{}\n", text);
  std::fflush(stderr);
  open_line_ = terminal_;
}

void ProgressPrinter::finish() {
  if (open_line_) fmt::print(stderr, "\n");
  open_line_ = false;
}

}  // namespace backhaul
