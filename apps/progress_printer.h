// Progress of a send on stderr: on a terminal a bar with rate and time left, elsewhere a line every few seconds.
#pragma once

#include <string>

#include "dataplane/protocol/transfer_report.h"

namespace backhaul {

class ProgressPrinter {
 public:
  explicit ProgressPrinter(bool quiet);
  void update(const TransferProgress& progress);
  // Ends the bar's line.
  void finish();

 private:
  bool quiet_, terminal_, open_line_ = false;
  std::string phase_;
  Clock::Duration last_{0};
};

}  // namespace backhaul
