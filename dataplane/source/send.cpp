#include "dataplane/source/send.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <thread>

#include "dataplane/protocol/engine_error.h"
#include "dataplane/protocol/messages.h"
#include "dataplane/scan/scan.h"
#include "dataplane/source/source_file.h"
#include "dataplane/source/source_lane.h"
#include "transport/frames/frame_io.h"
#include "transport/stream/transport_error.h"

namespace backhaul {
namespace {

// Retries of a connection that never worked: about a second.
constexpr std::uint32_t kFirstAttempts = 3;

// Padding that a target of another format may ask for, smallest first.
constexpr std::uint64_t kSectorSizes[] = {512, 4096};

// Handshakes in a row that look wrong before we believe it.
constexpr unsigned kDoubtfulHandshakes = 2;

// A bit that flips in the clear part of a handshake makes a good peer look like one of another kind; a peer that is of
// another kind looks the same again.
bool may_be_damaged_handshake(const Error& error) {
  return error == make_error_code(TransportErrc::tls_handshake) ||
         error == make_error_code(TransportErrc::tls_protocol_version) ||
         error == make_error_code(TransportErrc::alpn_mismatch);
}

Result<std::unique_ptr<ControlChannel>> open_channel(const DialStream& dial, Hello& hello) {
  BH_TRY(auto stream, dial(kConnectTimeout));
  auto channel = std::make_unique<ControlChannel>(std::move(stream));
  BH_TRY(hello, exchange_hello(*channel, kConnectTimeout));
  return channel;
}

// Not tried again here, although it may pass: whether what is exported then is the same disk is the caller's to know.
bool lost_the_source(const Error& error) { return error.symbol().starts_with("nbd."); }

class Sender {
 public:
  Sender(const SendRequest& request, const DialStream& dial, const DataplaneParts& parts)
      : request_(request),
        dial_(dial),
        parts_(parts),
        clock_(*parts.clock),
        limit_(*parts.clock, request.limit_bytes_per_s),
        started_(clock_.now()),
        epoch_(request.epoch) {}

  Result<SendResult> run() {
    BH_RETURN_IF_ERROR(open_source(0));
    source_size_ = disk_->size();
    Backoff backoff(request_.retry, *parts_.random);
    std::uint64_t done_before = 0;
    unsigned doubtful_handshakes = 0;
    while (true) {
      auto result = attempt();
      if (result) {
        result->wire_bytes = wire_bytes_;  // every stream of every attempt is closed
        return result;
      }
      const auto& error = result.error();
      if (stopped()) return make_error(BaseErrc::cancelled, "stopped; the transfer can be resumed or cancelled");
      const bool doubtful = may_be_damaged_handshake(error) && doubtful_handshakes++ < kDoubtfulHandshakes;
      if ((error.retry() != Retry::later && !doubtful) || lost_the_source(error)) return result;
      if (error == make_error_code(EngineErrc::session_incomplete) || error.symbol() == "session.incomplete")
        session_.reset();
      const auto done = session_ ? session_->counters().bytes_done.load() : 0;
      if (done > done_before) {
        backoff.progress();
        doubtful_handshakes = 0;
      }
      done_before = done;
      Clock::Duration delay{};
      if (!backoff.next(delay)) return result;
      // Nothing was ever reached: more likely a wrong address than a passing fault.
      if (!opened_once_ && error.symbol().starts_with("link.") && backoff.attempts() > kFirstAttempts) return result;
      ++retries_;
      report("retry", 0, 0, error.to_string());
      pause(delay);
    }
  }

 private:
  bool stopped() const { return request_.stop != nullptr && request_.stop->load(); }

  void pause(Clock::Duration delay) {
    const auto until = clock_.now() + delay;
    while (!stopped() && clock_.now() < until)
      clock_.sleep_for(std::min<Clock::Duration>(kStopPollInterval, until - clock_.now()));
  }

  void report(std::string_view phase, std::uint64_t done, std::uint64_t total, std::string detail = {}) {
    if (!request_.progress) return;
    SendProgress progress;
    progress.phase = phase;
    progress.bytes_done = done;
    progress.bytes_total = total;
    progress.detail = std::move(detail);
    if (session_) {
      progress.payload_bytes = session_->counters().payload_bytes;
      progress.extents_changed_blocks = session_->counters().blocks_changed;
    }
    progress.seconds = seconds();
    request_.progress(progress);
  }

  double seconds() const { return std::chrono::duration<double>(clock_.now() - started_).count(); }

