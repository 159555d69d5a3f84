#include "dataplane/source/send_attempt.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <thread>

#include "dataplane/nbd/nbd.h"
#include "dataplane/protocol/engine_error.h"
#include "dataplane/protocol/messages.h"
#include "dataplane/scan/scan.h"
#include "dataplane/source/source_file.h"
#include "dataplane/source/source_lane.h"
#include "transport/frames/frame_io.h"
#include "transport/stream/transport_error.h"

namespace backhaul {
namespace {

// Padding that a target of another format may ask for, smallest first.
constexpr std::uint64_t kSectorSizes[] = {512, 4096};

Result<std::unique_ptr<ControlChannel>> open_channel(const DialStream& dial, Hello& hello) {
  BH_TRY(auto stream, dial(kConnectTimeout));
  auto channel = std::make_unique<ControlChannel>(std::move(stream));
  BH_TRY(hello, exchange_hello(*channel, kConnectTimeout));
  return channel;
}

class SendAttempt {
 public:
  explicit SendAttempt(SendState& send) : send_(send) {}

  Result<SendResult> run() {
    send_.report("connect", 0, 0);
    Hello hello;
    BH_TRY(auto control, open_channel(send_.dial, hello));
    OpenRequest open;
    open.disk = send_.request.target.disk;
    open.size = send_.source_size;
    open.sync = send_.request.sync;
    open.verify = send_.request.verify;
    open.staging = send_.request.staging;
    open.format = send_.request.format;
    open.changed_only = send_.request.changed.has_value();
    open.epoch = send_.epoch;
    open.transfer = send_.transfer;
    open.compare_key = compare_key_ = make_compare_key();
    BH_RETURN_IF_ERROR(control->send(FrameType::open, to_json(open), 0, kSendTimeout));
    BH_TRY(const auto answer, control->expect(FrameType::opened, kAnswerTimeout));
    BH_TRY(opened_, opened_from_json(answer.body));
    send_.opened_once = true;
    if (opened_.compare_by == CompareBy::gmac && (!compare_key_ || !opened_.compare))
      return make_error(TransportErrc::bad_message, "field 'keyed'");
    if (opened_.finished) return finished_before(*control);
    send_.epoch = opened_.epoch;
    send_.transfer = opened_.transfer;
    BH_RETURN_IF_ERROR(prepare_session());
    BH_RETURN_IF_ERROR(run_lanes(hello.zstd));
    auto result = finish(*control);
    close(control->stream());
    return result;
  }

 private:
  // One for each attempt: nobody can have chosen content for it.
  std::optional<GmacKey> make_compare_key() {
    if (send_.request.compare_by != CompareBy::gmac || !gmac_available()) return std::nullopt;
    const std::array<std::uint64_t, 2> random{send_.parts.random->next(), send_.parts.random->next()};
    GmacKey key;
    std::memcpy(key.data(), random.data(), key.size());
    return key;
  }

  void close(ByteStream& stream) {
    send_.wire_bytes += stream.wire_bytes_sent() + stream.wire_bytes_received();
    stream.close();
  }

  // The answer to this sender's finish was lost: the target has swapped the disk in under our epoch.
  Result<SendResult> finished_before(ControlChannel& control) {
    close(control.stream());
    if (!send_.session || !send_.sent_root)
      return make_error(EngineErrc::session_fenced,
                        "another run finished the transfer of " + send_.request.target.disk);
    FinishResult finished;
    finished.root_digest = opened_.root_digest;
    return check_result(*send_.sent_root, finished);
  }

  Result<void> prepare_session() {
    // A retry goes on with what was acknowledged, unless the target has started anew.
    if (send_.session && !opened_.resumed) send_.session.reset();
    if (opened_.size != send_.disk->size()) BH_RETURN_IF_ERROR(send_.open_source(opened_.size));
    if (send_.session) return {};
    std::optional<ChangedBlocks> changed;
    if (send_.request.changed) {
      BH_TRY(auto made, ChangedBlocks::make(*send_.request.changed, send_.disk->size()));
      changed = std::move(made);
    }
    send_.session = std::make_unique<SourceSession>(*send_.disk, send_.request.verify, std::move(changed),
                                                    send_.request.base.get(), send_.request.keep_digests);
    return {};
  }

  // ---- lanes

  struct Lanes {
    std::mutex mutex;
    std::condition_variable changed;
    unsigned running = 0;
    std::atomic<bool> stop{false};
    std::optional<Error> error;
  };

