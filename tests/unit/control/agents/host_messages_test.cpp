// The JSON between appliance and host agent: there and back, and what is refused.
#include "control/agents/host_messages.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "control/model/control_error.h"

namespace backhaul {
namespace {

boost::json::object through_text(const boost::json::object& object) {
  return boost::json::parse(boost::json::serialize(object)).as_object();
}

SendCall sample_send() {
  SendCall call;
  call.id = "a1b2-c3";
  call.source = "vm/os.vhdx";
  call.disk = "web01-os.img";
  call.sync = SyncMode::full;
  call.verify = VerifyMode::full;
  call.format = DiskFormat::vhdx_fixed;
  call.changed = {{0, 65536}, {1 << 20, 4096}};
  call.compress = CompressMode::zstd;
  call.lanes = 3;
  call.limit_bytes_per_s = 1000;
  call.epoch = 17;
  return call;
}

TEST(HostMessages, a_send_call_comes_through) {
  const auto sent = sample_send();
  const auto read = send_call_from_json(through_text(to_json(sent)));
  ASSERT_TRUE(read) << read.error().to_string();
  EXPECT_EQ(read->id, sent.id);
  EXPECT_EQ(read->source, sent.source);
  EXPECT_EQ(read->disk, sent.disk);
  EXPECT_EQ(read->sync, sent.sync);
  EXPECT_EQ(read->verify, sent.verify);
  EXPECT_EQ(read->format, sent.format);
  EXPECT_EQ(read->changed, sent.changed);
  EXPECT_EQ(read->compress, sent.compress);
  EXPECT_EQ(read->lanes, sent.lanes);
  EXPECT_EQ(read->limit_bytes_per_s, sent.limit_bytes_per_s);
  EXPECT_EQ(read->epoch, sent.epoch);
}

TEST(HostMessages, no_list_of_changes_is_not_an_empty_one) {
  auto call = sample_send();
  call.changed.reset();
  EXPECT_FALSE(send_call_from_json(through_text(to_json(call)))->changed.has_value());
  call.changed.emplace();
  EXPECT_TRUE(send_call_from_json(through_text(to_json(call)))->changed.has_value());
}

TEST(HostMessages, a_bad_send_call_is_refused_by_its_field) {
  const auto refused = [](std::string_view field, const boost::json::value& value) {
    auto body = to_json(sample_send());
    body[field] = value;
    const auto read = send_call_from_json(body);
    ASSERT_FALSE(read) << field;
    EXPECT_EQ(read.error(), make_error_code(ControlErrc::invalid));
    EXPECT_NE(read.error().cause().find(field), std::string::npos) << read.error().cause();
  };
  refused("id", "");
  refused("id", "a/b");
  refused("id", std::string(65, 'a').c_str());
  refused("lanes", 0);
  refused("lanes", 17);
  refused("sync", "sideways");
  refused("epoch", -1);
  refused("changed", boost::json::array{{{"offset", 18446744073709551615u}, {"length", 2}}});
  auto body = to_json(sample_send());
  body.erase("disk");
  EXPECT_FALSE(send_call_from_json(body));
}

TEST(HostMessages, a_view_of_a_send_comes_through_in_each_of_its_states) {
  SendTask::View view;
  view.progress.phase = "transfer";
  view.progress.bytes_done = 5;
  view.progress.bytes_total = 10;
  view.progress.bytes_per_s = 2.5;
  auto read = send_view_from_json(through_text(to_json(view)));
  ASSERT_TRUE(read) << read.error().to_string();
  EXPECT_FALSE(read->ended);
  EXPECT_EQ(read->progress.phase, "transfer");
  EXPECT_EQ(read->progress.bytes_per_s, 2.5);

  SendResult result;
  result.stats.disk_bytes = 1 << 20;
  result.stats.root_digest_source = "ab";
  view.ended = Result<SendResult>(result);
  read = send_view_from_json(through_text(to_json(view)));
  ASSERT_TRUE(read && read->ended && *read->ended);
  EXPECT_EQ((*read->ended)->stats.disk_bytes, 1u << 20);
  EXPECT_EQ((*read->ended)->stats.root_digest_source, "ab");

  view.ended = Result<SendResult>(make_error(ControlErrc::host_unreachable, "gone"));
  read = send_view_from_json(through_text(to_json(view)));
  ASSERT_TRUE(read && read->ended);
  ASSERT_FALSE(*read->ended);
  EXPECT_EQ(read->ended->error().symbol(), "control.host_unreachable");
  EXPECT_EQ(read->ended->error().retry(), Retry::later);
}

TEST(HostMessages, a_report_comes_through) {
  HostReport report;
  report.free_bytes = 1ull << 50;
  report.unix_time_s = 1'700'000'000;
  report.certificate_ends_unix_s = 1'800'000'000;
  report.networks = {"LAN", "DMZ"};
  report.generations = {2};
  report.formats = {"raw", "vhdx"};
  const auto read = host_report_from_json(through_text(to_json(report)));
  ASSERT_TRUE(read) << read.error().to_string();
  EXPECT_EQ(read->free_bytes, report.free_bytes);
  EXPECT_EQ(read->certificate_ends_unix_s, report.certificate_ends_unix_s);
  EXPECT_EQ(read->networks, report.networks);
  EXPECT_EQ(read->generations, report.generations);
}

TEST(HostMessages, a_disk_sample_comes_through_and_a_cut_digest_is_refused) {
  DiskSample sample;
  sample.size = 8 << 20;
  sample.allocated_bytes = 5 << 20;
  SampledExtent extent;
  extent.extent = 1;
  extent.digests[3].bytes[15] = std::byte{0xa7};
  sample.extents.push_back(extent);
  auto body = through_text(to_json(sample));
  const auto read = disk_sample_from_json(body);
  ASSERT_TRUE(read) << read.error().to_string();
  EXPECT_EQ(read->allocated_bytes, sample.allocated_bytes);
  ASSERT_EQ(read->extents.size(), 1u);
  EXPECT_EQ(read->extents[0].extent, 1u);
  EXPECT_EQ(read->extents[0].digests, extent.digests);
  auto& digests = body["extents"].as_array()[0].as_object()["digests"].as_string();
  digests.resize(digests.size() - 1);
  EXPECT_FALSE(disk_sample_from_json(body));
}

TEST(HostMessages, a_sample_of_too_many_extents_is_refused) {
  SampleCall call;
  call.path = "os.img";
  call.extents.assign(kMaxSampleExtents + 1, 0);
  EXPECT_FALSE(sample_call_from_json(to_json(call)));
  call.extents.pop_back();
  EXPECT_TRUE(sample_call_from_json(to_json(call)));
  call.pick = kMaxSampleExtents + 1;
  EXPECT_FALSE(sample_call_from_json(to_json(call)));
}

}  // namespace
}  // namespace backhaul
