#include "sim/sim_storage.h"

#include <algorithm>
#include <cassert>
#include <cerrno>

#include "sim/sim_state.h"

namespace backhaul::sim {
namespace {

std::string_view parent_of(std::string_view path) {
  const auto slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
}

// Whether `path` lies directly in `directory`.
bool stands_in(std::string_view path, std::string_view directory) { return parent_of(path) == directory; }

Error failed(int number, const char* action, std::string_view path) {
  return Error::from_errno(number, std::string(action) + " " + std::string(path));
}

std::vector<std::byte> bytes_of(const SimImage& image) {
  std::vector<std::byte> bytes(image.size());
  image.read(0, bytes);
  return bytes;
}

}  // namespace

SimStorage::SimStorage(const SimOptions& options) : state_(std::make_shared<SimState>(options)) {}
SimStorage::~SimStorage() = default;

std::unique_ptr<IoQueue> SimStorage::make_queue(unsigned depth) { return make_sim_queue(state_, depth); }

void SimStorage::fail_operation(std::uint64_t number, int error) {
  assert(number > 0 && error > 0);
  const std::lock_guard lock(state_->mutex);
  state_->operation_faults.push_back({number, error});
}

void SimStorage::crash_at_operation(std::uint64_t number) {
  assert(number > 0);
  const std::lock_guard lock(state_->mutex);
  state_->operations_to_crash = number;
}

void SimStorage::fail_reads(std::string_view path, ByteRange range, int error) {
  const std::lock_guard lock(state_->mutex);
  state_->read_faults.push_back({std::string(path), range, error});
}

void SimStorage::set_space(std::uint64_t bytes) {
  const std::lock_guard lock(state_->mutex);
  state_->options.space_bytes = bytes;
}

void SimStorage::clear_faults() {
  const std::lock_guard lock(state_->mutex);
  state_->operation_faults.clear();
  state_->operations_to_crash.reset();
  state_->read_faults.clear();
}

void SimStorage::crash() {
  const std::lock_guard lock(state_->mutex);
  state_->power_loss();
  state_->dead = false;
}

bool SimStorage::crashed() const {
  const std::lock_guard lock(state_->mutex);
  return state_->dead;
}

void SimStorage::restart() {
  const std::lock_guard lock(state_->mutex);
  assert(state_->dead);
  state_->dead = false;
}

std::vector<std::byte> SimStorage::content(std::string_view path) const {
  const std::lock_guard lock(state_->mutex);
  const auto node = state_->find(path);
  assert(node);
  return bytes_of(node->live);
}

std::vector<std::byte> SimStorage::durable_content(std::string_view path) const {
  const std::lock_guard lock(state_->mutex);
  const auto node = state_->find(path);
  assert(node);
  return bytes_of(node->durable);
}

std::size_t SimStorage::unsynced_changes(std::string_view path) const {
  const std::lock_guard lock(state_->mutex);
  const auto node = state_->find(path);
  assert(node);
  return node->unsynced.size();
}

SimCounters SimStorage::counters() const {
  const std::lock_guard lock(state_->mutex);
  return state_->counters;
}

void SimStorage::reset_counters() {
  const std::lock_guard lock(state_->mutex);
  state_->counters = {};
}

void SimStorage::add_block_device(std::string_view path, std::uint64_t size) {
  const std::lock_guard lock(state_->mutex);
  assert(!state_->find(path) && !state_->has_directory(path));
  const auto node = state_->add(path);
  node->is_block_device = true;
  node->live.resize(size);
  node->durable.resize(size);
}

Result<Storage::Kind> SimStorage::kind(std::string_view path) {
  BH_RETURN_IF_ERROR(check_store_path(path));
  const std::lock_guard lock(state_->mutex);
  if (const int error = state_->enter(state_->generation)) return failed(error, "look at", path);
  if (const auto node = state_->find(path)) return node->is_block_device ? Kind::block_device : Kind::file;
  return state_->has_directory(path) ? Kind::directory : Kind::none;
}

Result<std::unique_ptr<File>> SimStorage::open(std::string_view path, OpenMode mode) {
  BH_RETURN_IF_ERROR(check_store_path(path));
  const std::lock_guard lock(state_->mutex);
  if (const int error = state_->enter(state_->generation)) return failed(error, "open", path);
  if (state_->has_directory(path)) return make_error(IoErrc::not_a_disk, std::string(path));
  auto node = state_->find(path);
  if (!node) return failed(ENOENT, "open", path);
  return std::unique_ptr<File>(std::make_unique<SimFile>(state_, std::move(node), mode));
}

Result<std::unique_ptr<File>> SimStorage::create(std::string_view path) {
  BH_RETURN_IF_ERROR(check_store_path(path));
  const std::lock_guard lock(state_->mutex);
  if (const int error = state_->enter(state_->generation)) return failed(error, "create", path);
  if (!state_->has_directory(parent_of(path))) return failed(ENOENT, "create", path);
  if (state_->find(path) || state_->has_directory(path)) return failed(EEXIST, "create", path);
  return std::unique_ptr<File>(std::make_unique<SimFile>(state_, state_->add(path), OpenMode::write));
}

Result<void> SimStorage::clone(std::string_view from, std::string_view to) {
  BH_RETURN_IF_ERROR(check_store_path(from));
  BH_RETURN_IF_ERROR(check_store_path(to));
  const std::lock_guard lock(state_->mutex);
  if (const int error = state_->enter(state_->generation)) return failed(error, "clone", from);
  const auto node = state_->find(from);
  if (!node || !state_->has_directory(parent_of(to))) return failed(ENOENT, "clone", from);
  if (state_->find(to) || state_->has_directory(to)) return failed(EEXIST, "create", to);
  if (!state_->options.reflink || node->is_block_device)
    return make_error(IoErrc::clone_unsupported, std::string(from));
  const auto copy = state_->add(to);
  copy->live = copy->durable = node->live;
  return {};
}

Result<void> SimStorage::rename(std::string_view from, std::string_view to, bool replace) {
  BH_RETURN_IF_ERROR(check_store_path(from));
  BH_RETURN_IF_ERROR(check_store_path(to));
  const std::lock_guard lock(state_->mutex);
  if (const int error = state_->enter(state_->generation)) return failed(error, "rename", from);
  const auto node = state_->find(from);
  if (!node || !state_->has_directory(parent_of(to))) return failed(ENOENT, "rename", from);
  if (state_->has_directory(to)) return failed(replace ? EISDIR : EEXIST, "rename to", to);
  if (state_->find(to) && !replace) return failed(EEXIST, "rename to", to);
  if (from == to) return {};
  state_->nodes.erase(state_->nodes.find(from));
  node->path = to;
  node->version = state_->next_version++;
  if (node->unsynced.empty()) node->durable_version = node->version;
  state_->nodes[std::string(to)] = node;
  return {};
}

Result<void> SimStorage::remove(std::string_view path) {
  BH_RETURN_IF_ERROR(check_store_path(path));
  const std::lock_guard lock(state_->mutex);
  if (const int error = state_->enter(state_->generation)) return failed(error, "remove", path);
  if (state_->has_directory(path)) return failed(EISDIR, "remove", path);
  if (const auto found = state_->nodes.find(path); found != state_->nodes.end()) state_->nodes.erase(found);
  return {};
}

Result<void> SimStorage::make_directory(std::string_view path) {
  BH_RETURN_IF_ERROR(check_store_path(path));
  const std::lock_guard lock(state_->mutex);
  if (const int error = state_->enter(state_->generation)) return failed(error, "make the directory", path);
  for (std::string_view part = path; !part.empty(); part = parent_of(part))
    if (state_->find(part)) return failed(ENOTDIR, "make the directory", path);
  for (std::string_view part = path; !part.empty(); part = parent_of(part)) state_->directories.emplace(part);
  return {};
}

Result<void> SimStorage::remove_directory(std::string_view path) {
  BH_RETURN_IF_ERROR(check_store_path(path));
  const std::lock_guard lock(state_->mutex);
  if (const int error = state_->enter(state_->generation)) return failed(error, "remove the directory", path);
  if (state_->find(path)) return failed(ENOTDIR, "remove the directory", path);
  for (const auto& directory : state_->directories)
    if (stands_in(directory, path)) return failed(ENOTEMPTY, "remove the directory", path);
  std::erase_if(state_->nodes, [&](const auto& entry) { return stands_in(entry.first, path); });
  state_->directories.erase(std::string(path));
  return {};
}

Result<std::vector<std::string>> SimStorage::list(std::string_view path) {
  if (!path.empty()) BH_RETURN_IF_ERROR(check_store_path(path));
  const std::lock_guard lock(state_->mutex);
  if (const int error = state_->enter(state_->generation)) return failed(error, "list", path);
  if (!state_->has_directory(path)) return failed(state_->find(path) ? ENOTDIR : ENOENT, "list", path);
  std::vector<std::string> names;
  const std::size_t skip = path.empty() ? 0 : path.size() + 1;
  for (const auto& directory : state_->directories)
    if (stands_in(directory, path)) names.push_back(directory.substr(skip));
  for (const auto& [name, node] : state_->nodes)
    if (stands_in(name, path)) names.push_back(name.substr(skip));
  std::sort(names.begin(), names.end());
  return names;
}

Result<std::uint64_t> SimStorage::free_space_bytes() {
  const std::lock_guard lock(state_->mutex);
  if (const int error = state_->enter(state_->generation)) return failed(error, "ask the free space of", "the store");
  const std::uint64_t taken = state_->bytes_taken();
  return taken >= state_->options.space_bytes ? 0 : state_->options.space_bytes - taken;
}

}  // namespace backhaul::sim
