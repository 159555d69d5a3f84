// What SimStorage, its files and its queues share; internal to tests/sim/sim_*.cpp. Every member needs `mutex` held.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "sim/sim_image.h"
#include "sim/sim_random.h"
#include "sim/sim_storage.h"

namespace backhaul::sim {

inline constexpr std::uint64_t kSectorSize = 512;

struct Change {
  enum class Kind { write, zero, resize };
  Kind kind = Kind::write;
  std::uint64_t offset = 0, length = 0;  // resize: the new size as length
  std::vector<std::byte> bytes;          // write only
};

// An inode. Lives on while a File has it open, whatever happens to its name.
struct Node {
  std::string path;
  std::uint64_t number = 0;
  bool is_block_device = false;
  SimImage live, durable;
  std::vector<Change> unsynced;  // from durable to live, in order
  std::int64_t version = 0, durable_version = 0;
};

// A queue as a power loss sees it.
class PendingWrites {
 public:
  virtual ~PendingWrites() = default;
  // Moves the writes that have begun to their nodes' unsynced changes.
  virtual void begin_pending_writes(SimRandom& random) = 0;
};

class SimState {
 public:
  explicit SimState(const SimOptions& given) : options(given), random(given.seed) {}

  // Counts an operation of a holder from `holder_generation` and gives the errno that it must fail with, or 0.
  int enter(std::uint64_t holder_generation);
  // Both give an errno or 0.
  int change(Node& node, Change change);
  int check_read(const Node& node, std::uint64_t offset, std::uint64_t length) const;
  void sync(Node& node);
  void power_loss();
  std::shared_ptr<Node> find(std::string_view path) const;
  std::shared_ptr<Node> add(std::string_view path);
  bool has_directory(std::string_view path) const { return path.empty() || directories.count(std::string(path)) != 0; }
  std::uint64_t bytes_taken() const;

  std::mutex mutex;
  SimOptions options;
  SimRandom random;
  std::map<std::string, std::shared_ptr<Node>, std::less<>> nodes;
  std::set<std::string> directories;
  std::set<PendingWrites*> queues;
  std::uint64_t queues_made = 0;
  SimCounters counters;
  std::uint64_t generation = 1;  // grows with each restart
  bool dead = false;
  std::uint64_t next_node = 1;
  std::int64_t next_version = 1;

  struct OperationFault {
    std::uint64_t operations_left = 0;
    int error = 0;
  };
  struct ReadFault {
    std::string path;
    ByteRange range;
    int error = 0;
  };
  std::vector<OperationFault> operation_faults;
  std::optional<std::uint64_t> operations_to_crash;
  std::vector<ReadFault> read_faults;

 private:
  void tear(Node& node);
};

class SimFile final : public File {
 public:
  SimFile(std::shared_ptr<SimState> state, std::shared_ptr<Node> node, OpenMode mode);

  const std::string& name() const noexcept override { return name_; }
  std::uint64_t size() const noexcept override;
  bool is_block_device() const noexcept override { return node_->is_block_device; }
  std::uint32_t io_alignment() const noexcept override { return state_->options.io_alignment; }
  Result<void> read_at(std::uint64_t offset, MutableBytes into) override;
  Result<void> write_at(std::uint64_t offset, Bytes from) override;
  Result<void> zero_at(std::uint64_t offset, std::uint64_t length) override;
  Result<void> resize(std::uint64_t size) override;
  Result<void> sync() override;
  Result<std::optional<ByteRange>> next_data(std::uint64_t from) override;
  void drop_cache(std::uint64_t, std::uint64_t) noexcept override {}
  Result<FileIdentity> identity() override;

  // For queues, with the state's mutex held.
  const std::shared_ptr<SimState>& state() const noexcept { return state_; }
  const std::shared_ptr<Node>& node() const noexcept { return node_; }
  std::uint64_t generation() const noexcept { return generation_; }
  bool writable() const noexcept { return mode_ == OpenMode::write; }
  // As on Linux: a sync that failed once fails for ever, because what it lost is not written again.
  int sync_now(int injected);

 private:
  Error failed(int number, const char* action) const { return Error::from_errno(number, action + (" " + name_)); }
  Result<void> apply(const char* action, Change change);

  const std::shared_ptr<SimState> state_;
  const std::shared_ptr<Node> node_;
  const std::string name_;
  const OpenMode mode_;
  const std::uint64_t generation_;
  int failed_sync_ = 0;
};

std::unique_ptr<IoQueue> make_sim_queue(std::shared_ptr<SimState> state, unsigned depth);

}  // namespace backhaul::sim
