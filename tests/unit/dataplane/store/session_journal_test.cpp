#include "dataplane/store/session_journal.h"

#include <gtest/gtest.h>

#include <set>
#include <string_view>

#include "checksum/block_digest.h"
#include "sim/sim_random.h"
#include "sim/sim_storage.h"

namespace backhaul {
namespace {

using sim::SimOptions;
using sim::SimRandom;
using sim::SimStorage;

// A letter a state, in the order of the document.
constexpr std::string_view kLetters = "ptfckKwrFC";

SessionRecord record_of(SessionState state, std::uint64_t epoch = 1) {
  SessionRecord record;
  record.state = state;
  record.staging = StagingKind::undo;
  record.format = DiskFormat::vhdx;
  record.epoch = epoch;
  record.disk_size = 0x1122334455667788;
  record.transfer = 0x99aabbccddeeff01;
  record.had_old_disk = true;
  return record;
}

TEST(SessionJournal, GivesBackTheLastRecordAfterReopening) {
  SimStorage storage;
  {
    auto journal = create_session_journal(storage, "s", record_of(SessionState::preparing)).value();
    EXPECT_EQ(journal->last(), record_of(SessionState::preparing));
    ASSERT_TRUE(journal->append(record_of(SessionState::transferring)));
    ASSERT_TRUE(journal->append(record_of(SessionState::transferring, 2)));
  }
  auto journal = open_session_journal(storage, "s").value();
  EXPECT_EQ(journal->last(), record_of(SessionState::transferring, 2));
  ASSERT_TRUE(journal->append(record_of(SessionState::finishing, 2)));
  EXPECT_EQ(open_session_journal(storage, "s").value()->last(), record_of(SessionState::finishing, 2));
}

TEST(SessionJournal, AllowsWhatTheDocumentSaysAndNothingElse) {
  const std::set<std::string> allowed{"pp", "pt", "pc", "tt", "tf", "tc", "tk", "ff", "fF",
                                      "cc", "cC", "kK", "KK", "Kw", "Kr", "wc", "rF"};
  for (std::size_t from = 0; from < kLetters.size(); ++from)
    for (std::size_t to = 0; to < kLetters.size(); ++to) {
      const std::string step{kLetters[from], kLetters[to]};
      EXPECT_EQ(may_follow(static_cast<SessionState>(from + 1), static_cast<SessionState>(to + 1)),
                allowed.contains(step))
          << step;
    }
}

TEST(SessionJournalDeathTest, AnIllegalStepAsserts) {
  SimStorage storage;
  auto journal = create_session_journal(storage, "s", record_of(SessionState::finishing)).value();
  EXPECT_DEATH((void)journal->append(record_of(SessionState::cancelling)), "may_follow");
}

TEST(SessionJournal, ATornTailNeverHappened) {
  SimStorage storage;
  {
    auto journal = create_session_journal(storage, "s", record_of(SessionState::preparing)).value();
    ASSERT_TRUE(journal->append(record_of(SessionState::transferring)));
  }
  const auto whole = storage.content("s");
  for (std::size_t torn = 0; torn < 128; torn += 7) {
    auto file = storage.create("t" + std::to_string(torn)).value();
    ASSERT_TRUE(file->write_at(0, Bytes(whole).first(128 + torn)));
    auto journal = open_session_journal(storage, file->name()).value();
    EXPECT_EQ(journal->last(), record_of(SessionState::preparing)) << torn;
    ASSERT_TRUE(journal->append(record_of(SessionState::cancelling)));
    EXPECT_EQ(open_session_journal(storage, file->name()).value()->last(), record_of(SessionState::cancelling));
  }
}

TEST(SessionJournal, WithoutAWholeRecordIsDamaged) {
  SimStorage storage;
  { (void)create_session_journal(storage, "s", record_of(SessionState::preparing)).value(); }
  const auto whole = storage.content("s");
  for (std::size_t at = 0; at < 128; ++at) {
    auto flipped = whole;
    flipped[at] ^= std::byte{0x10};
    auto file = storage.open("s", OpenMode::write).value();
    ASSERT_TRUE(file->write_at(0, flipped));
    auto journal = open_session_journal(storage, "s");
    ASSERT_TRUE(journal.has_error()) << at;
    EXPECT_EQ(journal.error(), JournalErrc::damaged);
  }
}

TEST(SessionJournal, FindsTheLastRecordOfALongJournal) {
  SimStorage storage;
  auto journal = create_session_journal(storage, "s", record_of(SessionState::preparing)).value();
  for (std::uint64_t epoch = 2; epoch < 1500; ++epoch)
    ASSERT_TRUE(journal->append(record_of(SessionState::preparing, epoch)));
  auto file = storage.open("s", OpenMode::write).value();
  ASSERT_TRUE(file->zero_at(600 * 128, file->size() - 600 * 128));
  EXPECT_EQ(open_session_journal(storage, "s").value()->last().epoch, 600U);
}

// After any crash the journal says what was acknowledged last, or the record whose append was under way.
TEST(SessionJournal, ACrashNeverLosesAnAcknowledgedRecord) {
  const auto first_seed = sim::seed_from_environment(1);
  for (std::uint64_t seed = first_seed; seed < first_seed + sim::share(200); ++seed) {
    SCOPED_TRACE(seed);
    SimRandom random(seed);
    SimStorage storage(SimOptions{.seed = seed});
    std::uint64_t acknowledged = 0, under_way = 1;
    storage.crash_at_operation(1 + random.below(40));
    if (auto journal = create_session_journal(storage, "s", record_of(SessionState::preparing, 1))) {
      acknowledged = 1;
      for (;;) {
        under_way = acknowledged + 1;
        if (!(*journal)->append(record_of(SessionState::preparing, under_way))) break;
        acknowledged = under_way;
      }
    }
    ASSERT_TRUE(storage.crashed());
    storage.restart();
    if (acknowledged == 0 && storage.kind("s").value() == Storage::Kind::none) continue;
    auto journal = open_session_journal(storage, "s");
    ASSERT_TRUE(journal) << journal.error().to_string();
    const auto epoch = (*journal)->last().epoch;
    EXPECT_TRUE(epoch == acknowledged || epoch == under_way) << epoch << " after " << acknowledged;
    ASSERT_TRUE((*journal)->append(record_of(SessionState::cancelling, 99)));
    storage.crash();
    EXPECT_EQ(open_session_journal(storage, "s").value()->last(), record_of(SessionState::cancelling, 99));
  }
}

TEST(SessionJournal, AReplacedOneIsTheOneRecordWhateverWasThere) {
  SimStorage storage;
  auto record = record_of(SessionState::kept);
  record.root = sha256({});
  record.round_ended = true;
  record.kept_identity = {1, 2, 3, -4, 5};
  for (int i = 0; i < 2; ++i) {
    (void)storage.create("s.new");
    ++record.epoch;
    ASSERT_TRUE(replace_session_journal(storage, "s", record));
    EXPECT_EQ(storage.content("s").size(), 128U);
    EXPECT_EQ(open_session_journal(storage, "s").value()->last(), record);
  }
  // root: 32 bytes at 56, said by byte 45; round_ended: byte 46; the identity: 40 bytes at 88.
  EXPECT_EQ(to_hex(storage.content("s")).substr(2 * 40, 2 * 8), "0603010100010100");
  EXPECT_EQ(to_hex(storage.content("s")).substr(2 * 56),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
            "010000000000000002000000000000000300000000000000fcffffffffffffff0500000000000000");
}

TEST(SessionJournal, HasTheDocumentedBytes) {
  SimStorage storage;
  (void)create_session_journal(storage, "s", record_of(SessionState::cancelling, 0x0102)).value();
  EXPECT_EQ(to_hex(storage.content("s")),
            "4248534553534e31010000007416caeb000000000000000002010000000000008877665544332211040301010000000001ffeeddcc"
            "bbaa990000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
            "00000000000000000000000000000000000000000000");
}

}  // namespace
}  // namespace backhaul
