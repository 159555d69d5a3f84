// The states of an extent on a target's lane: the steps of the table, and no others.
#include "dataplane/target/target_extent.h"

#include <gtest/gtest.h>

#include "unit/dataplane/expect_transition_death.h"

namespace backhaul {
namespace {

using TargetStep = std::pair<TargetExtentState, TargetExtentState>;

std::vector<TargetStep> target_steps() {
  using enum TargetExtentState;
  return {{claimed, reading}, {claimed, answered},    {reading, answered}, {answered, receiving},
          {answered, ended},  {receiving, ended},     {ended, written},    {ended, acknowledged},
          {written, durable}, {durable, acknowledged}};
}

TargetExtent target_extent_in(TargetExtentState state) { return TargetExtent(kExtentSize, 0, state); }

TEST(TargetExtent, TakesTheStepsOfTheTableAndDiesOfAllOthers) {
  const auto steps = target_steps();
  for (std::size_t from = 0; from < std::size(kTargetExtentStates); ++from)
    for (std::size_t to = 0; to < std::size(kTargetExtentStates); ++to) {
      const TargetStep step{static_cast<TargetExtentState>(from), static_cast<TargetExtentState>(to)};
      SCOPED_TRACE(std::string(to_string(step.first)) + " -> " + std::string(to_string(step.second)));
      auto extent = target_extent_in(step.first);
      if (std::find(steps.begin(), steps.end(), step) == steps.end()) {
        EXPECT_TRANSITION_DEATH(extent.become(step.second));
        continue;
      }
      extent.become(step.second);
      EXPECT_EQ(extent.state(), step.second);
    }
}

TEST(TargetExtent, TakesContentWhileItIsOpenAndABlockOnce) {
  using enum TargetExtentState;
  for (const auto state : {claimed, reading, ended, written, durable, acknowledged})
    EXPECT_FALSE(target_extent_in(state).is_open()) << to_string(state);
  auto extent = target_extent_in(answered);
  EXPECT_TRUE(extent.is_open());
  EXPECT_TRUE(extent.receive({0, 2 * kBlockSize}));
  EXPECT_EQ(extent.state(), receiving);
  EXPECT_TRUE(extent.is_open());
  EXPECT_TRUE(extent.receive({3 * kBlockSize, kBlockSize}));
  EXPECT_FALSE(extent.receive({kBlockSize, 2 * kBlockSize}));
}

}  // namespace
}  // namespace backhaul
