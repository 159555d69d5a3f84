#include "control/model/phases.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "control/model/job.h"

namespace backhaul {
namespace {

std::string trimmed(std::string text) {
  text.erase(0, text.find_first_not_of(' '));
  text.erase(text.find_last_not_of(' ') + 1);
  return text;
}

// The rows (cells without the head) of the table under the given heading of docs/phases.md that has `head` as its first
// cell.
std::vector<std::vector<std::string>> table_of_document(const std::string& head, std::size_t columns) {
  std::ifstream file(std::filesystem::path(BACKHAUL_SOURCE_DIR) / "docs/phases.md");
  EXPECT_TRUE(file.good());
  std::vector<std::vector<std::string>> rows;
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] != '|') {
      if (!rows.empty()) break;
      inside = false;
      continue;
    }
    std::vector<std::string> cells;
    std::stringstream stream(line.substr(1));
    for (std::string cell; std::getline(stream, cell, '|');) cells.push_back(trimmed(cell));
    if (cells[0] == head && cells.size() == columns) {
      inside = true;
    } else if (inside && cells[0].find("---") == std::string::npos) {
      rows.push_back(cells);
    }
  }
  return rows;
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(trimmed(part));
  return parts;
}

template <class State, class Parse>
void expect_transitions(const std::vector<std::vector<std::string>>& rows, std::size_t count, Parse parse) {
  std::set<std::pair<int, int>> documented;
  for (const auto& row : rows)
    for (const auto& to : split(row[1])) {
      ASSERT_TRUE(parse(row[0])) << row[0];
      ASSERT_TRUE(parse(to)) << to;
      documented.emplace(static_cast<int>(*parse(row[0])), static_cast<int>(*parse(to)));
    }
  for (std::size_t from = 0; from < count; ++from)
    for (std::size_t to = 0; to < count; ++to)
      EXPECT_EQ(may_follow(static_cast<State>(from), static_cast<State>(to)), documented.contains({from, to}))
          << to_string(static_cast<State>(from)) << " -> " << to_string(static_cast<State>(to));
}

TEST(Phases, ItemTransitionsAreThoseOfTheDocument) {
  auto rows = table_of_document("from", 2);
  ASSERT_EQ(rows.size(), kItemStates);
  expect_transitions<ItemState>(rows, kItemStates, parse_item_state);
}

TEST(Phases, ItemVerbsAreThoseOfTheDocument) {
  auto rows = table_of_document("state", 1 + kItemVerbs);
  ASSERT_EQ(rows.size(), kItemStates);
  for (const auto& row : rows) {
    auto state = parse_item_state(row[0]);
    ASSERT_TRUE(state) << row[0];
    for (std::size_t verb = 0; verb < kItemVerbs; ++verb)
      EXPECT_EQ(is_allowed(static_cast<ItemVerb>(verb), *state), row[1 + verb] == "yes")
          << row[0] << " " << to_string(static_cast<ItemVerb>(verb));
  }
}

TEST(Phases, JobVerbsAreThoseOfTheDocument) {
  auto rows = table_of_document("task", 4);
  std::set<TaskKind> seen;
  for (const auto& row : rows)
    for (const auto& name : split(row[0])) {
      auto task = parse_task_kind(name);
      ASSERT_TRUE(task) << name;
      EXPECT_TRUE(seen.insert(*task).second);
      for (std::size_t i = 0; i < kJobStates; ++i) {
        auto state = static_cast<JobState>(i);
        EXPECT_EQ(is_allowed(JobVerb::cancel, state, *task), row[1] == "yes" && !has_ended(state))
            << name << to_string(state);
        EXPECT_EQ(is_allowed(JobVerb::resume, state, *task), row[2] == to_string(state)) << name << to_string(state);
        EXPECT_EQ(is_allowed(JobVerb::restart, state, *task), row[3] == "yes" && state == JobState::failed)
            << name << to_string(state);
      }
    }
  EXPECT_EQ(seen.size(), kTaskKinds);
}

