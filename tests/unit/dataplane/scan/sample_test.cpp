// Samples of a disk: which extents are chosen, and how much of what two disks hold differs.
#include "dataplane/scan/sample.h"

#include <gtest/gtest.h>

#include "base/units.h"
#include "dataplane/disk/raw_disk.h"
#include "tests/unit/dataplane/transfer_fixture.h"

namespace backhaul::testing {
namespace {

class Samples : public ::testing::Test {
 protected:
  Samples() {
    parts_.make_hasher = [] { return make_block_hasher(HashKernel::one_buffer); };
    parts_.clock = &clock_;
    parts_.random = &random_;
  }

  std::unique_ptr<Disk> disk(const std::string& name, std::uint64_t size, const std::vector<ByteRange>& data,
                             char fill = 'a') {
    auto file = std::move(*storage_.create(name));
    EXPECT_OK(file->resize(size));
    for (const auto& range : data) {
      const std::vector<std::byte> bytes(range.length, static_cast<std::byte>(fill));
      EXPECT_OK(file->write_at(range.offset, bytes));
    }
    return std::move(*open_raw_disk(std::move(file), 1));
  }
  std::vector<std::uint64_t> pick(const Disk& of, std::size_t count) {
    auto picked = pick_extents(of, count, allocated_);
    EXPECT_OK(picked);
    return *picked;
  }

  SimStorage storage_;
  SimClock clock_;
  SimRandom random_{1};
  DataplaneParts parts_;
  std::uint64_t allocated_ = 0;
};

TEST_F(Samples, an_empty_disk_has_nothing_to_pick) {
  const auto empty = disk("empty", 64 * kMiB, {});
  EXPECT_TRUE(pick(*empty, 8).empty());
  EXPECT_EQ(allocated_, 0u);
}

TEST_F(Samples, picked_extents_hold_data_and_are_spread_over_it) {
  // Data in extents 0 to 3 and 12 to 15, holes between.
  const auto sparse = disk("sparse", 64 * kMiB, {{0, 16 * kMiB}, {48 * kMiB, 16 * kMiB}});
  const auto picked = pick(*sparse, 4);
  EXPECT_EQ(allocated_, 32 * kMiB);
  EXPECT_EQ(picked, (std::vector<std::uint64_t>{1, 3, 13, 15}));
  EXPECT_EQ(pick(*sparse, 64), (std::vector<std::uint64_t>{0, 1, 2, 3, 12, 13, 14, 15}));
}

TEST_F(Samples, equal_disks_differ_in_nothing_and_one_changed_block_counts_as_one) {
  const auto ours = disk("ours", 8 * kMiB, {{0, 8 * kMiB}});
  const auto theirs = disk("theirs", 8 * kMiB, {{0, 8 * kMiB}});
  const std::vector<std::uint64_t> both{0, 1};
  const auto sample = sample_extents(*ours, parts_, both);
  ASSERT_OK(sample);
  EXPECT_EQ(changed_fraction(*sample, *sample_extents(*theirs, parts_, both)), 0);
  const std::vector<std::byte> other(1, std::byte{'b'});
  ASSERT_OK(theirs->file().write_at(kExtentSize + 5 * kBlockSize + 17, other));
  EXPECT_EQ(changed_fraction(*sample, *sample_extents(*theirs, parts_, both)), 1.0 / 256);
}

TEST_F(Samples, what_the_other_disk_lacks_counts_as_changed) {
  const auto ours = disk("ours", 8 * kMiB, {{0, 8 * kMiB}});
  const auto shorter = disk("shorter", 4 * kMiB, {{0, 4 * kMiB}});
  const std::vector<std::uint64_t> both{0, 1};
  const auto sample = sample_extents(*shorter, parts_, both);
  ASSERT_OK(sample);
  EXPECT_EQ(sample->extents.size(), 1u);
  EXPECT_EQ(changed_fraction(*sample_extents(*ours, parts_, both), *sample), 0.5);
  EXPECT_EQ(changed_fraction(DiskSample{}, *sample), 1) << "nothing was compared";
}

TEST_F(Samples, a_short_last_extent_and_holes_are_sampled_as_what_they_read) {
  const std::uint64_t size = kExtentSize + 3 * kBlockSize + 100;
  const auto ours = disk("ours", size, {{kExtentSize + kBlockSize, kBlockSize}});
  const auto theirs = disk("theirs", size, {});
  const std::vector<std::uint64_t> last{1};
  const auto sample = sample_extents(*ours, parts_, last);
  ASSERT_OK(sample);
  EXPECT_EQ(sample->extents.at(0).digests[0], zero_block_digest());
  EXPECT_NE(sample->extents.at(0).digests[1], zero_block_digest());
  EXPECT_EQ(sample->extents.at(0).digests[3], zero_block_digest(100));
  EXPECT_EQ(changed_fraction(*sample, *sample_extents(*theirs, parts_, last)), 0.25);
}

TEST_F(Samples, too_many_extents_are_refused) {
  const auto ours = disk("ours", kExtentSize, {});
  EXPECT_FALSE(sample_extents(*ours, parts_, std::vector<std::uint64_t>(kMaxSampleExtents + 1)));
}

}  // namespace
}  // namespace backhaul::testing
