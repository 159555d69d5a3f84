// Taking snapshots, and what becomes of bitmaps when they are released. Committing back is in qemu_commit.cpp.
#include "control/drivers/qemu/qemu_hold.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>

#include "base/unique_fd.h"
#include "base/world.h"
#include "control/drivers/child_process.h"
#include "control/model/control_error.h"

namespace backhaul {
namespace {

namespace json = boost::json;

Result<void> check_id(const std::string& id) {
  const bool fine = !id.empty() && id.size() <= 200 && std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
  });
  if (fine) return {};
  return make_error(BaseErrc::invalid_argument, "a snapshot's id may only have letters, digits, '-', '_' and '.'");
}

Snapshot to_snapshot(const HeldSnapshot& held) {
  Snapshot snapshot{held.id, held.token, {}};
  for (const auto& disk : held.disks) snapshot.disks.push_back({disk.name, disk.path, disk.format, disk.size_bytes});
  return snapshot;
}

Result<void> check_space(const QemuSession& s) {
  std::error_code problem;
  std::filesystem::create_directories(s.files.directory, problem);
  const auto space = std::filesystem::space(s.files.directory, problem);
  if (problem) return driver_failed(fmt::format("{}: {}", s.files.directory.string(), problem.message()));
  if (space.available >= s.options->reserve_bytes) return {};
  return driver_failed(fmt::format("{} has {} bytes free, a snapshot needs {}", s.files.directory.string(),
                                   space.available, s.options->reserve_bytes));
}

// The disk's node, which guest devices write to directly: under somebody else's snapshot our bitmap would see nothing.
Result<const QemuNode*> writable_node(const QemuView& view, const DiskPlace& disk) {
  const auto* node = view.disk(disk.path, disk.format);
  if (node == nullptr)
    return driver_failed(fmt::format("disk {}: QEMU has no {} image {} open; images of other formats are not supported",
                                     disk.name, to_string(disk.format), disk.path));
  if (!view.is_top(node->name))
    return driver_failed(
        fmt::format("disk {}: something lies between the guest and {} (a snapshot or a job of somebody else)",
                    disk.name, disk.path));
  return node;
}

// Overlays that are not on record any more: a crash came between the record and the deletion. REQUIRES: no snapshot is
// held, or none of its overlays exists yet.
void delete_leftovers(const QemuSession& s) {
  std::error_code problem;
  for (const auto& entry : std::filesystem::directory_iterator(s.files.directory, problem))
    if (entry.path().filename().string().starts_with("overlay-") && entry.path().extension() == ".qcow2")
      std::filesystem::remove(entry.path(), problem);
}