TEST(Phases, TasksOfJobsAreThoseOfTheDocument) {
  const auto names = [](std::span<const TaskKind> tasks) {
    std::vector<std::string> made;
    for (const auto task : tasks) made.emplace_back(to_string(task));
    return made;
  };
  std::set<std::pair<JobKind, DataSync>> seen;
  for (const auto& row : table_of_document("job", 3)) {
    std::vector<DataSync> syncs{DataSync::for_down_time, DataSync::for_synchronization};
    std::vector<JobKind> kinds;
    for (const auto& name : split(row[0])) {
      if (const auto sync = parse_data_sync(name)) {
        syncs = {*sync};
      } else {
        ASSERT_TRUE(parse_job_kind(name)) << name;
        kinds.push_back(*parse_job_kind(name));
      }
    }
    for (const auto kind : kinds)
      for (const auto sync : syncs) {
        EXPECT_TRUE(seen.emplace(kind, sync).second) << row[0];
        EXPECT_EQ(names(tasks_of(kind, sync)), split(row[1])) << row[0];
        EXPECT_EQ(names(rollback_tasks(kind)), split(row[2])) << row[0];
      }
  }
  EXPECT_EQ(seen.size(), 2 * kJobKinds);
}

TEST(Phases, JobTransitionsNeverLeaveSuccessAndCancellation) {
  std::set<std::pair<JobState, JobState>> allowed;
  for (std::size_t a = 0; a < kJobStates; ++a)
    for (std::size_t b = 0; b < kJobStates; ++b)
      if (may_follow(static_cast<JobState>(a), static_cast<JobState>(b)))
        allowed.emplace(static_cast<JobState>(a), static_cast<JobState>(b));
  using S = JobState;
  const std::set<std::pair<JobState, JobState>> expected{
      {S::not_started, S::in_progress}, {S::not_started, S::cancelled}, {S::in_progress, S::suspended},
      {S::in_progress, S::succeeded},   {S::in_progress, S::failed},    {S::in_progress, S::cancelled},
      {S::suspended, S::in_progress},   {S::failed, S::in_progress}};
  EXPECT_EQ(allowed, expected);
}

TEST(Phases, AllowedOperationsPromiseExactlyWhatTheVerbTableAllows) {
  for (std::size_t i = 0; i < kItemStates; ++i) {
    auto state = static_cast<ItemState>(i);
    auto names = allowed_operations(state);
    for (auto verb : {ItemVerb::planned_failover, ItemVerb::failover_commit, ItemVerb::failover_cancel,
                      ItemVerb::reprotect, ItemVerb::remove})
      EXPECT_EQ(std::find(names.begin(), names.end(), operation_name(verb)) != names.end(), is_allowed(verb, state));
  }
  EXPECT_EQ(planned_failover_direction(ItemState::failover_committed), Direction::recovery_to_primary);
  EXPECT_EQ(planned_failover_direction(ItemState::protected_), Direction::primary_to_recovery);
  EXPECT_FALSE(planned_failover_direction(ItemState::commit_failed));
}

TEST(Phases, DataSyncOptionsAreParsedInAnyCaseAndEmittedExactly) {
  EXPECT_EQ(parse_data_sync("fordowntime"), DataSync::for_down_time);
  EXPECT_EQ(parse_data_sync("FORSYNCHRONIZATION"), DataSync::for_synchronization);
  EXPECT_FALSE(parse_data_sync("ForDownTimes"));
  EXPECT_FALSE(parse_data_sync(""));
  EXPECT_EQ(to_string(DataSync::for_down_time), "ForDownTime");
  EXPECT_EQ(to_string(DataSync::for_synchronization), "ForSynchronization");
}

TEST(Phases, EveryTaskListEndsWhereItsRollbackIsStillPossible) {
  for (auto sync : {DataSync::for_down_time, DataSync::for_synchronization}) {
    auto tasks = tasks_of(JobKind::planned_failover, sync);
    ASSERT_FALSE(tasks.empty());
    EXPECT_EQ(tasks.back(), TaskKind::start_target);
    // Everything before the start may be cancelled, the start may not.
    for (auto task : tasks)
      EXPECT_EQ(is_allowed(JobVerb::cancel, JobState::in_progress, task), task != TaskKind::start_target);
  }
}

TEST(Phases, AVerbSaidOnceIsNotOfferedTwice) {
  Job job;
  job.state = JobState::suspended;
  job.tasks = {{TaskKind::wait_for_complete}};
  EXPECT_EQ(allowed_actions(job), (std::vector<std::string_view>{"Resume", "Cancel"}));
  job.complete_requested = true;
  EXPECT_EQ(allowed_actions(job), (std::vector<std::string_view>{"Cancel"}));
  job.cancel_requested = true;
  EXPECT_TRUE(allowed_actions(job).empty());
}

}  // namespace
}  // namespace backhaul
