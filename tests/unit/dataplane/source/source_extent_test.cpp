// The states of an extent on a source's lane: the steps of the table, and no others.
#include "dataplane/source/source_extent.h"

#include <gtest/gtest.h>

#include "unit/dataplane/expect_transition_death.h"

namespace backhaul {
namespace {

using SourceStep = std::pair<SourceExtentState, SourceExtentState>;

std::vector<SourceStep> source_steps() {
  using enum SourceExtentState;
  return {{claimed, ready}, {ready, reading},      {reading, sending},
          {sending, ended}, {ended, acknowledged}, {ended, returned}};
}

SourceExtent source_extent_in(SourceExtentState state) { return SourceExtent(kExtentSize, 0, state, ExtentBlocks()); }

TEST(SourceExtent, TakesTheStepsOfTheTableAndDiesOfAllOthers) {
  const auto steps = source_steps();
  for (std::size_t from = 0; from < std::size(kSourceExtentStates); ++from)
    for (std::size_t to = 0; to < std::size(kSourceExtentStates); ++to) {
      const SourceStep step{static_cast<SourceExtentState>(from), static_cast<SourceExtentState>(to)};
      SCOPED_TRACE(std::string(to_string(step.first)) + " -> " + std::string(to_string(step.second)));
      auto extent = source_extent_in(step.first);
      if (std::find(steps.begin(), steps.end(), step) == steps.end()) {
        EXPECT_TRANSITION_DEATH(extent.become(step.second));
        continue;
      }
      extent.become(step.second);
      EXPECT_EQ(extent.state(), step.second);
    }
}

}  // namespace
}  // namespace backhaul
