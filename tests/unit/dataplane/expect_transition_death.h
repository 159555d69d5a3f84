// EXPECT_TRANSITION_DEATH(statement): an extent's step that its table does not know ends the program, and the log says
// which. Shared by this folder's tests.
#pragma once

#include <gtest/gtest.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

// In the process that dies the log goes to stderr, where a death test looks.
#define EXPECT_TRANSITION_DEATH(statement)                                    \
  EXPECT_DEATH(                                                               \
      {                                                                       \
        spdlog::set_default_logger(spdlog::stderr_logger_st("of the death")); \
        statement;                                                            \
      },                                                                      \
      "extent [0-9]+ of a lane: [a-z]+ -> [a-z]+ is not in the table")
