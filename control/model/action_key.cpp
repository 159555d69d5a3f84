#include "control/model/action_key.h"

#include <algorithm>
#include <iterator>

namespace backhaul {
namespace {

// In the order of ActionKind.
constexpr std::string_view kActionKinds[] = {"snapshot",     "release",  "abandon", "swap",  "release-old",
                                             "give-back",    "shutdown", "create",  "start", "stop",
                                             "start-source", "remove",   "command"};

}  // namespace

std::string to_string(const ActionKey& key) {
  std::string text(kActionKinds[static_cast<std::size_t>(key.kind)]);
  if (!key.subject.empty()) text += "/" + key.subject;
  return text;
}

std::optional<ActionKey> parse_action_key(std::string_view text) {
  const auto slash = text.find('/');
  const auto* found = std::find(std::begin(kActionKinds), std::end(kActionKinds), text.substr(0, slash));
  if (found == std::end(kActionKinds)) return std::nullopt;
  ActionKey key{static_cast<ActionKind>(found - std::begin(kActionKinds)), {}};
  if (slash != text.npos) key.subject = text.substr(slash + 1);
  return key;
}

}  // namespace backhaul
