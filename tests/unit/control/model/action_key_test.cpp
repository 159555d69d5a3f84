#include "control/model/action_key.h"

#include <gtest/gtest.h>

namespace backhaul {
namespace {

// As they stand in stores.
TEST(ActionKey, IsStoredAsText) {
  const std::pair<ActionKey, const char*> kKeys[] = {
      {{ActionKind::snapshot, "3"}, "snapshot/3"},
      {{ActionKind::release, "3"}, "release/3"},
      {{ActionKind::abandon, "12"}, "abandon/12"},
      {{ActionKind::swap, "os"}, "swap/os"},
      {{ActionKind::release_old, "os"}, "release-old/os"},
      {{ActionKind::give_back, "os"}, "give-back/os"},
      {{ActionKind::shutdown, {}}, "shutdown"},
      {{ActionKind::create, {}}, "create"},
      {{ActionKind::start, {}}, "start"},
      {{ActionKind::stop, {}}, "stop"},
      {{ActionKind::start_source, {}}, "start-source"},
      {{ActionKind::remove, {}}, "remove"},
      {{ActionKind::command, "db/tier one/after-boot/2"}, "command/db/tier one/after-boot/2"},
  };
  for (const auto& [key, text] : kKeys) {
    EXPECT_EQ(to_string(key), text);
    EXPECT_EQ(parse_action_key(text), key) << text;
  }
}

TEST(ActionKey, OfAnotherKindIsRefused) {
  for (const auto* text : {"", "/os", "swap-os", "Swap/os", "swapp/os", "release_old/os"})
    EXPECT_FALSE(parse_action_key(text)) << text;
}

}  // namespace
}  // namespace backhaul
