// How a target disk is staged: names, what an open may ask for, and what is left of a run that ended anywhere.
#include "dataplane/store/staging.h"

#include <gtest/gtest.h>

#include "dataplane/protocol/engine_error.h"
#include "dataplane/store/undo.h"
#include "unit/dataplane/transfer_fixture.h"

namespace backhaul {
namespace {

using namespace testing;

template <class Value>
void expect_error(const Result<Value>& result, std::error_code code) {
  ASSERT_TRUE(result.has_error());
  EXPECT_EQ(result.error(), code) << result.error().to_string();
}

TEST(DiskPaths, StandBesideTheDisk) {
  const auto paths = DiskPaths::of("vms/web 1/disk.vhdx");
  ASSERT_OK(paths);
  EXPECT_EQ(paths->disk, "vms/web 1/disk.vhdx");
  EXPECT_EQ(paths->directory, "vms/web 1/.disk.vhdx.backhaul");
  EXPECT_EQ(paths->journal, "vms/web 1/.disk.vhdx.backhaul/journal");
  EXPECT_EQ(paths->index, "vms/web 1/.disk.vhdx.backhaul/index");
  EXPECT_EQ(paths->undo, "vms/web 1/.disk.vhdx.backhaul/undo");
  EXPECT_EQ(paths->staged, "vms/web 1/.disk.vhdx.backhaul/staged");
  EXPECT_EQ(paths->digests, "vms/web 1/.disk.vhdx.digests");
  EXPECT_EQ(DiskPaths::of("d")->directory, ".d.backhaul");
}

TEST(DiskPaths, NamesThatLeadOutsideOrAreOursAreRefused) {
  for (const auto& name :
       {std::string(), std::string("/"), std::string("/d"), std::string("d/"), std::string("a//d"), std::string("."),
        std::string(".."), std::string("../d"), std::string("a/../d"), std::string("a/./d"), std::string(".d"),
        std::string(".d.backhaul/staged"), std::string("a/.hidden/d"), std::string("a\nb"), std::string("a\x7f"),
        std::string("a\0b", 3), std::string("a\\b"), std::string(201, 'x'), "a/" + std::string(201, 'x')})
    expect_error(DiskPaths::of(name), EngineErrc::bad_disk_name);
  for (const auto& name : {std::string("d"), std::string(200, 'x'), std::string("a/b/c/d.raw"), std::string("\xc3\xa4"),
                           std::string("a..b"), std::string("d.backhaul"), std::string("-rf")})
    EXPECT_OK(DiskPaths::of(name));
}

constexpr std::uint64_t kDiskSize = kExtentSize + 1024;

class StagingTest : public ::testing::Test {
 protected:
  explicit StagingTest(bool reflink = true) : storage_(SimOptions{.reflink = reflink}) {}
  OpenRequest request(std::uint64_t size = kDiskSize) {
    OpenRequest request;
    request.disk = "disk";
    request.size = size;
    return request;
  }
  Result<StagedDisk> open(const OpenRequest& request, std::uint64_t epoch = 1) {
    return open_staged_disk(storage_, random_, paths_, request, epoch);
  }
  void make_old_disk(DiskFormat format = DiskFormat::raw, std::uint64_t size = kDiskSize) {
    make_disk(storage_, "disk", format, random_pattern(random_, size));
    old_ = storage_.content("disk");
  }
  void expect_untouched() {
    EXPECT_TRUE(storage_.content("disk") == old_);
    expect_no_leftovers(storage_, "disk");
  }