  // Opens the source; `padded_size` 0: as it is.
  Result<void> open_source(std::uint64_t padded_size) {
    session_.reset();
    std::uint64_t round_up = 1;
    if (padded_size != 0) {
      const auto* found = std::find_if(std::begin(kSectorSizes), std::end(kSectorSizes), [&](std::uint64_t sector) {
        return align_up(source_size_, sector) == padded_size;
      });
      if (found == std::end(kSectorSizes))
        return make_error(EngineErrc::target_size_differs,
                          "target " + std::to_string(padded_size) + " bytes, source " + std::to_string(source_size_));
      round_up = *found;
    }
    disk_.reset();
    auto file = open_source_file(request_.source);
    if (!file) return std::move(file).error().with_context("source");
    auto disk = open_disk(std::move(*file), OpenMode::read, *parts_.random, round_up);
    if (!disk) return std::move(disk).error().with_context("source " + request_.source);
    disk_ = std::move(*disk);
    return {};
  }

  Result<SendResult> attempt() {
    report("connect", 0, 0);
    Hello hello;
    BH_TRY(auto control, open_channel(dial_, hello));
    OpenRequest open;
    open.disk = request_.target.disk;
    open.size = source_size_;
    open.sync = request_.sync;
    open.verify = request_.verify;
    open.staging = request_.staging;
    open.format = request_.format;
    open.changed_only = request_.changed.has_value();
    open.epoch = epoch_;
    open.transfer = transfer_;
    open.compare_key = compare_key_ = make_compare_key();
    BH_RETURN_IF_ERROR(control->send(FrameType::open, to_json(open), 0, kSendTimeout));
    BH_TRY(const auto answer, control->expect(FrameType::opened, kAnswerTimeout));
    BH_TRY(opened_, opened_from_json(answer.body));
    opened_once_ = true;
    if (opened_.keyed && (!compare_key_ || !opened_.compare))
      return make_error(TransportErrc::bad_message, "field 'keyed'");
    if (opened_.finished) return finished_before(*control);
    epoch_ = opened_.epoch;
    transfer_ = opened_.transfer;
    BH_RETURN_IF_ERROR(prepare_session());
    BH_RETURN_IF_ERROR(run_lanes(*control, hello.zstd));
    auto result = finish(*control);
    close(control->stream());
    return result;
  }

  // One for each run: nobody can have chosen content for it.
  std::optional<GmacKey> make_compare_key() {
    if (request_.compare_by != CompareBy::gmac || !gmac_available()) return std::nullopt;
    const std::array<std::uint64_t, 2> random{parts_.random->next(), parts_.random->next()};
    GmacKey key;
    std::memcpy(key.data(), random.data(), key.size());
    return key;
  }

  void close(ByteStream& stream) {
    wire_bytes_ += stream.wire_bytes_sent() + stream.wire_bytes_received();
    stream.close();
  }

  // The answer to this sender's finish was lost: the target has swapped the disk in under our epoch.
  Result<SendResult> finished_before(ControlChannel& control) {
    close(control.stream());
    if (!session_ || !sent_root_)
      return make_error(EngineErrc::session_fenced, "another run finished the transfer of " + request_.target.disk);
    FinishResult finished;
    finished.root_digest = opened_.root_digest;
    return check_result(*sent_root_, finished);
  }

  Result<void> prepare_session() {
    // A retry goes on with what was acknowledged, unless the target has started anew.
    if (session_ && !opened_.resumed) session_.reset();
    if (opened_.size != disk_->size()) BH_RETURN_IF_ERROR(open_source(opened_.size));
    if (session_) return {};
    std::optional<ChangedBlocks> changed;
    if (request_.changed) {
      BH_TRY(auto made, ChangedBlocks::make(*request_.changed, disk_->size()));
      changed = std::move(made);
    }
    session_ = std::make_unique<SourceSession>(*disk_, request_.verify, std::move(changed), request_.base.get(),
                                               request_.keep_digests);
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

  Result<void> run_lanes(ControlChannel&, bool zstd) {
    Lanes lanes;
    // No more than have work: an empty last delta opens none, which is most of what it would cost.
    const auto wanted = std::clamp<std::uint32_t>(request_.lanes, 1, kMaxLanes);
    const auto count = static_cast<std::uint32_t>(std::min<std::uint64_t>(wanted, session_->extents_left()));
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
        if (stopped()) lanes.stop = true;
        lock.unlock();
        report("transfer", session_->counters().bytes_done, session_->bytes_total());
        lock.lock();
      }
    }
    for (auto& thread : threads) thread.join();
    if (lanes.error) return std::move(*lanes.error);
    if (stopped()) return make_error(BaseErrc::cancelled);
    return {};
  }

  // Keeps the error that says most: what cannot be retried before what can, the first before its consequences.
  static void note_error(Lanes& lanes, Error error) {
    lanes.stop = true;
    const auto weight = [](const Error& e) {
      if (e == make_error_code(BaseErrc::cancelled)) return 0;
      return e.retry() == Retry::later && !lost_the_source(e) ? 1 : 2;
    };
    if (!lanes.error || weight(error) > weight(*lanes.error)) lanes.error = std::move(error);
  }

