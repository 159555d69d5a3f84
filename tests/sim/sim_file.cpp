#include <cerrno>

#include "sim/sim_state.h"

namespace backhaul::sim {

SimFile::SimFile(std::shared_ptr<SimState> state, std::shared_ptr<Node> node, OpenMode mode)
    : state_(std::move(state)),
      node_(std::move(node)),
      name_(node_->path),
      mode_(mode),
      generation_(state_->generation) {}

std::uint64_t SimFile::size() const noexcept {
  const std::lock_guard lock(state_->mutex);
  return node_->live.size();
}

Result<void> SimFile::read_at(std::uint64_t offset, MutableBytes into) {
  const std::lock_guard lock(state_->mutex);
  if (const int error = state_->enter(generation_)) return failed(error, "read");
  if (const int error = state_->check_read(*node_, offset, into.size())) return failed(error, "read");
  const std::uint64_t size = node_->live.size();
  if (offset > size || into.size() > size - offset)
    return make_error(IoErrc::unexpected_end, name_ + " at " + std::to_string(offset));
  node_->live.read(offset, into);
  state_->counters.bytes_read += into.size();
  ++state_->counters.reads;
  return {};
}

Result<void> SimFile::apply(const char* action, Change change) {
  if (const int error = state_->enter(generation_)) return failed(error, action);
  if (!writable()) return failed(EBADF, action);
  if (const int error = state_->change(*node_, std::move(change))) return failed(error, action);
  return {};
}

Result<void> SimFile::write_at(std::uint64_t offset, Bytes from) {
  const std::lock_guard lock(state_->mutex);
  if (from.empty()) return {};
  if (node_->is_block_device && offset + from.size() > node_->live.size()) return failed(ENOSPC, "write");
  return apply("write", {Change::Kind::write, offset, from.size(), {from.begin(), from.end()}});
}

Result<void> SimFile::zero_at(std::uint64_t offset, std::uint64_t length) {
  const std::lock_guard lock(state_->mutex);
  if (offset > node_->live.size() || length > node_->live.size() - offset)
    return make_error(BaseErrc::invalid_argument, "zero " + name_ + " past its end");
  if (length == 0) return {};
  return apply("zero", {Change::Kind::zero, offset, length, {}});
}

Result<void> SimFile::resize(std::uint64_t size) {
  const std::lock_guard lock(state_->mutex);
  if (node_->is_block_device) return make_error(IoErrc::fixed_size, name_);
  return apply("resize", {Change::Kind::resize, 0, size, {}});
}

int SimFile::sync_now(int injected) {
  if (failed_sync_ == 0) failed_sync_ = injected;
  if (failed_sync_ == 0) state_->sync(*node_);
  return failed_sync_;
}

Result<void> SimFile::sync() {
  const std::lock_guard lock(state_->mutex);
  if (const int error = sync_now(state_->enter(generation_))) return failed(error, "sync");
  return {};
}

Result<std::optional<ByteRange>> SimFile::next_data(std::uint64_t from) {
  const std::lock_guard lock(state_->mutex);
  if (const int error = state_->enter(generation_)) return failed(error, "find data in");
  const std::uint64_t size = node_->live.size();
  if (from >= size) return std::optional<ByteRange>();
  if (node_->is_block_device) return std::optional<ByteRange>(ByteRange{from, size - from});
  return node_->live.next_data(from);
}

Result<FileIdentity> SimFile::identity() {
  const std::lock_guard lock(state_->mutex);
  if (const int error = state_->enter(generation_)) return failed(error, "look at");
  FileIdentity identity{1, node_->number, node_->live.size(), 0, 0};
  if (!node_->is_block_device) identity.modified_ns = identity.changed_ns = node_->version;
  return identity;
}

}  // namespace backhaul::sim
