// Jobs' view of the data plane over the real engine: rounds both ways, what is staged, swapped, given back and
// released, and what a lost host agent does to it.
#include "control/agents/engine_data_plane.h"

#include "control/model/control_error.h"
#include "tests/unit/control/agents/two_sites.h"

namespace backhaul::testing {
namespace {

constexpr std::size_t kSize = 6 * kMiB + 100 * kKiB;
const DiskRef kHere{"", "web-os.img"};
const DiskRef kThere{"hv01", "web/os.img"};

class EnginePlane : public TwoSites {
 protected:
  EnginePlane() {
    fs::create_directories(primary_->root / "web");
    old_ = noise(kSize, 1);
    now_ = old_;
    now_.replace(3 * kMiB, 5, "fresh");
    recovery_->write("web-os.img", now_);
    primary_->write("web/os.img", old_);
  }
  TargetStatus look(const DiskRef& disk) {
    const auto found = plane_->query_disk(disk);
    EXPECT_TRUE(found) << found.error().to_string();
    return found ? *found : TargetStatus{};
  }
  // A full round of some seconds, of which a part is done.
  Result<RoundHandle> start_slowly(const DiskRef& source, const DiskRef& target) {
    auto slow = round(source, target, 1);
    slow.sync = DataSync::for_synchronization;
    slow.limit_bytes_per_s = 2 * kMiB;
    BH_TRY(const auto handle, plane_->start_round(slow));
    while (plane_->poll_round(handle)->progress.bytes_done == 0 && !plane_->poll_round(handle)->ended)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return handle;
  }
  std::string old_, now_;
};

#define EXPECT_SUCCEEDED(result) EXPECT_EQ(why_failed(result), "")

TEST_F(EnginePlane, a_round_stages_what_differs_and_leaves_the_old_disk_its_name) {
  const auto sent = finish(round(kHere, kThere, 1));
  EXPECT_SUCCEEDED(sent);
  EXPECT_EQ(sent->blocks_changed, 1u);
  EXPECT_EQ(sent->disk_bytes, kSize);
  EXPECT_EQ(sent->root_digest_source.size(), 64u);
  EXPECT_EQ(sent->root_digest_source, sent->root_digest_target);
  EXPECT_EQ(look(kThere).state, TargetState::staged);
  EXPECT_EQ(look(kThere).epoch, 1u);
}

TEST_F(EnginePlane, rounds_go_on_with_what_is_staged_and_the_swap_keeps_the_old_disk_until_released) {
  EXPECT_SUCCEEDED(finish(round(kHere, kThere, 1)));
  now_.replace(kMiB, 4, "more");
  recovery_->write("web-os.img", now_);
  auto second = round(kHere, kThere, 2);
  second.changed = {{kMiB, 4}};
  const auto sent = finish(second);
  EXPECT_SUCCEEDED(sent);
  EXPECT_EQ(sent->bytes_read, kBlockSize) << "only what the tracker named is read";
  EXPECT_EQ(sent->root_digest_source.size(), 64u) << "known from the round before";
  EXPECT_EQ(sent->root_digest_source, sent->root_digest_target);
  ASSERT_TRUE(plane_->swap_disk(kThere, 3));
  EXPECT_EQ(primary_->read("web/os.img"), now_);
  EXPECT_EQ(look(kThere).state, TargetState::swapped);
  EXPECT_TRUE(plane_->swap_disk(kThere, 4)) << "twice is once";
  ASSERT_TRUE(plane_->release_old(kThere, 5));
  EXPECT_EQ(look(kThere).state, TargetState::plain);
  EXPECT_TRUE(plane_->release_old(kThere, 6)) << "twice is once";
  EXPECT_EQ(primary_->read("web/os.img"), now_);
}

TEST_F(EnginePlane, the_old_disk_comes_back_before_and_after_the_swap) {
  EXPECT_SUCCEEDED(finish(round(kHere, kThere, 1)));
  ASSERT_TRUE(plane_->give_back(kThere, 2));
  EXPECT_EQ(primary_->read("web/os.img"), old_);
  EXPECT_EQ(look(kThere).state, TargetState::plain);
  EXPECT_TRUE(plane_->give_back(kThere, 3)) << "there is nothing to give back";
  EXPECT_SUCCEEDED(finish(round(kHere, kThere, 4)));
  ASSERT_TRUE(plane_->swap_disk(kThere, 5));
  ASSERT_TRUE(plane_->give_back(kThere, 6));
  EXPECT_EQ(primary_->read("web/os.img"), old_);
}

TEST_F(EnginePlane, a_kept_disk_that_the_vm_wrote_to_is_released_instead_of_given_back) {
  EXPECT_SUCCEEDED(finish(round(kHere, kThere, 1)));
  ASSERT_TRUE(plane_->swap_disk(kThere, 2));
  now_.replace(0, 4, "boot");
  primary_->write("web/os.img", now_);
  const auto undone = plane_->give_back(kThere, 3);
  ASSERT_TRUE(undone) << undone.error().to_string();
  EXPECT_EQ(look(kThere).state, TargetState::plain);
  EXPECT_SUCCEEDED(finish(round(kHere, kThere, 4)));
}

TEST_F(EnginePlane, retries_inside_a_round_leave_the_jobs_epochs_their_order) {
  EXPECT_SUCCEEDED(finish(round(kHere, kThere, 1)));
  // What a send does that lost its link: it opens again, under the next epoch on the wire.
  SendRequest again;
  again.source = (recovery_->root / "web-os.img").string();
  again.target = {{"127.0.0.1", agent_->port()}, kThere.path};
  again.swap = false;
  for (int i = 0; i < 3; ++i) {
    const auto sent = send_disk(again, *clients_.at("hv01")->tls(), recovery_->parts);
    ASSERT_TRUE(sent) << sent.error().to_string();
  }
  EXPECT_EQ(look(kThere).epoch, 2u) << "taken up by whoever asks";
  EXPECT_TRUE(plane_->swap_disk(kThere, 2));
}

TEST_F(EnginePlane, an_epoch_that_is_not_new_is_refused) {
  EXPECT_SUCCEEDED(finish(round(kHere, kThere, 7)));
  ASSERT_TRUE(plane_->give_back(kThere, 8));
  const auto late = finish(round(kHere, kThere, 7));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().symbol(), "session.fenced") << why_failed(late);
  EXPECT_EQ(primary_->read("web/os.img"), old_);
}

TEST_F(EnginePlane, the_way_back_sends_from_the_agent_onto_the_own_store) {
  const auto sent = finish(round(kThere, kHere, 1));
  EXPECT_SUCCEEDED(sent);
  EXPECT_EQ(sent->blocks_changed, 1u);
  EXPECT_EQ(sent->root_digest_source, sent->root_digest_target);
  EXPECT_EQ(look(kHere).state, TargetState::staged);
  ASSERT_TRUE(plane_->swap_disk(kHere, 2));
  EXPECT_EQ(recovery_->read("web-os.img"), old_);
  ASSERT_TRUE(plane_->release_old(kHere, 3));
  EXPECT_EQ(look(kHere).state, TargetState::plain);
}

TEST_F(EnginePlane, the_way_back_knows_the_root_of_a_round_with_changed_extents_alone) {
  EXPECT_SUCCEEDED(finish(round(kThere, kHere, 1)));
  old_.replace(5 * kMiB, 3, "new");
  primary_->write("web/os.img", old_);
  auto second = round(kThere, kHere, 2);
  second.changed = {{5 * kMiB, 3}};
  const auto sent = finish(second);
  EXPECT_SUCCEEDED(sent);
  EXPECT_EQ(sent->bytes_read, kBlockSize);
  EXPECT_EQ(sent->root_digest_source.size(), 64u);
  EXPECT_EQ(sent->root_digest_source, sent->root_digest_target);
}

TEST_F(EnginePlane, without_the_round_before_a_list_of_changes_is_not_believed) {
  EXPECT_SUCCEEDED(finish(round(kHere, kThere, 1)));
  connect();  // the digests of the round before are gone with the process
  now_.replace(kMiB, 4, "more");
  recovery_->write("web-os.img", now_);
  auto hinted = round(kHere, kThere, 2);
  hinted.changed.emplace();
  const auto sent = finish(hinted);
  EXPECT_SUCCEEDED(sent);
  EXPECT_EQ(sent->root_digest_source, sent->root_digest_target);
  ASSERT_TRUE(plane_->swap_disk(kThere, 3));
  EXPECT_EQ(primary_->read("web/os.img"), now_) << "everything was compared";
}

TEST_F(EnginePlane, what_a_vm_wrote_since_its_disk_was_delivered_is_read_and_nothing_else) {
  EXPECT_SUCCEEDED(finish(round(kHere, kThere, 1)));
  ASSERT_TRUE(plane_->swap_disk(kThere, 2));
  const auto delivered = look(kThere).root_digest;
  EXPECT_EQ(delivered.size(), 64u);
  const auto kept = now_;
  now_.replace(5 * kMiB, 3, "new");
  primary_->write("web/os.img", now_);
  EXPECT_EQ(look(kThere).root_digest, "") << "too late to say that nobody has written to it";
  ASSERT_TRUE(plane_->release_old(kThere, 3));
  agent_->stop();  // neither process remembers anything
  agent_->start();
  connect();

  auto back = round(kThere, kHere, 1);
  back.changed = {{5 * kMiB, 3}};
  back.base_root = delivered;
  back.verify = VerifyMode::full;
  recovery_->write("web-os.img", std::string(kept).replace(kMiB, 5, "wrong"));  // not what was sent
  const auto refused = finish(back);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().symbol(), "verify.root_differs") << why_failed(refused);
  ASSERT_TRUE(plane_->give_back(kHere, 2));