  Result<void> run_lanes(bool zstd) {
    Lanes lanes;
    // No more than have work: an empty last delta opens none, which is most of what it would cost.
    const auto wanted = std::clamp<std::uint32_t>(send_.request.lanes, 1, kMaxLanes);
    const auto count = static_cast<std::uint32_t>(std::min<std::uint64_t>(wanted, send_.session->extents_left()));
    lanes.running = count;
    std::vector<std::thread> threads;
    for (std::uint32_t i = 0; i < count; ++i)
      threads.emplace_back([this, &lanes, i, zstd] {
        auto result = run_one_lane(i, zstd, lanes.stop);
        const std::lock_guard lock(lanes.mutex);
        if (!result) note_error(lanes, std::move(result).error());
        --lanes.running;
        lanes.changed.notify_all();
      });
    {
      std::unique_lock lock(lanes.mutex);
      while (lanes.running > 0) {
        lanes.changed.wait_for(lock, kStopPollInterval);
        if (send_.stopped()) lanes.stop = true;
        lock.unlock();
        send_.report("transfer", send_.session->counters().bytes_done, send_.session->bytes_total());
        lock.lock();
      }
    }
    for (auto& thread : threads) thread.join();
    if (lanes.error) return std::move(*lanes.error);
    if (send_.stopped()) return make_error(BaseErrc::cancelled);
    return {};
  }

  // Keeps the error that says most: what cannot be retried before what can, the first before its consequences.
  static void note_error(Lanes& lanes, Error error) {
    lanes.stop = true;
    const auto weight = [](const Error& e) {
      if (e.code() == BaseErrc::cancelled) return 0;
      return e.retry() == Retry::later && !lost_the_source(e) ? 1 : 2;
    };
    if (!lanes.error || weight(error) > weight(*lanes.error)) lanes.error = std::move(error);
  }

  Result<void> run_one_lane(std::uint32_t number, bool zstd, const std::atomic<bool>& stop) {
    Hello hello;
    BH_TRY(auto channel, open_channel(send_.dial, hello));
    JoinRequest join{opened_.session, opened_.epoch, number};
    BH_RETURN_IF_ERROR(channel->send(FrameType::join, to_json(join), 0, kSendTimeout));
    BH_RETURN_IF_ERROR(channel->expect(FrameType::joined, kAnswerTimeout));
    auto stream = channel->release();
    BH_TRY(auto queue, make_queue_for(send_.disk->file(), send_.parts));
    BH_TRY(auto hasher,
           opened_.compare_by == CompareBy::gmac ? make_gmac_hasher(*compare_key_) : send_.parts.make_hasher());
    SourceLaneOptions options;
    options.compare_by = opened_.compare_by;
    options.epoch = opened_.epoch;
    options.compare = opened_.compare;
    options.blank = opened_.blank;
    options.compress = zstd && hello.zstd ? send_.request.compress : CompressMode::off;
    options.limit = &send_.limit;
    Result<void> result;
    {
      SourceLane lane(*send_.session, options, *stream, *queue, *hasher, send_.clock);
      result = run_lane(lane, *queue, send_.clock, stop);
      queue.reset();  // nothing is in flight when the lane's memory goes
    }
    close(*stream);
    return result;
  }

  // ---- the end

  Result<SendResult> finish(ControlChannel& control) {
    const auto asked = send_.clock.now();
    BH_TRY(const auto root, source_root());
    send_.read_source = send_.clock.now() - asked;
    send_.verify_began.reset();
    FinishRequest finish{root, send_.request.swap};
    // From here the target may have finished even if its answer is lost: a retry then asks.
    send_.sent_root = root;
    BH_RETURN_IF_ERROR(control.send(FrameType::finish, to_json(finish), opened_.epoch, kSendTimeout));
    while (true) {
      BH_TRY(const auto message, control.receive(kAnswerTimeout));
      if (message.header.type == FrameType::progress) {
        report_finish(message.body);
        continue;
      }
      if (message.header.type != FrameType::finished)
        return make_error(TransportErrc::unexpected_frame,
                          std::string(to_string(message.header.type)) + " instead of finished");
      BH_TRY(const auto finished, finished_from_json(message.body));
      return check_result(root, finished);
    }
  }

  Result<SendResult> check_result(const std::string& root, const FinishResult& finished) {
    if (!root.empty() && !finished.root_digest.empty() && root != finished.root_digest)
      return make_error(EngineErrc::root_mismatch, "source " + root + ", target " + finished.root_digest);
    return make_result(root, finished);
  }

