#include "dataplane/store/session_journal.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <optional>
#include <utility>

#include "dataplane/disk/whole_file.h"
#include "dataplane/store/journal_layout.h"

namespace backhaul {
namespace {

using namespace journal_layout;

constexpr ErrorInfo kJournalErrors[] = {
    {"journal.damaged", "the session journal holds no whole record",
     "The state of the transfer is lost: check the disk and its staged copy by hand, then remove the session's files.",
     Retry::no},
};

// Rows: from; columns: to; in the order of SessionState. The doc's table says why.
constexpr unsigned kStates = 10;
constexpr bool kAllowed[kStates][kStates] = {
    // to:              prep.  trans. finish cancel keep.  kept   withd. rel.   finished cancelled
    /* preparing */ {true, true, false, true, false, false, false, false, false, false},
    /* transferring */ {false, true, true, true, true, false, false, false, false, false},
    /* finishing */ {false, false, true, false, false, false, false, false, true, false},
    /* cancelling */ {false, false, false, true, false, false, false, false, false, true},
    /* keeping */ {false, false, false, false, false, true, false, false, false, false},
    /* kept */ {false, false, false, false, false, true, true, true, false, false},
    /* withdrawing */ {false, false, false, true, false, false, false, false, false, false},
    /* releasing */ {false, false, false, false, false, false, false, false, true, false},
    /* finished */ {false, false, false, false, false, false, false, false, false, false},
    /* cancelled */ {false, false, false, false, false, false, false, false, false, false},
};

using RecordBytes = std::array<std::byte, kSessionRecordSize>;

RecordBytes encode(const SessionRecord& record, std::uint64_t sequence) {
  RecordBytes bytes{};
  store_le(&bytes[0], kSessionMagic);
  store_le(&bytes[8], kVersion);
  store_le(&bytes[16], sequence);
  store_le(&bytes[24], record.epoch);
  store_le(&bytes[32], record.disk_size);
  store_le(&bytes[40], static_cast<std::uint8_t>(record.state));
  store_le(&bytes[41], static_cast<std::uint8_t>(record.staging));
  store_le(&bytes[42], static_cast<std::uint8_t>(record.format));
  store_le(&bytes[43], static_cast<std::uint8_t>(record.had_old_disk ? 1 : 0));
  store_le(&bytes[44], static_cast<std::uint8_t>(record.whole ? 1 : 0));
  store_le(&bytes[45], static_cast<std::uint8_t>(record.root ? 1 : 0));
  store_le(&bytes[46], static_cast<std::uint8_t>(record.round_ended ? 1 : 0));
  store_le(&bytes[48], record.transfer);
  if (record.root) std::copy(record.root->bytes.begin(), record.root->bytes.end(), &bytes[56]);
  store_identity(&bytes[88], record.kept_identity);
  store_le(&bytes[12], crc_without_field(bytes, 12));
  return bytes;
}

// Nothing when the bytes are no whole record of that place.
std::optional<SessionRecord> decode(Bytes bytes, std::uint64_t sequence) {
  if (load_le<std::uint64_t>(&bytes[0]) != kSessionMagic || load_le<std::uint32_t>(&bytes[8]) != kVersion ||
      load_le<std::uint32_t>(&bytes[12]) != crc_without_field(bytes, 12) ||
      load_le<std::uint64_t>(&bytes[16]) != sequence)
    return std::nullopt;
  const auto state = load_le<std::uint8_t>(&bytes[40]), staging = load_le<std::uint8_t>(&bytes[41]),
             format = load_le<std::uint8_t>(&bytes[42]), had_old_disk = load_le<std::uint8_t>(&bytes[43]),
             whole = load_le<std::uint8_t>(&bytes[44]), root = load_le<std::uint8_t>(&bytes[45]),
             round_ended = load_le<std::uint8_t>(&bytes[46]);
  if (state < 1 || state > kStates || staging < 1 || staging > 4 || format > 2 || had_old_disk > 1 || whole > 1 ||
      root > 1 || round_ended > 1)
    return std::nullopt;
  SessionRecord record;
  record.epoch = load_le<std::uint64_t>(&bytes[24]);
  record.disk_size = load_le<std::uint64_t>(&bytes[32]);
  record.state = static_cast<SessionState>(state);
  record.staging = static_cast<StagingKind>(staging);
  record.format = static_cast<DiskFormat>(format);
  record.had_old_disk = had_old_disk != 0;
  record.whole = whole != 0;
  record.transfer = load_le<std::uint64_t>(&bytes[48]);
  record.round_ended = round_ended != 0;
  if (root != 0) std::copy_n(&bytes[56], sizeof(Sha256::bytes), record.root.emplace().bytes.begin());
  record.kept_identity = load_identity(&bytes[88]);
  return record;
}

static_assert(88 + kIdentitySize == kSessionRecordSize && 56 + sizeof(Sha256::bytes) == 88);
static_assert(static_cast<int>(SessionState::cancelled) == kStates &&
              static_cast<int>(StagingKind::undo_in_place) == 4 && static_cast<int>(DiskFormat::vhdx_fixed) == 2);

class Journal final : public SessionJournal {
 public:
  Journal(std::unique_ptr<File> file, const SessionRecord& last, std::uint64_t next_sequence)
      : file_(std::move(file)), last_(last), next_sequence_(next_sequence) {}

