// What one saver gathers of a file's old content before it goes to the undo log: records are planned first, then all
// their content is read at once, then one append takes them. One thread at a time; memory: one buffer of kSize bytes.
#pragma once

#include <vector>

#include "dataplane/store/journal_layout.h"
#include "dataplane/store/undo_commit.h"

namespace backhaul {

class UndoBatch {
 public:
  // Limit (docs/journal_format.md, section 3): what one caller saves between two syncs.
  static constexpr std::uint64_t kSize =
      journal_layout::kUndoMaxDataChunks * (kUndoChunkSize + journal_layout::kUndoRecordHeaderSize);

  // All three outlive it.
  UndoBatch(const UndoHeader& header, File& file, UndoCommit& log)
      : header_(header), file_(file), log_(log), buffer_(kSize) {}

  // Plans records; an error is one of making room. Nobody writes to the chunks before append() returned.
  Result<void> add_hole(std::uint64_t first, std::uint64_t end);
  // One record of [first, end), as far as the buffer has room. Returns where it stops.
  Result<std::uint64_t> add_data(std::uint64_t first, std::uint64_t end);
  // Reads what is planned and writes it to the end of the log; not durable yet.
  Result<void> append();
  // Forgets what is planned.
  void clear();

 private:
  MutableBytes payload_of(const PlannedRecord& planned);
  Result<void> make_room(std::uint64_t bytes);
  Result<void> read_planned();
  void drop_zeros();

  const UndoHeader& header_;
  File& file_;
  UndoCommit& log_;
  AlignedBuffer buffer_;  // record headers and payloads as they go to the log
  std::vector<PlannedRecord> planned_;
  std::size_t read_ = 0;  // records before have their content; those of kind data after it are still to be read
  std::uint64_t used_ = 0;
};

}  // namespace backhaul