  recovery_->write("web-os.img", kept);
  back.epoch = 3;
  const auto sent = finish(back);
  EXPECT_SUCCEEDED(sent);
  EXPECT_EQ(sent->bytes_read, kBlockSize);
  EXPECT_EQ(sent->root_digest_source.size(), 64u);
  EXPECT_EQ(sent->root_digest_source, sent->root_digest_target);
  ASSERT_TRUE(plane_->swap_disk(kHere, 4));
  EXPECT_EQ(recovery_->read("web-os.img"), now_);
}

TEST_F(EnginePlane, a_delivery_that_is_not_known_any_more_is_no_base) {
  EXPECT_SUCCEEDED(finish(round(kHere, kThere, 1)));
  ASSERT_TRUE(plane_->swap_disk(kThere, 2));
  const auto delivered = look(kThere).root_digest;
  ASSERT_TRUE(plane_->release_old(kThere, 3));
  fs::remove(primary_->root / "web/.os.img.digests");
  now_.replace(5 * kMiB, 3, "new");
  primary_->write("web/os.img", now_);
  auto back = round(kThere, kHere, 1);
  back.changed.emplace();  // a tracker that missed it
  back.base_root = delivered;
  const auto sent = finish(back);
  EXPECT_SUCCEEDED(sent);
  ASSERT_TRUE(plane_->swap_disk(kHere, 2));
  EXPECT_EQ(recovery_->read("web-os.img"), now_) << "everything was compared";
}

