// Undo staging: before a region of a file is overwritten for the first time, its old content goes durable to an undo
// log (docs/journal_format.md). Works on bytes of the file, below every format, so that restoring gives the old file
// byte for byte. The log is append-only, each record self-checking; a record that a crash tore was never relied upon,
// because the write it guards came after the sync.
#pragma once

#include <memory>

#include "dataplane/disk/io.h"

namespace backhaul {

inline constexpr std::uint64_t kUndoChunkSize = 64 * 1024;

// Creates the log for `file` (its size and identity at this moment are what a restore gives back). Durable on return.
Result<void> create_undo_log(Storage& storage, std::string_view log_path, File& file);

// Wraps `file` so that every change goes through the log. Reads the log's existing records first (after a crash).
// Memory: one bit for each chunk, 2 MiB for each TiB of file, allocated where it is touched. Errors: UndoErrc::damaged
// when the log's header is unusable; a torn tail is cut off.
Result<std::unique_ptr<File>> open_undo_file(Storage& storage, std::string_view log_path, std::unique_ptr<File> file);

// Gives the file its old content and size back, durably. May be interrupted and repeated. The log stays; the caller
// removes it.
Result<void> restore_undo_log(Storage& storage, std::string_view log_path, File& file);

enum class UndoErrc {
  damaged = 1,  // the log's header or a record that was relied upon is damaged
  wrong_file,   // the log belongs to a file of another kind or size
};
const ErrorCategory& undo_category() noexcept;
inline std::error_code make_error_code(UndoErrc value) { return {static_cast<int>(value), undo_category()}; }

}  // namespace backhaul

template <>
struct std::is_error_code_enum<backhaul::UndoErrc> : std::true_type {};
