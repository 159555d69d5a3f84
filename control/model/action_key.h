// Which outside action of a task: what is done, and to which disk, round or command. A value, unique within the task.
// Stored and logged as text: "shutdown", "swap/os", "snapshot/3".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace backhaul {

enum class ActionKind : std::uint8_t {
  snapshot,      // of a round
  release,       // the snapshot of a round that the target has
  abandon,       // the snapshot of a round that is given up
  swap,          // a disk
  release_old,   // a disk's old content
  give_back,     // a disk
  shutdown,      // the source VM
  create,        // the target VM
  start,         // the target VM
  stop,          // the target VM
  start_source,  // the source VM, in a rollback
  remove,        // the source VM, in a commit
  command,       // of a plan
};

struct ActionKey {
  ActionKind kind = ActionKind::snapshot;
  std::string subject;  // a round's number, a disk's name, a plan's GROUP/WHEN/STEP; empty: the VM
  bool operator==(const ActionKey&) const = default;
};
std::string to_string(const ActionKey& key);
std::optional<ActionKey> parse_action_key(std::string_view text);

}  // namespace backhaul
