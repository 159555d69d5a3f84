#include "sim/memory_stream.h"

#include <algorithm>
#include <deque>
#include <mutex>

#include "transport/stream/transport_error.h"

namespace backhaul::sim {
namespace {

struct Pipe {
  struct Chunk {
    std::uint64_t ripe_at = 0;  // the receiver's step at which it can be read
    std::vector<std::byte> bytes;
    std::size_t read = 0;
  };
  MemoryDirection faults;
  std::deque<Chunk> chunks;
  std::size_t in_flight = 0;
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
  std::uint64_t step = 0;
  bool closed = false;
};

struct Link {
  std::mutex mutex;
  Pipe pipes[2];
  bool broken = false;
};

Error lost() { return make_error(TransportErrc::lost, "the simulated link broke"); }

class MemoryEnd final : public MemoryStream {
 public:
  MemoryEnd(std::shared_ptr<Link> link, int side)
      : link_(std::move(link)), out_(link_->pipes[side]), in_(link_->pipes[1 - side]) {}
  ~MemoryEnd() override { close(); }

  Result<std::size_t> read_some(MutableBytes into) override {
    const std::lock_guard lock(link_->mutex);
    BH_RETURN_IF_ERROR(count_operation());
    ++in_.step;
    const auto limit = std::min(into.size(), in_.faults.max_read);
    std::size_t total = 0;
    while (total < limit && !in_.chunks.empty()) {
      auto& chunk = in_.chunks.front();
      // A broken link delays nothing: what was sent can be read at once.
      if (chunk.ripe_at > in_.step && !link_->broken) break;
      const auto count = std::min(limit - total, chunk.bytes.size() - chunk.read);
      std::copy_n(chunk.bytes.begin() + static_cast<std::ptrdiff_t>(chunk.read), count,
                  into.begin() + static_cast<std::ptrdiff_t>(total));
      chunk.read += count;
      total += count;
      if (chunk.read == chunk.bytes.size()) in_.chunks.pop_front();
    }
    in_.in_flight -= total;
    in_.received += total;
    if (total > 0 || into.empty()) return total;
    if (!in_.chunks.empty()) return 0U;
    if (in_.closed) return make_error(TransportErrc::closed, "the simulated peer closed");
    if (link_->broken) return lost();
    return 0U;
  }

  Result<std::size_t> write_some(Bytes from) override {
    const std::lock_guard lock(link_->mutex);
    BH_RETURN_IF_ERROR(count_operation());
    if (link_->broken || in_.closed || out_.closed) return lost();
    auto count = std::min(
        {from.size(), out_.faults.max_write, out_.faults.window - std::min(out_.faults.window, out_.in_flight)});
    const auto until_cut = out_.faults.cut_after - out_.sent;
    count = static_cast<std::size_t>(std::min<std::uint64_t>(count, until_cut));
    if (count > 0) {
      Pipe::Chunk chunk{in_delay(), {from.begin(), from.begin() + static_cast<std::ptrdiff_t>(count)}};
      for (const auto& flip : out_.faults.flips)
        if (flip.offset >= out_.sent && flip.offset < out_.sent + count)
          chunk.bytes[flip.offset - out_.sent] ^= std::byte{1} << (flip.bit % 8);
      out_.chunks.push_back(std::move(chunk));
      out_.sent += count;
      out_.in_flight += count;
    }
    if (out_.sent >= out_.faults.cut_after) link_->broken = true;
    return count;
  }

  Result<bool> flush() override {
    const std::lock_guard lock(link_->mutex);
    BH_RETURN_IF_ERROR(count_operation());
    if (link_->broken) return lost();
    return true;
  }

  PollHandle poll_handle() const noexcept override { return -1; }
  bool has_buffered_input() const noexcept override {
    const std::lock_guard lock(link_->mutex);
    return !in_.chunks.empty();
  }
  void close() noexcept override {
    const std::lock_guard lock(link_->mutex);
    if (!link_->broken) out_.closed = true;
  }
  std::uint64_t wire_bytes_sent() const noexcept override { return counter(out_.sent); }
  std::uint64_t wire_bytes_received() const noexcept override { return counter(in_.received); }
  std::string peer_name() const override { return {}; }

  void cut() override {
    const std::lock_guard lock(link_->mutex);
    link_->broken = true;
  }
  void fail_at(std::uint64_t operation) override {
    const std::lock_guard lock(link_->mutex);
    fail_at_ = operations_ + operation;
  }
  std::uint64_t operations() const override { return counter(operations_); }

 private:
  std::uint64_t counter(const std::uint64_t& value) const {
    const std::lock_guard lock(link_->mutex);
    return value;
  }
  std::uint64_t in_delay() const { return out_.faults.delay_steps == 0 ? 0 : out_.step + out_.faults.delay_steps; }
  Result<void> count_operation() {
    if (operations_++ < fail_at_) return {};
    link_->broken = true;
    return lost();
  }

  std::shared_ptr<Link> link_;
  Pipe& out_;
  Pipe& in_;
  std::uint64_t operations_ = 0;
  std::uint64_t fail_at_ = MemoryDirection::kNever;
};

}  // namespace

MemoryPair make_memory_pair(MemoryDirection first_to_second, MemoryDirection second_to_first) {
  auto link = std::make_shared<Link>();
  link->pipes[0].faults = std::move(first_to_second);
  link->pipes[1].faults = std::move(second_to_first);
  return {std::make_unique<MemoryEnd>(link, 0), std::make_unique<MemoryEnd>(link, 1)};
}

}  // namespace backhaul::sim
