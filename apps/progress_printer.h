// Progress of a send on stderr: on a terminal a bar with rate and time left, elsewhere a line every few seconds.
#pragma once

#include <string>

#include "dataplane/source/send.h"

namespace backhaul {

class ProgressPrinter {
 public:
  explicit ProgressPrinter(bool quiet);
  void update(const SendProgress& progress);
  // Ends the bar's line.
  void finish();

 private:
  std::string describe(const SendProgress& progress) const;

  bool quiet_, terminal_, open_line_ = false;
  std::string phase_;
  double last_s_ = 0, phase_started_s_ = 0;
  std::uint64_t phase_base_bytes_ = 0;
};

}  // namespace backhaul
