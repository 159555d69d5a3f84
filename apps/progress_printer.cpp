#include "apps/progress_printer.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "apps/commands.h"

namespace backhaul {
namespace {

constexpr double kLineInterval_s = 5;  // off a terminal

}  // namespace

ProgressPrinter::ProgressPrinter(bool quiet) : quiet_(quiet), terminal_(isatty(STDERR_FILENO) == 1) {}

void ProgressPrinter::update(const SendProgress& progress) {
  if (quiet_) return;
  if (progress.phase == "retry") {
    finish();
    fmt::print(stderr, "retrying: {}\n", progress.detail);
    return;
  }
  const bool new_phase = progress.phase != phase_;
  if (new_phase) {
    phase_ = progress.phase;
    phase_started_s_ = progress.seconds;
    phase_base_bytes_ = progress.bytes_done;
  }
  if (!terminal_ && !new_phase && progress.seconds - last_s_ < kLineInterval_s) return;
  last_s_ = progress.seconds;
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

std::string ProgressPrinter::describe(const SendProgress& progress) const {
  if (progress.bytes_total == 0) return std::string(progress.phase);
  const auto done = static_cast<double>(progress.bytes_done);
  const auto total = static_cast<double>(progress.bytes_total);
  const double elapsed = progress.seconds - phase_started_s_;
  const double rate = elapsed > 0.2 ? std::max(0.0, done - static_cast<double>(phase_base_bytes_)) / elapsed : 0;
  return fmt::format("{:<8} {} {} of {}, {}/s, left {}, sent {}", progress.phase, progress_bar(done, total),
                     human_bytes(done), human_bytes(total), human_bytes(rate),
                     rate > 0 ? human_seconds((total - done) / rate) : "?",
                     human_bytes(static_cast<double>(progress.payload_bytes)));
}

}  // namespace backhaul