// With the backing file on record, so that qemu-img can commit it when QEMU is gone.
Result<void> create_overlay(const QemuSession& s, const HeldDisk& disk) {
  BH_TRY(const auto made, run_child({s.options->image_tool, "create", "-q", "-f", "qcow2", "-u", "-b", disk.path, "-F",
                                     qemu_format(disk.format), disk.overlay_file, std::to_string(disk.size_bytes)},
                                    "", std::chrono::seconds(s.options->timeout_s)));
  if (made.exit_status != 0) return driver_failed(fmt::format("{}: {}", s.options->image_tool, made.errors));
  UniqueFd fd(::open(disk.overlay_file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return Error::from_errno(errno, "sync " + disk.overlay_file);
  return sync_directory(s.files.directory);
}

Result<void> open_overlay(QemuSession& s, const HeldDisk& disk) {
  const bool direct = static_cast<bool>(UniqueFd(::open(disk.overlay_file.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC)));
  const json::object cache{{"direct", direct}, {"no-flush", false}};
  BH_RETURN_IF_ERROR(s.qmp->execute(
      "blockdev-add",
      {{"driver", "qcow2"},
       {"node-name", disk.overlay_node},
       {"backing", nullptr},
       {"discard", "unmap"},
       {"cache", cache},
       {"file",
        json::object{{"driver", "file"}, {"filename", disk.overlay_file}, {"discard", "unmap"}, {"cache", cache}}}}));
  return {};
}

// The transaction's actions for one disk: from here on the new bitmap records, the older ones stand still, and the
// overlay (if there is one) takes the writes.
void add_actions(json::array& actions, const QemuNode& node, const HeldSnapshot& held, const HeldDisk& disk) {
  actions.push_back(
      action("block-dirty-bitmap-add",
             {{"node", node.name}, {"name", bitmap_name(held.token)}, {"granularity", kQemuGranularity}}));
  for (const auto& bitmap : node.bitmaps)
    if (is_our_bitmap(bitmap.name) && bitmap.recording)
      actions.push_back(action("block-dirty-bitmap-disable", {{"node", node.name}, {"name", bitmap.name}}));
  if (!disk.overlay_node.empty())
    actions.push_back(action("blockdev-snapshot", {{"node", node.name}, {"overlay", disk.overlay_node}}));
}

// With a QEMU, running or not.
Result<void> take_in_qemu(QemuSession& s, HeldSnapshot& held) {
  BH_TRY(const auto view, look_at_qemu(*s.qmp));
  held.off = is_off_status(view.status, s.record);
  std::vector<const QemuNode*> nodes;
  for (const auto& disk : s.disks) {
    BH_TRY(const auto* node, writable_node(view, disk));
    nodes.push_back(node);
    held.disks.push_back({disk.name, disk.path, disk.format, node->virtual_size, {}, {}, {}});
  }
  if (!held.off) {
    delete_leftovers(s);
    BH_RETURN_IF_ERROR(check_space(s));
    const auto number = ++s.record.counter;
    for (std::size_t i = 0; i < held.disks.size(); ++i) {
      held.disks[i].overlay_file = s.files.directory / fmt::format("overlay-{}-{}.qcow2", number, i);
      held.disks[i].overlay_node = fmt::format("bhov-{}-{}", number, i);
      held.disks[i].job = fmt::format("bhcommit-{}-{}", number, i);
    }
  }
  s.record.snapshot = held;
  BH_RETURN_IF_ERROR(s.save());
  json::array actions;
  for (std::size_t i = 0; i < held.disks.size(); ++i) {
    if (!held.off) {
      BH_RETURN_IF_ERROR(create_overlay(s, held.disks[i]));
      BH_RETURN_IF_ERROR(open_overlay(s, held.disks[i]));
    }
    add_actions(actions, *nodes[i], held, held.disks[i]);
  }
  return run_transaction(*s.qmp, std::move(actions));
}

// Whether the held snapshot is what it was: each disk's file still stands still below its overlay.
Result<void> check_intact(QemuSession& s) {
  const auto& held = *s.record.snapshot;
  if (held.phase == HoldPhase::broken)
    return driver_failed(fmt::format("snapshot {} is broken: {}", held.id, held.why_broken));
  if (held.phase == HoldPhase::releasing) return driver_failed(fmt::format("snapshot {} is being released", held.id));
  if (!s.qmp) return {};  // overlays and disks lie there as they were
  BH_TRY(const auto view, look_at_qemu(*s.qmp));
  if (held.off && !is_off_status(view.status, s.record))
    return driver_failed(fmt::format("snapshot {} is broken: the VM was started", held.id));
  for (const auto& disk : held.disks) {
    const auto* node = view.disk(disk.path, disk.format);
    const bool tracked = held.token.empty() || (node != nullptr && node->bitmap(held.token) != nullptr);
    const bool covered = disk.overlay_node.empty() || view.is_top(disk.overlay_node);
    if (!tracked || !covered)
      return driver_failed(
          fmt::format("snapshot {} is broken: disk {} in QEMU is no longer below its overlay", held.id, disk.name));
  }
  return {};
}

// After a crash: did QEMU run the transaction?
Result<bool> was_taken(QemuSession& s) {
  if (!s.qmp) return false;
  BH_TRY(const auto view, look_at_qemu(*s.qmp));
  const auto& held = *s.record.snapshot;
  return !held.token.empty() && std::all_of(held.disks.begin(), held.disks.end(), [&](const HeldDisk& disk) {
    const auto* node = view.disk(disk.path, disk.format);
    return node != nullptr && node->bitmap(held.token) != nullptr;
  });
}

Result<void> mark_open(QemuSession& s) {
  s.record.snapshot->phase = HoldPhase::open;
  return s.save();
}

void accept_bitmap(json::array& actions, const QemuNode& node, const std::string& token) {
  if (node.bitmap(token) == nullptr) return;  // another QEMU's
  for (const auto& bitmap : node.bitmaps)
    if (is_our_bitmap(bitmap.name) && bitmap.name != bitmap_name(token))
      actions.push_back(action("block-dirty-bitmap-remove", {{"node", node.name}, {"name", bitmap.name}}));
}

// The older bitmaps go on, with what the void one has seen. Enabled before the merge: nothing falls between.
void give_up_bitmap(json::array& actions, const QemuNode& node, const std::string& token) {
  const auto* ours = node.bitmap(token);
  for (const auto& bitmap : node.bitmaps) {
    if (!is_our_bitmap(bitmap.name) || bitmap.name == bitmap_name(token) || bitmap.recording) continue;
    const json::object which{{"node", node.name}, {"name", bitmap.name}};
    if (ours == nullptr) {  // it stood still, and what came since was seen by nobody
      actions.push_back(action("block-dirty-bitmap-remove", which));
      continue;
    }
    actions.push_back(action("block-dirty-bitmap-enable", which));
    actions.push_back(
        action("block-dirty-bitmap-merge",
               {{"node", node.name}, {"target", bitmap.name}, {"bitmaps", json::array{bitmap_name(token)}}}));
  }
  if (ours != nullptr)
    actions.push_back(action("block-dirty-bitmap-remove", {{"node", node.name}, {"name", bitmap_name(token)}}));
}

Result<void> end_bitmaps(QemuSession& s, const HeldSnapshot& held, bool accepted) {
  if (!s.qmp) return {};
  BH_TRY(const auto view, look_at_qemu(*s.qmp));
  json::array actions;
  for (const auto& disk : held.disks) {
    const auto* node = view.disk(disk.path, disk.format);
    if (node == nullptr) continue;
    accepted ? accept_bitmap(actions, *node, held.token) : give_up_bitmap(actions, *node, held.token);
  }
  return run_transaction(*s.qmp, std::move(actions));
}

}  // namespace

std::string new_qemu_token(std::string_view what) { return fmt::format("{}.{:016x}", what, system_random().next()); }

Result<Snapshot> take_hold(QemuSession& s, const std::string& id) {
  BH_RETURN_IF_ERROR(check_id(id));
  if (s.record.snapshot && s.record.snapshot->id == id && s.record.snapshot->phase == HoldPhase::taking) {
    BH_TRY(const bool taken, was_taken(s));
    if (taken) BH_RETURN_IF_ERROR(mark_open(s));
  }
  if (s.record.snapshot && s.record.snapshot->id == id && s.record.snapshot->phase != HoldPhase::taking) {
    BH_RETURN_IF_ERROR(check_intact(s));
    return to_snapshot(*s.record.snapshot);
  }
  if (s.record.snapshot) {
    if (s.record.snapshot->id == id)
      spdlog::info("VM {}: snapshot {} was interrupted before QEMU took it; it is taken anew", s.vm, id);
    else
      spdlog::warn("VM {}: snapshot {} was never released; it is given up for {}", s.vm, s.record.snapshot->id, id);
    BH_RETURN_IF_ERROR(release_hold(s, std::string(s.record.snapshot->id), false));
  }
  if (s.disks.empty()) return driver_failed("the VM has no disks");
  HeldSnapshot held;
  held.id = id;
  if (!s.qmp) {
    held.off = true;
    for (const auto& disk : s.disks) {
      BH_TRY(const auto size, virtual_size(disk));
      held.disks.push_back({disk.name, disk.path, disk.format, size, {}, {}, {}});
    }
    s.record.snapshot = held;
  } else {
    held.token = new_qemu_token(id);
    if (auto taken = take_in_qemu(s, held); !taken) {
      // Nothing of it stays, as far as QEMU still answers; else the next call sees to it.
      if (s.record.snapshot && !s.qmp->broken())
        if (auto undone = release_hold(s, id, false); !undone)
          spdlog::warn("VM {}: {}", s.vm, undone.error().to_string());
      return std::move(taken).error();
    }
  }
  BH_RETURN_IF_ERROR(mark_open(s));
  return to_snapshot(*s.record.snapshot);
}

Result<void> release_hold(QemuSession& s, const std::string& id, bool accepted) {
  if (!s.record.snapshot) delete_leftovers(s);
  if (!s.record.snapshot || s.record.snapshot->id != id) return {};
  if (accepted && s.record.snapshot->phase != HoldPhase::releasing) BH_RETURN_IF_ERROR(check_intact(s));
  if (s.record.snapshot->phase == HoldPhase::open || (accepted && s.record.snapshot->phase == HoldPhase::taking)) {
    s.record.snapshot->phase = HoldPhase::releasing;
    BH_RETURN_IF_ERROR(s.save());
  }
  BH_RETURN_IF_ERROR(commit_overlays(s));
  const HeldSnapshot held = *s.record.snapshot;
  BH_RETURN_IF_ERROR(end_bitmaps(s, held, accepted));
  // The last changes are where they should be: the process has nothing left to tell.
  if (accepted && held.off && !s.attached && s.qmp) {
    BH_TRY(const auto power, qemu_power(s));
    if (power == PowerState::off) BH_RETURN_IF_ERROR(quit_qemu(s));
  }
  s.record.snapshot.reset();
  BH_RETURN_IF_ERROR(s.save());
  delete_leftovers(s);
  return {};
}

Result<void> break_hold(QemuSession& s, const std::string& why) {
  if (!s.record.snapshot) return {};
  spdlog::warn("VM {}: snapshot {} is given up: {}", s.vm, s.record.snapshot->id, why);
  if (s.record.snapshot->phase == HoldPhase::taking || s.record.snapshot->phase == HoldPhase::open) {
    s.record.snapshot->phase = HoldPhase::broken;
    s.record.snapshot->why_broken = why;
    BH_RETURN_IF_ERROR(s.save());
  }
  return commit_overlays(s);
}

bool has_overlays(const QemuRecord& record) {
  return record.snapshot && std::any_of(record.snapshot->disks.begin(), record.snapshot->disks.end(),
                                        [](const auto& disk) { return !disk.overlay_file.empty(); });
}

}  // namespace backhaul
