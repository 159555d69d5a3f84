#include <algorithm>
#include <cerrno>
#include <deque>
#include <mutex>
#include <vector>

#include "dataplane/nbd.h"
#include "dataplane/nbd_connection.h"

namespace backhaul {
namespace {

// Of one block status request. NBD's lengths have 32 bits.
constexpr std::uint64_t kAskAtOnce = std::uint64_t{1} << 30;
// Replies that are remembered: lanes read near each other, a scan of what comes next runs ahead of them.
constexpr std::size_t kKeptReplies = 8;
// Runs that are taken from one reply (1 MiB of memory); what follows is asked for again.
constexpr std::size_t kMaxRuns = 65536;

// What the server said of [begin, end): runs of what may be other than zeros, apart from each other.
struct Status {
  std::uint64_t begin = 0, end = 0;
  std::uint64_t limit = 0;  // of what was asked
  std::vector<ByteRange> data;

  // One reply, of one context. A hole without the flag that it reads as zeros may hold anything.
  static int on_extents(void* self, const char* context, std::uint64_t offset, std::uint32_t* entries,
                        std::size_t count, int*) {
    auto& status = *static_cast<Status*>(self);
    if (std::string_view(context) != LIBNBD_CONTEXT_BASE_ALLOCATION || offset != status.end) return 0;
    for (std::size_t i = 0; i + 1 < count && status.data.size() < kMaxRuns; i += 2)
      status.add(entries[i], (entries[i + 1] & LIBNBD_STATE_ZERO) != 0);
    return 0;
  }

  void add(std::uint64_t length, bool zero) {
    length = std::min(length, limit - end);  // a server may say more than it was asked
    if (!zero && length != 0) {
      if (!data.empty() && data.back().end() == end)
        data.back().length += length;
      else
        data.push_back({end, length});
    }
    end += length;
  }
};

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
  Result<const Status*> status_of(std::uint64_t at);

  const std::shared_ptr<NbdConnection> connection_;
  std::mutex status_mutex_;
  std::deque<Status> statuses_;  // the newest first
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
Result<const Status*> NbdFile::status_of(std::uint64_t at) {
  for (const auto& status : statuses_)
    if (status.begin <= at && at < status.end) return &status;
  Status status;
  status.begin = status.end = align_down(at, connection_->minimum_block());
  status.limit = std::min(size(), status.begin + kAskAtOnce);
  const auto ask = [&](nbd_completion_callback done) {
    return nbd_aio_block_status(connection_->handle(), status.limit - status.begin, status.begin,
                                {&Status::on_extents, &status, nullptr}, done, 0);
  };
  BH_TRY(const int error, connection_->run(ask, connection_->timeouts().reply));
  if (error != 0) return Error::from_errno(error, "block status of " + name() + " at " + std::to_string(at));
  if (status.end <= at) return make_error(NbdErrc::bad_server, name() + ": an empty block status");
  statuses_.push_front(std::move(status));
  if (statuses_.size() > kKeptReplies) statuses_.pop_back();
  return &statuses_.front();
}

Result<std::optional<ByteRange>> NbdFile::next_data(std::uint64_t from) {
  if (from >= size()) return std::optional<ByteRange>();
  if (!connection_->tells_holes()) return std::optional(ByteRange{from, size() - from});
  const std::lock_guard lock(status_mutex_);
  while (from < size()) {
    BH_TRY(const auto* status, status_of(from));
    const auto run = std::partition_point(status->data.begin(), status->data.end(),
                                          [&](const ByteRange& range) { return range.end() <= from; });
    if (run == status->data.end()) {
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
  BH_CHECK(check_nbd_uri(uri));
  BH_TRY(auto connection, NbdConnection::open(uri));
  return make_nbd_file(std::move(connection));
}

std::unique_ptr<File> make_nbd_file(std::shared_ptr<NbdConnection> connection) {
  return std::make_unique<NbdFile>(std::move(connection));
}

}  // namespace backhaul