  Result<void> run_one_lane(std::uint32_t number, bool zstd, const std::atomic<bool>& stop) {
    Hello hello;
    BH_TRY(auto channel, open_channel(dial_, hello));
    JoinRequest join{opened_.session, opened_.epoch, number};
    BH_RETURN_IF_ERROR(channel->send(FrameType::join, to_json(join), 0, kSendTimeout));
    BH_RETURN_IF_ERROR(channel->expect(FrameType::joined, kAnswerTimeout));
    auto stream = channel->release();
    BH_TRY(auto queue, make_queue_for(disk_->file(), parts_));
    BH_TRY(auto hasher, opened_.keyed ? make_gmac_hasher(*compare_key_) : parts_.make_hasher());
    SourceLaneOptions options;
    options.keyed = opened_.keyed;
    options.epoch = opened_.epoch;
    options.compare = opened_.compare;
    options.blank = opened_.blank;
    options.compress = zstd && hello.zstd ? request_.compress : CompressMode::off;
    options.limit = &limit_;
    Result<void> result;
    {
      SourceLane lane(*session_, options, *stream, *queue, *hasher, clock_);
      result = run_lane(lane, *queue, clock_, stop);
      queue.reset();  // nothing is in flight when the lane's memory goes
    }
    close(*stream);
    return result;
  }

  // ---- the end

  Result<SendResult> finish(ControlChannel& control) {
    const auto asked = clock_.now();
    BH_TRY(const auto root, source_root());
    read_source_ = clock_.now() - asked;
    verify_began_.reset();
    FinishRequest finish{root, request_.swap};
    // From here the target may have finished even if its answer is lost: a retry then asks.
    sent_root_ = root;
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
    if (*step == "verify" && !verify_began_) verify_began_ = clock_.now();
    double fraction = 0;
    if (const auto* value = body.if_contains("fraction"); value != nullptr && value->is_number())
      fraction = value->to_number<double>();
    const auto total = *step == "verify" && request_.verify == VerifyMode::full ? disk_->size() : 0;
    report(*step, static_cast<std::uint64_t>(std::clamp(fraction, 0.0, 1.0) * static_cast<double>(total)), total);
  }

  Result<std::string> source_root() {
    const bool reads_the_rest = request_.verify == VerifyMode::full && request_.changed;
    if (const auto root = session_->root_digest(); root && !reads_the_rest) return to_hex(*root);
    if (request_.verify != VerifyMode::full) return std::string();
    // Only changed extents were read so far; a full verification reads the rest too.
    ScanOptions options;
    options.stop = request_.stop;
    BH_TRY(const auto root, scan_disk(*disk_, parts_, options));
    return to_hex(root);
  }

  SendResult make_result(const std::string& root, const FinishResult& finished) {
    const auto& counters = session_->counters();
    SendResult result;
    result.disk_bytes = source_size_;
    result.bytes_read = counters.bytes_read;
    result.blocks_compared = counters.blocks_compared;
    result.blocks_changed = counters.blocks_changed;
    result.payload_bytes = counters.payload_bytes;
    result.resumed_bytes = counters.resumed_bytes;
    result.epoch = opened_.epoch;
    result.seconds = seconds();
    const auto verifying = read_source_ + (verify_began_ ? clock_.now() - *verify_began_ : Clock::Duration{0});
    result.verify_seconds = std::chrono::duration<double>(verifying).count();
    result.root_digest_source = root;
    result.root_digest_target = finished.root_digest;
    result.format = to_string(opened_.format);
    result.staging = opened_.staging;
    const auto compared = opened_.keyed ? CompareBy::gmac : CompareBy::sha256;
    result.compared_by = opened_.compare ? to_string(compared) : "nothing";
    result.retries = retries_;
    if (request_.keep_digests)
      if (auto digests = session_->take_digests()) result.digests = std::make_shared<DiskDigests>(std::move(*digests));
    return result;
  }

  const SendRequest& request_;
  const DialStream& dial_;
  const DataplaneParts& parts_;
  Clock& clock_;
  RateLimit limit_;
  const Clock::Duration started_;
  std::uint64_t epoch_;
  std::uint64_t transfer_ = 0;            // what a retry goes on with
  std::optional<std::string> sent_root_;  // of the last finish that was sent
  Clock::Duration read_source_{0};        // for the root alone
  std::optional<Clock::Duration> verify_began_;
  std::uint64_t source_size_ = 0;
  std::unique_ptr<Disk> disk_;
  std::unique_ptr<SourceSession> session_;  // destroyed before the disk it reads
  OpenedSession opened_;
  std::optional<GmacKey> compare_key_;  // of this run
  std::atomic<std::uint64_t> wire_bytes_{0};
  std::uint32_t retries_ = 0;
  bool opened_once_ = false;
};

}  // namespace

Result<SendResult> send_disk(const SendRequest& request, const DialStream& dial, const DataplaneParts& parts) {
  return Sender(request, dial, parts).run();
}

Result<SendResult> send_disk(const SendRequest& request, TlsContext& tls, const DataplaneParts& parts) {
  return send_disk(request, tls_dialler(tls, request.target.endpoint), parts);
}

}  // namespace backhaul