TEST_F(EnginePlane, a_full_round_needs_no_old_disk) {
  fs::remove(primary_->root / "web/os.img");
  EXPECT_EQ(look(kThere).state, TargetState::absent);
  auto full = round(kHere, kThere, 1);
  full.sync = DataSync::for_synchronization;
  full.verify = VerifyMode::none;
  full.target_format = DiskFormat::vhdx;
  const auto sent = finish(full);
  EXPECT_SUCCEEDED(sent);
  EXPECT_TRUE(sent->root_digest_target.empty());
  ASSERT_TRUE(plane_->swap_disk(kThere, 2));
  EXPECT_EQ(look(kThere).format, DiskFormat::vhdx);
}

TEST_F(EnginePlane, a_cancelled_round_writes_nothing_more) {
  const auto handle = start_slowly(kHere, kThere);
  ASSERT_TRUE(handle);
  ASSERT_TRUE(plane_->cancel_round(*handle));
  EXPECT_EQ(wait_for(*handle).error(), make_error_code(BaseErrc::cancelled));
  plane_->forget_round(*handle);
  ASSERT_TRUE(plane_->give_back(kThere, 2));
  EXPECT_EQ(primary_->read("web/os.img"), old_);
}

TEST_F(EnginePlane, a_cancelled_round_on_the_way_back_is_confirmed_by_the_agent) {
  const auto handle = start_slowly(kThere, kHere);
  ASSERT_TRUE(handle);
  ASSERT_TRUE(plane_->cancel_round(*handle));
  EXPECT_EQ(wait_for(*handle).error(), make_error_code(BaseErrc::cancelled));
  plane_->forget_round(*handle);
  ASSERT_TRUE(plane_->give_back(kHere, 2));
  EXPECT_EQ(recovery_->read("web-os.img"), now_);
}

