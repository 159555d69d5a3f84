#include "sim/sim_transfer.h"

#include <malloc.h>

#include "dataplane/scan/scan.h"
#include "transport/stream/transport_error.h"

namespace backhaul::sim {
namespace {

// More steps than any test's transfer needs: two lanes wait for each other.
constexpr std::uint64_t kMaxSteps = 2'000'000;

// Hundreds of lanes come and go, with 14 MiB each: keeping their pages saves page faults.
void keep_large_memory() {
  static const bool once =
      mallopt(M_MMAP_THRESHOLD, 32 * 1024 * 1024) != 0 && mallopt(M_TRIM_THRESHOLD, 512 * 1024 * 1024) != 0;
  (void)once;
}

// Keeps the error that says most: a final one before one that can be retried, the first before its consequences.
void note_error(std::optional<Error>& kept, Error error) {
  if (!kept || (kept->retry() == Retry::later && error.retry() != Retry::later)) kept = std::move(error);
}

// A lane with its queue. The queue goes before the lane, whose memory it may still fill.
template <class SomeLane>
struct End {
  std::unique_ptr<MemoryStream> stream;
  std::unique_ptr<SomeLane> lane;
  std::unique_ptr<IoQueue> queue;
  bool ended = false;

  void drain() {
    while (queue->in_flight() > 0)
      if (!queue->wait(nullptr, std::chrono::seconds(1))) break;
    queue.reset();
  }
  Result<bool> step() {
    BH_TRY(const auto completions, queue->wait(nullptr, Clock::Duration::zero()));
    BH_TRY(const auto status, lane->step(completions));
    return status.finished;
  }
};

}  // namespace

struct SimTransfer::Source : End<SourceLane> {};
struct SimTransfer::Target : End<TargetLane> {
  std::optional<SessionUse> use;
};

DataplaneParts sim_parts(SimStorage& storage, Clock& clock, Random& random) {
  DataplaneParts parts;
  parts.make_queue = [&storage]() -> Result<std::unique_ptr<IoQueue>> { return storage.make_queue(); };
  parts.make_hasher = [] { return make_block_hasher(HashKernel::one_buffer); };
  parts.clock = &clock;
  parts.random = &random;
  return parts;
}

SimTransfer::SimTransfer(SimStorage& source, std::string source_path, Storage& target, SimStorage& target_queues,
                         SimClock& clock, SimTransferOptions options)
    : source_(source),
      source_path_(std::move(source_path)),
      target_(target),
      target_queues_(target_queues),
      clock_(clock),
      options_(std::move(options)),
      random_(options_.seed),
      hasher_(make_block_hasher(HashKernel::one_buffer).value()),
      epoch_(options_.request.epoch) {
  keep_large_memory();
  restart_target();
}

void SimTransfer::restart_target() {
  store_ = std::make_unique<TargetStore>(target_, sim_parts(target_queues_, clock_, random_));
}

void SimTransfer::restart_source() {
  source_session_.reset();
  disk_.reset();
  source_size_ = transfer_ = 0;
  sent_root_.reset();
  epoch_ = options_.request.epoch;
}

Result<void> SimTransfer::open_source(std::uint64_t padded_size) {
  source_session_.reset();
  disk_.reset();
  std::uint64_t round_up = 1;
  if (padded_size != 0) round_up = padded_size == align_up(source_size_, 512) ? 512 : 4096;
  BH_TRY(auto file, source_.open(source_path_, OpenMode::read));
  BH_TRY(disk_, open_disk(std::move(file), OpenMode::read, random_, round_up));
  if (padded_size == 0) source_size_ = disk_->size();
  if (padded_size != 0 && padded_size != disk_->size())
    return make_error(EngineErrc::target_size_differs, "target " + std::to_string(padded_size));
  return {};
}

Result<void> SimTransfer::prepare_session() {
  if (source_session_ && !opened_.resumed) source_session_.reset();
  if (opened_.size != disk_->size()) BH_RETURN_IF_ERROR(open_source(opened_.size));
  if (source_session_) return {};
  std::optional<ChangedBlocks> changed;
  if (options_.changed) {
    BH_TRY(auto made, ChangedBlocks::make(*options_.changed, disk_->size()));
    changed = std::move(made);
  }
  source_session_ = std::make_unique<SourceSession>(*disk_, options_.request.verify, std::move(changed));
  return {};
}

Result<SimTransfer::Outcome> SimTransfer::attempt() {
  ++attempts_;
  if (!disk_) BH_RETURN_IF_ERROR(open_source(0));
  auto request = options_.request;
  request.size = source_size_;
  request.changed_only = options_.changed.has_value();
  request.epoch = epoch_;
  request.transfer = transfer_;
  BH_TRY(auto control, store_->open(request, std::chrono::milliseconds(0), opened_));
  if (opened_.finished) {
    if (!sent_root_) return make_error(EngineErrc::session_fenced, "another run finished the transfer");
    if (!sent_root_->empty() && !opened_.root_digest.empty() && *sent_root_ != opened_.root_digest)
      return make_error(EngineErrc::root_mismatch);
    return Outcome{opened_, {opened_.root_digest, 0}, *sent_root_};
  }
  epoch_ = opened_.epoch;
  transfer_ = opened_.transfer;
  BH_RETURN_IF_ERROR(prepare_session());
  BH_RETURN_IF_ERROR(run_lanes());
  Outcome outcome;
  outcome.opened = opened_;
  BH_TRY(outcome.source_root, source_root());
  // From here the target may have finished although its answer is lost: a retry asks.
  sent_root_ = outcome.source_root;
  BH_TRY(outcome.finished, store_->finish(*control, {outcome.source_root, options_.swap}, nullptr));
  return outcome;
}

Result<SimTransfer::Outcome> SimTransfer::run(unsigned limit) {
  while (true) {
    auto outcome = attempt();
    // An acknowledged extent is on record, so no attempt may find one missing.
    if (outcome || outcome.error().retry() != Retry::later || outcome.error().is(EngineErrc::session_incomplete) ||
        --limit == 0)
      return outcome;
  }
}

Result<std::string> SimTransfer::source_root() {
  if (const auto root = source_session_->root_digest()) return to_hex(*root);
  if (options_.request.verify != VerifyMode::full) return std::string();
  BH_TRY(const auto root, scan_disk(*disk_, sim_parts(source_, clock_, random_)));
  return to_hex(root);
}

Result<void> SimTransfer::run_lanes() {
  std::vector<Source> sources(options_.lanes);
  std::vector<Target> targets(options_.lanes);
  SourceLaneOptions lane_options;
  lane_options.epoch = opened_.epoch;
  lane_options.compare = opened_.compare;
  lane_options.blank = opened_.blank;
  lane_options.compare_by = opened_.compare_by;
  if (opened_.compare_by == CompareBy::gmac) {
    BH_TRY(keyed_hasher_, make_gmac_hasher(*options_.request.compare_key));
  }
  auto& hasher = opened_.compare_by == CompareBy::gmac ? *keyed_hasher_ : *hasher_;
  lane_options.compress = options_.compress;
  std::optional<Error> failed;
  for (std::uint32_t i = 0; i < options_.lanes; ++i) {
    const auto faults = link_faults ? link_faults(attempts_, i) : LinkFaults{};
    std::tie(sources[i].stream, targets[i].stream) = make_memory_pair(faults.to_target, faults.to_source);
    if (faults.fail_at_operation != MemoryDirection::kNever) sources[i].stream->fail_at(faults.fail_at_operation);
    BH_TRY(auto use, store_->join(opened_.session, opened_.epoch));
    targets[i].use.emplace(std::move(use));
    sources[i].queue = source_.make_queue();
    targets[i].queue = target_queues_.make_queue();
    sources[i].lane = std::make_unique<SourceLane>(*source_session_, lane_options, *sources[i].stream,
                                                   *sources[i].queue, hasher, clock_);
    targets[i].lane =
        std::make_unique<TargetLane>(**targets[i].use, *targets[i].stream, *targets[i].queue, hasher, clock_);
  }
  // All lanes stop when one fails, as the sender's do; the target's go on until they see it.
  std::uint64_t steps = 0;
  auto open = 2 * static_cast<std::size_t>(options_.lanes);
  while (open > 0) {
    const auto pick = random_.below(2 * options_.lanes);
    if (before_step) before_step();
    if (++steps > kMaxSteps) return make_error(BaseErrc::timed_out, "the simulated lanes wait for each other");
    if (pick % 2 == 0) {
      auto& source = sources[pick / 2];
      if (source.ended) continue;
      auto finished = failed ? Result<bool>(true) : source.step();
      if (!finished) note_error(failed, std::move(finished).error());
      if (finished && !*finished) continue;
      source.stream->close();
      source.drain();
      source.ended = true;
      --open;
    } else {
      auto& target = targets[pick / 2];
      if (target.ended) continue;
      auto finished = target.step();
      if (!finished) {
        const auto error = std::move(finished).error();
        if (!error.is(TransportErrc::closed) && !error.is(TransportErrc::lost))
          target.lane->send_error(error, std::chrono::milliseconds(100));
        // A real target tells the source why the lane ended, while the link carries it; here it is known in any case.
        if (!failed || failed->retry() == Retry::later) note_error(failed, error);
      } else if (!*finished) {
        continue;
      }
      target.drain();
      target.stream->close();
      target.ended = true;
      --open;
    }
  }
  for (std::uint32_t i = 0; i < options_.lanes; ++i)
    wire_bytes_ += sources[i].stream->wire_bytes_sent() + sources[i].stream->wire_bytes_received();
  if (failed) return std::move(*failed);
  return {};
}

}  // namespace backhaul::sim
