#include "control/model/model_json.h"

#include <gtest/gtest.h>

#include "control/model/control_error.h"

namespace backhaul {
namespace {

Job filled_job() {
  Job job;
  job.id = "17";
  job.kind = JobKind::plan_planned_failover;
  job.state = JobState::suspended;
  job.item = "web";
  job.tasks = {{TaskKind::replicate, TaskState::succeeded, 1, 2, 0.5, "detail", {"", 10, 5, 0, 2.5, 1, ""}},
               {TaskKind::start_target}};
  job.current_task = 1;
  job.errors = {{"a.b", "cause", "fix", 3, true}};
  job.request.data_sync = DataSync::for_synchronization;
  job.request.direction = Direction::primary_to_recovery;
  job.request.allow_forced_shutdown = true;
  job.request.complete = {CompleteMode::window, 1.5, 1, 2, 3};
  job.source.disks = {{"os", "/a", DiskFormat::raw, std::uint64_t{1} << 40}};
  job.source.settings = {{"x", 1}};
  job.gates = {false, true};
  job.round.number = 3;
  job.round.disks.resize(1);
  job.round.disks[0].stats.root_digest_source = "ab";
  job.actions = {{{ActionKind::stop, {}}, true, boost::json::object{{"forced", true}}, 9}};
  job.estimate = Estimate{1, 2, 3, 4, true, "why"};
  job.projected.boot = 12;
  job.moments.unsure_ms = 7;
  job.moments.no_first_write = "nobody looked";
  job.children = {"18", "19"};
  return job;
}

TEST(ModelJson, AJobSurvivesTheRoundTrip) {
  const std::string text = to_json(filled_job());
  auto job = job_from_json(text);
  ASSERT_TRUE(job) << job.error().to_string();
  EXPECT_EQ(to_json(*job), text);
  EXPECT_EQ(job->tasks[0].progress.bytes_total, 10u);
  EXPECT_EQ(job->request.direction, Direction::primary_to_recovery);
  EXPECT_EQ(job->source.disks[0].size_bytes, std::uint64_t{1} << 40);
  EXPECT_TRUE(job->request.allow_forced_shutdown.value());
}

TEST(ModelJson, AnItemAndAPlanSurviveTheRoundTrip) {
  Item item;
  item.id = "web";
  item.vm = {"web", 1, 2048, 2, "bios", true, {{"n", "LAN", "00:11:22:33:44:55"}}};
  item.commit_policy = {CommitMode::undo_after, 5, false};
  item.state = ItemState::protected_;
  item.epoch = std::uint64_t{1} << 60;
  EXPECT_EQ(to_json(item_from_json(to_json(item)).value()), to_json(item));
  EXPECT_EQ(item_from_json(to_json(item)).value().epoch, std::uint64_t{1} << 60);
  RecoveryPlan plan;
  plan.id = "p";
  plan.groups = {{"db", {"a", "b"}, {{"n", true, "look", {}, 1}}, {}, {}, {{"c", false, "", {"/bin/true", "x"}, 2}}}};
  EXPECT_EQ(to_json(plan_from_json(to_json(plan)).value()), to_json(plan));
}

TEST(ModelJson, MissingFieldsKeepDefaultsAndWrongOnesAreNamed) {
  auto job = job_from_json(R"({"id": "1"})");
  ASSERT_TRUE(job);
  EXPECT_TRUE(job->gates.shutdown);
  for (const auto& [text, path] : std::initializer_list<std::pair<const char*, const char*>>{
           {R"({"round": {"disks": [{"disk": 5}]}})", "round.disks[0].disk"},
           {R"({"state": "Running"})", "state"},
           {R"({"actions": [{"key": "leap/os"}]})", "actions[0].key"},
           {R"({"current_task": -1})", "current_task"},
           {R"({"tasks": [{}], "current_task": 1})", "current_task"}}) {
    auto bad = job_from_json(text);
    ASSERT_FALSE(bad) << text;
    EXPECT_EQ(bad.error(), make_error_code(ControlErrc::store_damaged));
    EXPECT_NE(bad.error().cause().find(path), std::string::npos) << bad.error().cause();
  }
  for (const auto& [text, path] : std::initializer_list<std::pair<const char*, const char*>>{
           {R"({"transfer": {"verify": "often"}})", "transfer.verify"},
           {R"({"transfer": {"compress": ""}})", "transfer.compress"},
           {R"({"recovery": {"disks": [{"format": "qcow2"}]}})", "format"}}) {
    const auto bad = item_from_json(text);
    ASSERT_FALSE(bad) << text;
    EXPECT_EQ(bad.error(), make_error_code(ControlErrc::store_damaged));
    EXPECT_NE(bad.error().cause().find(path), std::string::npos) << bad.error().cause();
  }
  EXPECT_FALSE(job_from_json("[]"));
  EXPECT_FALSE(job_from_json("{"));
}

}  // namespace
}  // namespace backhaul