TEST_F(EnginePlane, an_agent_that_is_restarted_in_the_middle_fails_the_round_and_a_repeated_one_ends_well) {
  const auto handle = start_slowly(kThere, kHere);
  ASSERT_TRUE(handle);
  agent_->stop();
  agent_->start();
  const auto failed = wait_for(*handle);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().retry(), Retry::later) << why_failed(failed);
  plane_->forget_round(*handle);
  const auto again = finish(round(kThere, kHere, 2));
  EXPECT_SUCCEEDED(again);
  ASSERT_TRUE(plane_->swap_disk(kHere, 3));
  EXPECT_EQ(recovery_->read("web-os.img"), old_);
}

TEST_F(EnginePlane, an_appliance_that_is_restarted_goes_on_under_a_new_epoch) {
  EXPECT_SUCCEEDED(finish(round(kHere, kThere, 1)));
  connect();
  EXPECT_SUCCEEDED(finish(round(kHere, kThere, 2)));
  ASSERT_TRUE(plane_->swap_disk(kThere, 3));
  EXPECT_EQ(primary_->read("web/os.img"), now_);
}

TEST_F(EnginePlane, a_source_outside_the_store_is_not_read_on_either_side) {
  std::ofstream(directory_.path() / "secret") << "secret";
  const auto secret = (directory_.path() / "secret").string();
  const auto here = finish(round({"", secret}, kThere, 1));
  ASSERT_FALSE(here);
  EXPECT_EQ(here.error().symbol(), "io.outside_store") << why_failed(here);
  const auto there = finish(round({"hv01", secret}, kHere, 1));
  ASSERT_FALSE(there);
  EXPECT_EQ(there.error().symbol(), "io.outside_store") << why_failed(there);
  EXPECT_FALSE(plane_->query_disk({"", secret}));
  EXPECT_FALSE(plane_->query_disk({"hv01", secret}));
}

TEST_F(EnginePlane, reports_say_what_both_sites_have) {
  const auto there = plane_->host_report("hv01");
  ASSERT_TRUE(there) << there.error().to_string();
  EXPECT_GT(there->free_bytes, 0u);
  EXPECT_EQ(there->networks, std::vector<std::string>{"LAN"});
  EXPECT_EQ(there->formats, (std::vector<std::string>{"raw", "vhdx", "vhdx-fixed"}));
  EXPECT_GT(there->certificate_ends_unix_s, there->unix_time_s + 86400);
  EXPECT_TRUE(plane_->host_report(""));
  const auto unknown = plane_->host_report("hv99");
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error(), make_error_code(ControlErrc::not_found));
  agent_->stop();
  const auto gone = plane_->host_report("hv01");
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error(), make_error_code(ControlErrc::host_unreachable)) << gone.error().to_string();
}

TEST_F(EnginePlane, samples_compare_both_sides_whichever_is_the_source) {
  for (const auto& [source, target] : {std::pair(kHere, kThere), std::pair(kThere, kHere)}) {
    const auto sample = plane_->sample(source, target);
    ASSERT_TRUE(sample) << sample.error().to_string();
    EXPECT_TRUE(sample->target_exists);
    EXPECT_EQ(sample->allocated_bytes, kSize);
    // One block of 196; the last one is short.
    EXPECT_DOUBLE_EQ(sample->changed_fraction, 1.0 / 196);
  }
  const auto absent = plane_->sample(kHere, {"hv01", "none.img"});
  ASSERT_TRUE(absent) << absent.error().to_string();
  EXPECT_FALSE(absent->target_exists);
}

}  // namespace
}  // namespace backhaul::testing