  void report_finish(const boost::json::object& body) {
    const auto step = text_field(body, "step", 32);
    if (!step) return;
    if (*step == "verify" && !send_.verify_began) send_.verify_began = send_.clock.now();
    double fraction = 0;
    if (const auto* value = body.if_contains("fraction"); value != nullptr && value->is_number())
      fraction = value->to_number<double>();
    const auto total = *step == "verify" && send_.request.verify == VerifyMode::full ? send_.disk->size() : 0;
    send_.report(*step, static_cast<std::uint64_t>(std::clamp(fraction, 0.0, 1.0) * static_cast<double>(total)), total);
  }

  Result<std::string> source_root() {
    const bool reads_the_rest = send_.request.verify == VerifyMode::full && send_.request.changed;
    if (const auto root = send_.session->root_digest(); root && !reads_the_rest) return to_hex(*root);
    if (send_.request.verify != VerifyMode::full) return std::string();
    // Only changed extents were read so far; a full verification reads the rest too.
    ScanOptions options;
    options.stop = send_.request.stop;
    BH_TRY(const auto root, scan_disk(*send_.disk, send_.parts, options));
    return to_hex(root);
  }

  SendResult make_result(const std::string& root, const FinishResult& finished) {
    const auto& counters = send_.session->counters();
    SendResult result;
    result.stats.disk_bytes = send_.source_size;
    result.stats.bytes_read = counters.bytes_read;
    result.stats.blocks_compared = counters.blocks_compared;
    result.stats.blocks_changed = counters.blocks_changed;
    result.stats.payload_bytes = counters.payload_bytes;
    result.stats.resumed_bytes = counters.resumed_bytes;
    result.epoch = opened_.epoch;
    result.stats.seconds = send_.seconds();
    const auto verifying =
        send_.read_source + (send_.verify_began ? send_.clock.now() - *send_.verify_began : Clock::Duration{0});
    result.stats.verify_seconds = std::chrono::duration<double>(verifying).count();
    result.stats.root_digest_source = root;
    result.stats.root_digest_target = finished.root_digest;
    result.format = opened_.format;
    result.staging = opened_.staging;
    if (opened_.compare) result.compared_by = opened_.compare_by;
    result.retries = send_.retries;
    if (send_.request.keep_digests)
      if (auto digests = send_.session->take_digests())
        result.digests = std::make_shared<DiskDigests>(std::move(*digests));
    return result;
  }

  SendState& send_;
  OpenedSession opened_;
  std::optional<GmacKey> compare_key_;
};

}  // namespace

SendState::SendState(const SendRequest& wanted, const DialStream& dial_stream, const DataplaneParts& dataplane)
    : request(wanted),
      dial(dial_stream),
      parts(dataplane),
      clock(*dataplane.clock),
      limit(*dataplane.clock, wanted.limit_bytes_per_s),
      started(clock.now()),
      epoch(wanted.epoch) {}

void SendState::report(std::string_view phase, std::uint64_t done, std::uint64_t total, std::string detail) {
  if (!request.progress) return;
  TransferProgress progress;
  progress.phase = phase;
  progress.bytes_done = done;
  progress.bytes_total = total;
  progress.detail = std::move(detail);
  if (session) progress.payload_bytes = session->counters().payload_bytes;
  rate.measure(progress, clock.now());
  request.progress(progress);
}

Result<void> SendState::open_source(std::uint64_t padded_size) {
  session.reset();
  std::uint64_t round_up = 1;
  if (padded_size != 0) {
    const auto* found = std::find_if(std::begin(kSectorSizes), std::end(kSectorSizes), [&](std::uint64_t sector) {
      return align_up(source_size, sector) == padded_size;
    });
    if (found == std::end(kSectorSizes))
      return make_error(EngineErrc::target_size_differs,
                        "target " + std::to_string(padded_size) + " bytes, source " + std::to_string(source_size));
    round_up = *found;
  }
  disk.reset();
  auto file = open_source_file(request.source);
  if (!file) return std::move(file).error().with_context("source");
  auto opened = open_disk(std::move(*file), OpenMode::read, *parts.random, round_up);
  if (!opened) return std::move(opened).error().with_context("source " + request.source);
  disk = std::move(*opened);
  return {};
}

Result<SendResult> attempt_send(SendState& state) { return SendAttempt(state).run(); }

bool lost_the_source(const Error& error) { return error.code().category() == nbd_category(); }

}  // namespace backhaul
