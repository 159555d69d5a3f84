// A whole transfer in one thread: source lanes and target lanes are stepped in turn, in an order under a seed, over
// simulated queues and in-memory streams; control messages are direct calls of a TargetStore.
// dataplane/source/send_attempt.cpp and dataplane/target/host_protocol.cpp do the same with threads and TLS. One seed,
// one run, except --verify full, which scans with threads.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dataplane/source/source_lane.h"
#include "dataplane/source/source_session.h"
#include "dataplane/target/target_lane.h"
#include "dataplane/target/target_store.h"
#include "sim/memory_stream.h"
#include "sim/sim_random.h"
#include "sim/sim_storage.h"

namespace backhaul::sim {

// Time that moves on by `step` at every look, so that a wait for a moment ends. Thread-safe.
class SimClock final : public Clock {
 public:
  explicit SimClock(Duration step = std::chrono::microseconds(50)) : step_(step.count()) {}
  Duration now() const override { return Duration(now_.fetch_add(step_) + step_); }
  std::int64_t unix_time_ms() const override { return 1'800'000'000'000; }
  void sleep_for(Duration duration) override { now_.fetch_add(duration.count()); }

 private:
  const std::int64_t step_;
  mutable std::atomic<std::int64_t> now_{0};
};

struct SimTransferOptions {
  OpenRequest request;  // size is filled in
  std::optional<std::vector<ByteRange>> changed;
  CompressMode compress = CompressMode::off;
  std::uint32_t lanes = 1;
  bool swap = true;
  std::uint64_t seed = 1;
};

// Both ends of one transfer, with what the source keeps over lost links. All that is referred to outlives it.
class SimTransfer {
 public:
  // `target` is where the store lies; queues come from `target_queues` (the same, when `target` is no decorator).
  SimTransfer(SimStorage& source, std::string source_path, Storage& target, SimStorage& target_queues, SimClock& clock,
              SimTransferOptions options);

  struct Outcome {
    OpenedSession opened;
    FinishResult finished;
    std::string source_root;  // empty when the source computed none
  };
  // One attempt: open, lanes, finish. On an error the source's session stays for the next attempt.
  Result<Outcome> attempt();
  // Attempts until one succeeds or fails for good, at most `limit`.
  Result<Outcome> run(unsigned limit = 20);
  // Replaces the host agent by a new one, as after a crash.
  void restart_target();
  // Restarts the source program with the same arguments; it knows nothing of earlier attempts.
  void restart_source();

  const SourceCounters& counters() const { return source_session_->counters(); }
  TargetStore& store() { return *store_; }
  SimTransferOptions& options() { return options_; }
  const OpenedSession& opened() const { return opened_; }
  unsigned attempts() const { return attempts_; }
  std::uint64_t wire_bytes() const { return wire_bytes_; }

  // Faults of the lanes' links; called for every lane of every attempt.
  struct LinkFaults {
    MemoryDirection to_target, to_source;
    std::uint64_t fail_at_operation = MemoryDirection::kNever;  // of the source's end
  };
  std::function<LinkFaults(unsigned attempt, std::uint32_t lane)> link_faults;
  // Called before every step of a lane.
  std::function<void()> before_step;

 private:
  struct Source;
  struct Target;
  Result<void> open_source(std::uint64_t padded_size);
  Result<void> prepare_session();
  Result<void> run_lanes();
  Result<std::string> source_root();

  SimStorage& source_;
  const std::string source_path_;
  Storage& target_;
  SimStorage& target_queues_;
  SimClock& clock_;
  SimTransferOptions options_;
  SimRandom random_;
  std::unique_ptr<BlockHasher> hasher_, keyed_hasher_;
  std::unique_ptr<TargetStore> store_;
  std::unique_ptr<Disk> disk_;
  std::unique_ptr<SourceSession> source_session_;  // destroyed before the disk that it reads
  OpenedSession opened_;
  std::optional<std::string> sent_root_;  // of the last finish that was asked for
  std::uint64_t source_size_ = 0, epoch_ = 0, transfer_ = 0, wire_bytes_ = 0;
  unsigned attempts_ = 0;
};

// The parts of a store or a scan over `storage`.
DataplaneParts sim_parts(SimStorage& storage, Clock& clock, Random& random);

}  // namespace backhaul::sim
