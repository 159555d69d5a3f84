#include "sim/sim_state.h"

#include <algorithm>
#include <cerrno>

namespace backhaul::sim {
namespace {

void apply(SimImage& image, const Change& change) {
  switch (change.kind) {
    case Change::Kind::write: image.write(change.offset, change.bytes); break;
    case Change::Kind::zero: {
      // After a lost resize the range may lie behind the end, where everything reads as zeros anyway.
      const std::uint64_t offset = std::min(change.offset, image.size());
      image.zero(offset, std::min(change.length, image.size() - offset));
      break;
    }
    case Change::Kind::resize: image.resize(change.length); break;
  }
}

// One sector's share of a write or a zeroing.
Change part_of(const Change& whole, std::uint64_t offset, std::uint64_t length) {
  Change part{whole.kind, offset, length, {}};
  if (whole.kind == Change::Kind::write) {
    const auto first = whole.bytes.begin() + static_cast<std::ptrdiff_t>(offset - whole.offset);
    part.bytes.assign(first, first + static_cast<std::ptrdiff_t>(length));
  }
  return part;
}

}  // namespace

int SimState::enter(std::uint64_t holder_generation) {
  if (dead || holder_generation != generation) return EIO;
  ++counters.operations;
  if (operations_to_crash && --*operations_to_crash == 0) {
    operations_to_crash.reset();
    power_loss();
    dead = true;
    return EIO;
  }
  int error = 0;
  for (auto& fault : operation_faults)
    if (--fault.operations_left == 0) error = fault.error;
  std::erase_if(operation_faults, [](const OperationFault& fault) { return fault.operations_left == 0; });
  return error;
}

int SimState::change(Node& node, Change change) {
  if (change.kind == Change::Kind::write) {
    const std::uint64_t missing = node.live.bytes_missing(change.offset, change.length);
    if (missing > 0 && bytes_taken() + missing > options.space_bytes) return ENOSPC;
    counters.bytes_written += change.length;
    ++counters.writes;
  } else if (change.kind == Change::Kind::zero) {
    ++counters.zeroings;
  }
  apply(node.live, change);
  node.version = next_version++;
  node.unsynced.push_back(std::move(change));
  return 0;
}

int SimState::check_read(const Node& node, std::uint64_t offset, std::uint64_t length) const {
  for (const auto& fault : read_faults)
    if (fault.path == node.path && offset < fault.range.end() && fault.range.offset < offset + length)
      return fault.error;
  return 0;
}

void SimState::sync(Node& node) {
  ++counters.syncs;
  node.durable = node.live;
  node.durable_version = node.version;
  node.unsynced.clear();
}

void SimState::power_loss() {
  for (auto* queue : queues) queue->begin_pending_writes(random);
  for (auto& [path, node] : nodes) tear(*node);
  ++generation;
}

void SimState::tear(Node& node) {
  if (node.unsynced.empty()) return;
  for (const auto& change : node.unsynced) {
    enum { lost, kept, torn } fate = static_cast<decltype(fate)>(random.below(3));
    if (fate == lost) continue;
    if (fate == kept || change.kind == Change::Kind::resize) {
      apply(node.durable, change);
      continue;
    }
    const std::uint64_t end = change.offset + change.length;
    for (std::uint64_t at = change.offset; at < end;) {
      const std::uint64_t next = std::min(align_down(at, kSectorSize) + kSectorSize, end);
      if (random.one_in(2)) apply(node.durable, part_of(change, at, next - at));
      at = next;
    }
  }
  node.live = node.durable;
  node.unsynced.clear();
  node.version = random.one_in(2) ? node.durable_version : next_version++;
  node.durable_version = node.version;
}

std::shared_ptr<Node> SimState::find(std::string_view path) const {
  const auto found = nodes.find(path);
  return found == nodes.end() ? nullptr : found->second;
}

std::shared_ptr<Node> SimState::add(std::string_view path) {
  auto node = std::make_shared<Node>();
  node->path = path;
  node->number = next_node++;
  node->version = node->durable_version = next_version++;
  nodes.emplace(path, node);
  return node;
}

std::uint64_t SimState::bytes_taken() const {
  std::uint64_t taken = 0;
  for (const auto& [path, node] : nodes) taken += node->live.bytes_taken();
  return taken;
}

}  // namespace backhaul::sim