  SimStorage storage_;
  SimRandom random_{1};
  const DiskPaths paths_ = DiskPaths::of("disk").value();
  Content old_;
};

TEST_F(StagingTest, ADiskOfAnotherSizeIsRefusedAndStaysAsItIs) {
  for (const auto format : {DiskFormat::raw, DiskFormat::vhdx, DiskFormat::vhdx_fixed}) {
    make_old_disk(format);
    for (const auto sync : {SyncMode::delta, SyncMode::full}) {
      auto asked = request(kDiskSize + 513);
      asked.sync = sync;
      expect_error(open(asked), EngineErrc::target_too_small);
      expect_untouched();
      asked.size = kDiskSize - 512;
      expect_error(open(asked), EngineErrc::target_size_differs);
      expect_untouched();
    }
  }
}

TEST_F(StagingTest, AVhdxMayBeLongerByLessThanASector) {
  make_old_disk(DiskFormat::vhdx);
  auto staged = open(request(kDiskSize - 511));
  ASSERT_OK(staged);
  EXPECT_EQ(staged->disk->size(), kDiskSize);
  make_old_disk(DiskFormat::raw);
  ASSERT_OK(give_back_old_disk(storage_, paths_));
  expect_error(open(request(kDiskSize - 511)), EngineErrc::target_size_differs);
}

TEST_F(StagingTest, AnotherFormatIsRefusedForADeltaAndReplacedByAFullCopy) {
  make_old_disk(DiskFormat::vhdx);
  auto asked = request();
  asked.format = DiskFormat::raw;
  expect_error(open(asked), EngineErrc::format_mismatch);
  expect_untouched();
  asked.sync = SyncMode::full;
  asked.changed_only = true;
  expect_error(open(asked), EngineErrc::format_mismatch);
  expect_untouched();
  asked.changed_only = false;
  auto staged = open(asked);
  ASSERT_OK(staged);
  EXPECT_EQ(staged->disk->format(), DiskFormat::raw);
  EXPECT_TRUE(staged->blank);
  EXPECT_TRUE(storage_.content("disk") == old_);
}

TEST_F(StagingTest, ANewDiskHasTheFormatAskedForOrThatOfItsName) {
  struct Row {
    const char* name;
    std::optional<DiskFormat> asked;
    DiskFormat expected;
  };
  for (const auto& row :
       {Row{"a", std::nullopt, DiskFormat::raw}, Row{"a.vhdx", std::nullopt, DiskFormat::vhdx},
        Row{"A.VhdX", std::nullopt, DiskFormat::vhdx}, Row{"vhdx", std::nullopt, DiskFormat::raw},
        Row{"b.vhdx", DiskFormat::raw, DiskFormat::raw}, Row{"b", DiskFormat::vhdx_fixed, DiskFormat::vhdx_fixed}}) {
    auto asked = request();
    asked.disk = row.name;
    asked.format = row.asked;
    auto staged = open_staged_disk(storage_, random_, DiskPaths::of(row.name).value(), asked, 1);
    ASSERT_OK(staged);
    EXPECT_EQ(staged->disk->format(), row.expected) << row.name;
  }
}

TEST_F(StagingTest, ChangedExtentsNeedADiskBelowThem) {
  auto asked = request();
  asked.changed_only = true;
  for (const auto sync : {SyncMode::delta, SyncMode::full}) {
    asked.sync = sync;
    expect_error(open(asked), EngineErrc::no_base);
  }
  EXPECT_TRUE(storage_.list("").value().empty());
  make_old_disk();
  auto staged = open(asked);  // even a full copy of changed extents keeps the rest
  ASSERT_OK(staged);
  EXPECT_FALSE(staged->blank);
  EXPECT_TRUE(storage_.content(paths_.staged) == old_);
}

TEST_F(StagingTest, ADiskThatNobodyCanHaveIsRefused) {
  expect_error(open(request(kMaxDiskSize + 1)), BaseErrc::invalid_argument);
  expect_error(open(request(std::uint64_t{1} << 62)), BaseErrc::invalid_argument);
  EXPECT_TRUE(storage_.list("").value().empty());
}

TEST_F(StagingTest, ADirectoryAtTheNameIsNoDisk) {
  ASSERT_OK(storage_.make_directory("disk"));
  expect_error(open(request()), IoErrc::not_a_disk);
}

TEST_F(StagingTest, AnUnfinishedTransferGoesOnOnlyWithItsSizeAndFormat) {
  make_old_disk();
  ASSERT_OK(open(request()));
  auto other = request(kDiskSize + 512);
  expect_error(open(other), EngineErrc::session_mismatch);
  // Less than 4096 short: a VHDX of that size would be padded, a raw disk would not.
  expect_error(open(request(kDiskSize - 100)), EngineErrc::session_mismatch);
  other = request();
  other.format = DiskFormat::vhdx;
  expect_error(open(other), EngineErrc::session_mismatch);
  auto again = open(request(), 5);
  ASSERT_OK(again);
  EXPECT_TRUE(again->resumed);
  EXPECT_EQ(recorded_session(storage_, paths_).value()->epoch, 5U);
}

TEST_F(StagingTest, CloneIsAnErrorWhereItWasAskedForAndCannotBe) {
  SimStorage storage(SimOptions{.reflink = false});
  make_disk(storage, "disk", DiskFormat::raw, random_pattern(random_, kDiskSize));
  const auto old = storage.content("disk");
  auto asked = request();
  asked.staging = StagingChoice::clone;
  expect_error(open_staged_disk(storage, random_, paths_, asked, 1), IoErrc::clone_unsupported);
  EXPECT_TRUE(storage.content("disk") == old);
  expect_no_leftovers(storage, "disk");
  asked.staging = StagingChoice::automatic;
  auto staged = open_staged_disk(storage, random_, paths_, asked, 1);
  ASSERT_OK(staged);
  EXPECT_EQ(staged->journal->last().staging, StagingKind::undo);
}

TEST_F(StagingTest, TheDigestsOfABlockDeviceAreNeverBelieved) {
  storage_.add_block_device("disk", 2 * kExtentSize);
  for (int round = 0; round < 2; ++round) {
    auto staged = open(request(2 * kExtentSize));
    ASSERT_OK(staged);
    EXPECT_EQ(staged->journal->last().staging, StagingKind::undo_in_place);
    EXPECT_EQ(staged->index->state(0), ExtentState::unknown);
    ASSERT_OK(staged->index->store_zero_run(0, 2));
    ASSERT_OK(finish_staged_disk(storage_, paths_, std::move(*staged), true));
    auto device = storage_.open("disk", OpenMode::write).value();
    ASSERT_OK(device->write_at(5, Content(10, std::byte{1})));
  }
}

TEST_F(StagingTest, TheDigestsOfAFileAreBelievedUntilSomeoneWritesToIt) {
  make_old_disk();
  for (const bool written : {false, true}) {
    auto staged = open(request());
    ASSERT_OK(staged);
    ASSERT_OK(staged->index->store_zero_run(0, 1));
    ASSERT_OK(finish_staged_disk(storage_, paths_, std::move(*staged), true));
    if (written) {
      auto file = storage_.open("disk", OpenMode::write).value();
      ASSERT_OK(file->write_at(5, Content(10, std::byte{1})));
    }
    auto again = open(request());
    ASSERT_OK(again);
    EXPECT_EQ(again->index->state(0), written ? ExtentState::unknown : ExtentState::zero);
    again = make_error(BaseErrc::cancelled);
    ASSERT_OK(give_back_old_disk(storage_, paths_));
  }
}

TEST_F(StagingTest, ADamagedIndexOfAnUnfinishedTransferCostsOnlyAReading) {
  ASSERT_OK(open(request()));
  {
    auto file = storage_.open(paths_.index, OpenMode::write).value();
    ASSERT_OK(file->write_at(0, Content(100, std::byte{7})));
  }
  auto again = open(request());
  ASSERT_OK(again);
  EXPECT_TRUE(again->resumed);
  EXPECT_EQ(again->index->state(0), ExtentState::unknown);
}

TEST_F(StagingTest, ADamagedJournalBesideAStagedDiskIsAnErrorThatChangesNothing) {
  make_old_disk();
  auto asked = request();
  asked.staging = StagingChoice::undo;
  ASSERT_OK(open(asked));
  {
    auto file = storage_.open(paths_.journal, OpenMode::write).value();
    ASSERT_OK(file->write_at(0, Content(file->size(), std::byte{7})));
  }
  expect_error(open(asked), EngineErrc::session_damaged);
  expect_error(give_back_old_disk(storage_, paths_), EngineErrc::session_damaged);
  const auto leftovers = recover_store(storage_);
  ASSERT_OK(leftovers);
  ASSERT_EQ(leftovers->size(), 1U);
  EXPECT_EQ(leftovers->front().disk, "disk");
  EXPECT_TRUE(leftovers->front().error->is(EngineErrc::session_damaged));
  EXPECT_TRUE(storage_.content(paths_.staged) == old_);
}

TEST_F(StagingTest, AnEmptySessionDirectoryIsCleared) {
  ASSERT_OK(storage_.make_directory(paths_.directory));
  const auto leftovers = recover_store(storage_);
  ASSERT_OK(leftovers);
  EXPECT_EQ(leftovers->front().recovery, Recovery::none);
  EXPECT_EQ(leftovers->front().to_string(), "removed an empty session");
  EXPECT_TRUE(storage_.list("").value().empty());
}

// Every state that a dead host agent can leave, for every staging; and each once more, half settled.
class LeftoverTest : public StagingTest, public ::testing::WithParamInterface<StagingKind> {
 protected:
  // An old disk, staged, a little overwritten, with a last record of `state`.
  void leave(SessionState state) {
    const bool device = GetParam() == StagingKind::undo_in_place;
    if (device) {
      ASSERT_OK(storage_.remove("disk"));
      storage_.add_block_device("disk", kDiskSize);
      old_ = storage_.content("disk");
    } else {
      make_old_disk();
    }
    auto asked = request();
    if (GetParam() == StagingKind::fresh) asked.sync = SyncMode::full;
    if (GetParam() == StagingKind::clone) asked.staging = StagingChoice::clone;
    if (GetParam() == StagingKind::undo) asked.staging = StagingChoice::undo;
    auto staged = open(asked);
    ASSERT_OK(staged);
    ASSERT_EQ(staged->journal->last().staging, GetParam());
    ASSERT_OK(staged->disk->file().write_at(kBlockSize, Content(5, std::byte{0x77})));
    ASSERT_OK(staged->disk->checkpoint());
    new_ = storage_.content(device ? "disk" : paths_.staged);
    if (state == SessionState::preparing) {
      // The same files under a journal that never got further.
      auto record = staged->journal->last();
      record.state = SessionState::preparing;
      staged->journal.reset();
      ASSERT_OK(storage_.remove(paths_.journal));
      ASSERT_OK(create_session_journal(storage_, paths_.journal, record));
    } else if (state != SessionState::transferring) {
      auto record = staged->journal->last();
      record.state = state;
      ASSERT_OK(staged->journal->append(record));
    }
  }
  Content new_;
};

TEST_P(LeftoverTest, IsSettledAtTheStartWhateverItsState) {
  for (const auto state :
       {SessionState::preparing, SessionState::transferring, SessionState::finishing, SessionState::cancelling}) {
    SCOPED_TRACE(to_string(state));
    ASSERT_NO_FATAL_FAILURE(leave(state));
    const auto leftovers = recover_store(storage_);
    ASSERT_OK(leftovers);
    ASSERT_EQ(leftovers->size(), 1U);
    EXPECT_EQ(leftovers->front().disk, "disk");
    if (state == SessionState::transferring) {
      EXPECT_EQ(leftovers->front().recovery, Recovery::resumable);
      EXPECT_EQ(leftovers->front().record.staging, GetParam());
      EXPECT_TRUE(give_back_old_disk(storage_, paths_).value());
    } else {
      EXPECT_EQ(leftovers->front().recovery,
                state == SessionState::finishing ? Recovery::finished : Recovery::gave_back);
      EXPECT_FALSE(give_back_old_disk(storage_, paths_).value());
    }
    EXPECT_TRUE(storage_.content("disk") == (state == SessionState::finishing ? new_ : old_));
    expect_no_leftovers(storage_, "disk");
    EXPECT_TRUE(recover_store(storage_)->empty());
  }
}

TEST_P(LeftoverTest, IsSettledEvenWhenThePowerGoesAgainAndAgain) {
  for (const auto state : {SessionState::preparing, SessionState::finishing, SessionState::cancelling})
    for (std::uint64_t operation = 1;; operation += sim::kFaultStride) {
      SCOPED_TRACE(std::string(to_string(state)) + " " + std::to_string(operation));
      ASSERT_NO_FATAL_FAILURE(leave(state));
      storage_.crash_at_operation(operation);
      (void)recover_store(storage_);
      if (!storage_.crashed()) {
        storage_.clear_faults();
        break;
      }
      storage_.restart();
      ASSERT_OK(recover_store(storage_));
      EXPECT_TRUE(storage_.content("disk") == (state == SessionState::finishing ? new_ : old_));
      expect_no_leftovers(storage_, "disk");
    }
}

INSTANTIATE_TEST_SUITE_P(Every, LeftoverTest,
                         ::testing::Values(StagingKind::fresh, StagingKind::clone, StagingKind::undo,
                                           StagingKind::undo_in_place),
                         [](const auto& kind) {
                           std::string name(to_string(kind.param));
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace backhaul
