// The readers of the target's journal files: whatever the bytes are, they give an error or a consistent answer, and
// never write outside what they may. First byte: which reader (low bits) and whether checksums are made right first
// (0x80), without which hardly an input gets behind them. The rest is the file.

#include "dataplane/store/digest_index.h"
#include "dataplane/store/journal_layout.h"
#include "dataplane/store/session_journal.h"
#include "dataplane/store/undo.h"
#include "sim/sim_storage.h"
#include "tests/fuzz/fuzz_input.h"

namespace {

using namespace backhaul;
using namespace backhaul::journal_layout;

void seal(MutableBytes bytes, std::size_t at) { store_le(&bytes[at], crc_without_field(bytes, at)); }

void repair(unsigned reader, MutableBytes file) {
  if (reader == 0) {
    for (std::size_t at = 0; at + kSessionRecordSize <= file.size(); at += kSessionRecordSize)
      seal(file.subspan(at, kSessionRecordSize), 12);
    return;
  }
  if (file.size() < kHeaderCrcBytes) return;
  seal(file.first(kHeaderCrcBytes), 12);
  if (reader == 1) return;
  for (std::size_t at = kHeaderSize; at + kUndoRecordHeaderSize <= file.size(); at += kUndoRecordHeaderSize) {
    if (load_le<std::uint32_t>(&file[at]) != kUndoRecordMagic) continue;
    store_le(&file[at + 8], load_le<std::uint32_t>(&file[12]));
    store_le(&file[at + 48], static_cast<std::uint64_t>(at));
    seal(file.subspan(at, kUndoRecordHeaderUsed), 4);
  }
}

void read_journal(Storage& storage) {
  auto journal = open_session_journal(storage, "file");
  if (!journal) return require(journal.error() == JournalErrc::damaged);
  auto next = (*journal)->last();
  if (!may_follow(next.state, next.state)) return;
  next.epoch += 1;
  require((*journal)->append(next).has_value());
  require(open_session_journal(storage, "file").value()->last() == next);
}

void read_index(Storage& storage) {
  constexpr std::uint64_t kDisk = 3 * kExtentSize - 1;
  auto index = open_digest_index(storage, "file", kDisk);
  if (!index) return require(index.error() == IndexErrc::damaged || index.error() == IndexErrc::wrong_size);
  for (std::uint64_t extent = 0; extent < extent_count(kDisk); ++extent) {
    ExtentDigests digests{};
    const bool loaded = (*index)->load(extent, digests).value();
    require(loaded == ((*index)->state(extent) == ExtentState::known));
    require((*index)->shipped(extent) <= kBlocksPerExtent);
    require((*index)->store(extent, digests, 1).has_value());
  }
  require((*index)->sync().has_value());
  ExtentDigests digests{};
  require(open_digest_index(storage, "file", kDisk).value()->load(2, digests).value());
}

void read_undo(Storage& storage) {
  {
    auto disk = storage.create("disk").value();
    require(disk->resize(5 * kUndoChunkSize + 7).has_value());
  }
  if (auto file = open_undo_file(storage, "file", storage.open("disk", OpenMode::write).value())) {
    const std::byte some[100] = {};
    require((*file)->write_at(kUndoChunkSize - 50, some).has_value());
  }
  auto disk = storage.open("disk", OpenMode::write).value();
  if (const auto restored = restore_undo_log(storage, "file", *disk); !restored)
    require(restored.error() == UndoErrc::damaged || restored.error() == UndoErrc::wrong_file);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1 || size > 256 * 1024) return 0;
  const unsigned reader = data[0] % 3;
  std::vector<std::byte> content(size - 1);
  if (!content.empty()) std::memcpy(content.data(), data + 1, content.size());
  if ((data[0] & 0x80) != 0) repair(reader, content);
  sim::SimStorage storage;
  require(storage.create("file").value()->write_at(0, content).has_value());
  if (reader == 0) read_journal(storage);
  if (reader == 1) read_index(storage);
  if (reader == 2) read_undo(storage);
  return 0;
}
