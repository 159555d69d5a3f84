#include <algorithm>
#include <cerrno>
#include <deque>
#include <mutex>

#include "dataplane/nbd/nbd.h"
#include "dataplane/nbd/nbd_connection.h"
#include "dataplane/nbd/nbd_status.h"

namespace backhaul {
namespace {

// Remembered replies: lanes read near each other, and a scan runs ahead of them.
constexpr std::size_t kKeptReplies = 8;

// A hole without the flag that it reads as zeros may hold anything.
bool holds_data(std::uint32_t flags) { return (flags & LIBNBD_STATE_ZERO) == 0; }

class NbdFile final : public File {
 public:
  explicit NbdFile(std::shared_ptr<NbdConnection> connection) : connection_(std::move(connection)) {}

  const std::string& name() const noexcept override { return connection_->name(); }
  std::uint64_t size() const noexcept override { return connection_->size(); }
  bool is_block_device() const noexcept override { return true; }
  std::uint32_t io_alignment() const noexcept override {
    return std::max<std::uint32_t>(4096, static_cast<std::uint32_t>(connection_->minimum_block()));
  }

  Result<void> read_at(std::uint64_t offset, MutableBytes into) override;
  Result<void> write_at(std::uint64_t, Bytes) override { return read_only(); }
  Result<void> zero_at(std::uint64_t, std::uint64_t) override { return read_only(); }
  Result<void> resize(std::uint64_t) override { return make_error(IoErrc::fixed_size, name()); }
  Result<void> sync() override { return {}; }
  Result<std::optional<ByteRange>> next_data(std::uint64_t from) override;
  void drop_cache(std::uint64_t, std::uint64_t) noexcept override {}
  Result<FileIdentity> identity() override { return FileIdentity{0, 0, size(), 0, 0}; }
  Result<std::unique_ptr<IoQueue>> own_queue() override;

 private:
  Error read_only() const { return Error::from_errno(EROFS, "write " + name()); }
  Result<const NbdStatus*> status_of(std::uint64_t at);

  const std::shared_ptr<NbdConnection> connection_;
  std::mutex status_mutex_;
  std::deque<NbdStatus> statuses_;  // the newest first
};

Result<void> NbdFile::read_at(std::uint64_t offset, MutableBytes into) {
  BH_TRY(const auto queue, make_nbd_queue(connection_));
  queue->read(*this, offset, into, 0);
  while (queue->in_flight() > 0) {
    BH_TRY(const auto completions, queue->wait(nullptr, connection_->timeouts().reply));
    if (completions.empty()) continue;
    if (completions[0].error != 0)
      return Error::from_errno(completions[0].error, "read " + name() + " at " + std::to_string(offset));
    if (completions[0].bytes < into.size()) return make_error(IoErrc::unexpected_end, name());
  }
  return {};
}

// REQUIRES: status_mutex_ is held, `at` is inside the export. Valid until the next call.
Result<const NbdStatus*> NbdFile::status_of(std::uint64_t at) {
  for (const auto& status : statuses_)
    if (status.begin <= at && at < status.end) return &status;
  BH_TRY(auto status, ask_nbd_status(*connection_, at, holds_data));
  statuses_.push_front(std::move(status));
  if (statuses_.size() > kKeptReplies) statuses_.pop_back();
  return &statuses_.front();
}

Result<std::optional<ByteRange>> NbdFile::next_data(std::uint64_t from) {
  if (from >= size()) return std::optional<ByteRange>();
  if (!connection_->tells_context()) return std::optional(ByteRange{from, size() - from});
  const std::lock_guard lock(status_mutex_);
  while (from < size()) {
    BH_TRY(const auto* status, status_of(from));
    const auto run = std::partition_point(status->marked.begin(), status->marked.end(),
                                          [&](const ByteRange& range) { return range.end() <= from; });
    if (run == status->marked.end()) {
      from = status->end;
      continue;
    }
    const auto begin = std::max(from, run->offset);
    return std::optional(ByteRange{begin, run->end() - begin});
  }
  return std::optional<ByteRange>();
}

Result<std::unique_ptr<IoQueue>> NbdFile::own_queue() {
  if (!connection_->takes_several_clients()) return make_nbd_queue(connection_);
  BH_TRY(auto another, NbdConnection::open(name()));
  if (another->size() != size()) return make_error(NbdErrc::bad_server, name() + ": its size changed");
  return make_nbd_queue(std::move(another));
}

}  // namespace

Result<std::unique_ptr<File>> open_nbd_file(const std::string& uri) {
  BH_RETURN_IF_ERROR(check_nbd_uri(uri));
  BH_TRY(auto connection, NbdConnection::open(uri));
  return make_nbd_file(std::move(connection));
}

std::unique_ptr<File> make_nbd_file(std::shared_ptr<NbdConnection> connection) {
  return std::make_unique<NbdFile>(std::move(connection));
}

}  // namespace backhaul
