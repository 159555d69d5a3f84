// What a transfer says of itself: one shape from the engine to the job store, the API and the command line. Plain
// values.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <type_traits>

namespace backhaul {

struct TransferStats {
  std::uint64_t disk_bytes = 0, bytes_read = 0, blocks_compared = 0, blocks_changed = 0;
  std::uint64_t payload_bytes = 0, wire_bytes = 0;  // content that was sent; all that went over the link, both ways
  std::uint64_t resumed_bytes = 0;                  // of the disk: acknowledged to an earlier run
  double seconds = 0;
  double verify_seconds = 0;                           // of these: after all was sent, until both roots were known
  std::string root_digest_source, root_digest_target;  // hexadecimal; empty: not computed
};

// The one list of its fields, as in control/model/json_fields.h; a const TransferStats has it, too.
template <class A, class Stats>
requires std::same_as<std::remove_const_t<Stats>, TransferStats>
void fields(A& a, Stats& v) {
  a("disk_bytes", v.disk_bytes), a("bytes_read", v.bytes_read), a("blocks_compared", v.blocks_compared);
  a("blocks_changed", v.blocks_changed), a("payload_bytes", v.payload_bytes), a("wire_bytes", v.wire_bytes);
  a("resumed_bytes", v.resumed_bytes), a("seconds", v.seconds), a("verify_seconds", v.verify_seconds);
  a("root_digest_source", v.root_digest_source), a("root_digest_target", v.root_digest_target);
}

}  // namespace backhaul