  const SessionRecord& last() const noexcept override { return last_; }

  Result<void> append(const SessionRecord& record) override {
    assert(may_follow(last_.state, record.state));
    const auto bytes = encode(record, next_sequence_);
    BH_RETURN_IF_ERROR(file_->write_at(next_sequence_ * kSessionRecordSize, bytes));
    BH_RETURN_IF_ERROR(file_->sync());
    ++next_sequence_;
    last_ = record;
    return {};
  }

 private:
  std::unique_ptr<File> file_;
  SessionRecord last_;
  std::uint64_t next_sequence_;
};

}  // namespace

const ErrorCategory& journal_category() noexcept {
  static const TableCategory category("journal", kJournalErrors);
  return category;
}

std::string_view to_string(SessionState state) noexcept {
  switch (state) {
    case SessionState::preparing: return "preparing";
    case SessionState::transferring: return "transferring";
    case SessionState::finishing: return "finishing";
    case SessionState::cancelling: return "cancelling";
    case SessionState::keeping: return "keeping";
    case SessionState::kept: return "kept";
    case SessionState::withdrawing: return "withdrawing";
    case SessionState::releasing: return "releasing";
    case SessionState::finished: return "finished";
    case SessionState::cancelled: return "cancelled";
  }
  return "?";
}

bool may_follow(SessionState from, SessionState to) noexcept {
  const auto row = static_cast<unsigned>(from) - 1, column = static_cast<unsigned>(to) - 1;
  return row < kStates && column < kStates && kAllowed[row][column];
}

Result<std::unique_ptr<SessionJournal>> create_session_journal(Storage& storage, std::string_view path,
                                                               const SessionRecord& first) {
  BH_RETURN_IF_ERROR(create_whole_file(storage, path, [&](File& file) { return file.write_at(0, encode(first, 0)); }));
  BH_TRY(auto file, storage.open(path, OpenMode::write));
  return std::unique_ptr<SessionJournal>(std::make_unique<Journal>(std::move(file), first, 1));
}

Result<void> replace_session_journal(Storage& storage, std::string_view path, const SessionRecord& record) {
  return create_whole_file(
      storage, path, [&](File& file) { return file.write_at(0, encode(record, 0)); }, true);
}

Result<std::unique_ptr<SessionJournal>> open_session_journal(Storage& storage, std::string_view path) {
  BH_TRY(auto file, storage.open(path, OpenMode::write));
  BH_RETURN_IF_ERROR(sync_and_drop_cache(*file));
  constexpr std::uint64_t kRecordsPerRead = 512;  // 64 KiB
  std::vector<std::byte> piece(kRecordsPerRead * kSessionRecordSize);
  for (std::uint64_t end = file->size() / kSessionRecordSize; end > 0;) {
    const std::uint64_t begin = end > kRecordsPerRead ? end - kRecordsPerRead : 0;
    const auto bytes = MutableBytes(piece).first((end - begin) * kSessionRecordSize);
    BH_RETURN_IF_ERROR(file->read_at(begin * kSessionRecordSize, bytes));
    for (; end > begin; --end) {
      const auto record =
          decode(Bytes(bytes).subspan((end - 1 - begin) * kSessionRecordSize, kSessionRecordSize), end - 1);
      if (record) return std::unique_ptr<SessionJournal>(std::make_unique<Journal>(std::move(file), *record, end));
    }
  }
  return make_error(JournalErrc::damaged, std::string(path));
}

}  // namespace backhaul
