// What can go wrong in a transfer, beyond files and the link.
#pragma once

#include "base/error.h"

namespace backhaul {

enum class EngineErrc {
  session_busy = 1,      // another live run holds the disk's session
  session_fenced,        // a newer run (higher epoch) took over
  session_cancelled,     // someone cancelled the transfer
  session_unknown,       // the lane's session is not there (the host agent was restarted)
  session_mismatch,      // an unfinished transfer of this disk has other parameters
  session_damaged,       // the leftovers of an unfinished transfer cannot be understood
  target_too_small,      // the target disk is smaller than the source
  target_size_differs,   // the target disk is larger than the source
  format_mismatch,       // the target disk has another format than the one asked for
  no_base,               // only changed extents were given, but there is no disk to apply them to
  bad_disk_name,         // the disk's name is empty, reserved or leads outside
  source_read,           // the source could not be read
  verify_mismatch,       // a block read back from the target differs from what was sent
  root_mismatch,         // the root digests of both ends differ
  bad_extents_file,      // the changed-extents file is malformed
  session_incomplete,    // finish came, but some extents were never acknowledged
  bad_target_url,        // not backhaul://HOST:PORT/DISK
  session_kept,          // the disk was swapped in and the old one is kept: no transfer may begin
  session_not_staged,    // a swap was asked for, but nothing is staged
  session_kept_changed,  // somebody wrote to the new disk, so the undo log does not give the old one back any more
  offer_unknown,         // a stream was offered under a name that nobody expects (from that node)
  offer_full,            // enough streams of that name wait already
  offer_none,            // the other end offered no stream in time
  offer_withdrawn,       // the streams are no longer wanted
};
const ErrorCategory& engine_category() noexcept;
inline std::error_code make_error_code(EngineErrc value) { return {static_cast<int>(value), engine_category()}; }

}  // namespace backhaul

template <>
struct std::is_error_code_enum<backhaul::EngineErrc> : std::true_type {};
