// What a transfer says of itself, while it runs and at its end: one shape each from the engine to the job store, the
// API and the command line. Plain values.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>

#include "base/world.h"

namespace backhaul {

struct TransferProgress {
  std::string phase;  // "connect", "transfer", "retry"; of the finish "flush", "verify", "swap"
  std::uint64_t bytes_total = 0, bytes_done = 0;  // of the disk; in "verify" of what is verified
  std::uint64_t payload_bytes = 0;                // content sent so far
  double bytes_per_s = 0;                         // of bytes_done, over the last seconds
  double seconds_left = 0;                        // 0: not known
  std::string detail;                             // in "retry": what went wrong

  void set_seconds_left();  // by the rate and what is left
};
// Called a few times a second, by the thread that sends.
using ReportProgress = std::function<void(const TransferProgress&)>;

// The rate of one transfer, from its own reports; who makes the reports owns it.
class TransferRate {
 public:
  // Sets bytes_per_s and seconds_left of the report that is made at `now`.
  void measure(TransferProgress& progress, Clock::Duration now);

 private:
  std::string phase_;
  Clock::Duration from_{0};
  std::uint64_t bytes_ = 0;  // done at `from_`
  double bytes_per_s_ = 0;
};

struct TransferStats {
  std::uint64_t disk_bytes = 0, bytes_read = 0, blocks_compared = 0, blocks_changed = 0;
  std::uint64_t payload_bytes = 0, wire_bytes = 0;  // content that was sent; all that went over the link, both ways
  std::uint64_t resumed_bytes = 0;                  // of the disk: acknowledged to an earlier run
  double seconds = 0;
  double verify_seconds = 0;                           // of these: after all was sent, until both roots were known
  std::string root_digest_source, root_digest_target;  // hexadecimal; empty: not computed
};

// The one list of its fields, as in control/model/fields.h; a const TransferStats has it, too.
template <class A, class Stats>
requires std::same_as<std::remove_const_t<Stats>, TransferStats>
void fields(A& a, Stats& v) {
  a("disk_bytes", v.disk_bytes), a("bytes_read", v.bytes_read), a("blocks_compared", v.blocks_compared);
  a("blocks_changed", v.blocks_changed), a("payload_bytes", v.payload_bytes), a("wire_bytes", v.wire_bytes);
  a("resumed_bytes", v.resumed_bytes), a("seconds", v.seconds), a("verify_seconds", v.verify_seconds);
  a("root_digest_source", v.root_digest_source), a("root_digest_target", v.root_digest_target);
}

}  // namespace backhaul
