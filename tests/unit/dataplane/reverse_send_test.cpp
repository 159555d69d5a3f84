// Reverse sends over loopback TLS: the end that accepts reads its disk, the end that dialled writes it.
#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "dataplane/linux/linux_storage.h"
#include "dataplane/source/send.h"
#include "dataplane/target/host_protocol.h"
#include "dataplane/target/serve_offers.h"
#include "sim/sim_random.h"
#include "transport/pki/pki.h"
#include "transport/stream/transport_error.h"
#include "transport/tls/tls_server.h"
#include "unit/dataplane/temporary_directory.h"

namespace backhaul {
namespace {

constexpr std::uint64_t kContentSize = 24 * kMiB + 512;
constexpr std::uint64_t kChange = 5 * kMiB;  // where the old disk differs
const std::string kId = "job-7.os";

DataplaneParts parts() {
  DataplaneParts made;
  made.make_queue = [] { return make_uring_queue({kLaneQueueDepth}); };
  made.make_hasher = [] { return make_block_hasher(HashKernel::one_buffer); };
  made.clock = &system_clock();
  made.random = &system_random();
  return made;
}

std::string noise(std::uint64_t seed, std::uint64_t size) {
  sim::SimRandom random(seed);
  std::string text(size, '\0');
  for (std::size_t i = 0; i + 8 <= size; i += 8) {
    const auto value = random.next();
    std::memcpy(&text[i], &value, 8);
  }
  return text;
}

void write_file(const std::filesystem::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}
std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// A stream that breaks after so many bytes were written, as a cut link does.
class BreakingStream final : public ByteStream {
 public:
  BreakingStream(std::unique_ptr<ByteStream> stream, std::uint64_t bytes) : stream_(std::move(stream)), left_(bytes) {}
  Result<std::size_t> read_some(MutableBytes into) override {
    if (left_ == 0) return make_error(TransportErrc::lost);
    return stream_->read_some(into);
  }
  Result<std::size_t> write_some(Bytes from) override {
    if (left_ == 0) return make_error(TransportErrc::lost);
    BH_TRY(const std::size_t taken, stream_->write_some(from.first(std::min<std::uint64_t>(left_, from.size()))));
    left_ -= taken;
    return taken;
  }
  Result<bool> flush() override { return stream_->flush(); }
  PollHandle poll_handle() const noexcept override { return stream_->poll_handle(); }
  bool has_buffered_input() const noexcept override { return stream_->has_buffered_input(); }
  void close() noexcept override { stream_->close(); }
  std::uint64_t wire_bytes_sent() const noexcept override { return stream_->wire_bytes_sent(); }
  std::uint64_t wire_bytes_received() const noexcept override { return stream_->wire_bytes_received(); }
  std::string peer_name() const override { return stream_->peer_name(); }

 private:
  std::unique_ptr<ByteStream> stream_;
  std::uint64_t left_;
};

class ReverseSend : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(pki_init(folder_.path() / "pki"));
    for (const auto* name : {"primary", "recovery"}) std::filesystem::create_directory(folder_.path() / name);
    content_ = noise(1, kContentSize);
    write_file(source(), content_);

    primary_storage_ = open_linux_storage(folder_.path() / "primary").value();
    recovery_storage_ = open_linux_storage(folder_.path() / "recovery").value();
    primary_ = std::make_unique<TargetStore>(*primary_storage_, parts());
    recovery_ = std::make_unique<TargetStore>(*recovery_storage_, parts());
    accepts_ = std::make_unique<HostProtocol>(*primary_, stop_primary_, &offered_);
    auto tls = TlsContext::load(TlsRole::server, folder_.path() / "pki" / "host").value();
    server_ = TlsServer::listen({"127.0.0.1", 0}, tls).value();
    server_->set_handler(kAlpnBackhaul,
                         [&](std::unique_ptr<TlsStream> stream) { (void)accepts_->serve(std::move(stream)); });
    server_thread_ = std::thread([&] { server_->run(stop_primary_); });
    client_ = TlsContext::load(TlsRole::client, folder_.path() / "pki" / "appliance").value();
  }
  void TearDown() override {
    stop_offers();
    stop_primary_ = true;
    if (server_) server_->stop();
    if (server_thread_.joinable()) server_thread_.join();
  }

  void start_offers() {
    stop_offers_ = false;
    OfferOptions options;
    options.endpoint = {"127.0.0.1", server_->port()};
    options.id = kId;
    options.retry.max_delay = std::chrono::milliseconds(400);
    dialler_ = std::thread([this, options] {
      const auto served = serve_offers(options, *recovery_, *client_, stop_offers_);
      EXPECT_TRUE(served) << served.error().to_string();
    });
  }
  void stop_offers() {
    stop_offers_ = true;
    if (dialler_.joinable()) dialler_.join();
  }

  Result<std::unique_ptr<ByteStream>> take(std::chrono::milliseconds timeout) { return offered_.dial(kId, timeout); }
  DialStream dial() {
    return [this](std::chrono::milliseconds timeout) { return take(timeout); };
  }
  SendRequest request(SyncMode sync) {
    SendRequest request;
    request.source = source().string();
    request.target.disk = "disk";
    request.sync = sync;
    request.retry.first_delay = std::chrono::milliseconds(20);
    return request;
  }
  // An old disk that differs in one place of 1 MiB.
  void make_old_disk() {
    auto old = content_;
    old.replace(kChange, kMiB, noise(2, kMiB));
    write_file(target(), old);
  }
  std::filesystem::path source() const { return folder_.path() / "primary" / "source"; }
  std::filesystem::path target() const { return folder_.path() / "recovery" / "disk"; }

  TemporaryDirectory folder_;
  std::string content_;
  std::unique_ptr<Storage> primary_storage_, recovery_storage_;
  std::unique_ptr<TargetStore> primary_, recovery_;
  OfferedStreams offered_;
  std::unique_ptr<HostProtocol> accepts_;
  std::atomic<bool> stop_primary_{false}, stop_offers_{false};
  std::unique_ptr<TlsServer> server_;
  std::shared_ptr<TlsContext> client_;
  std::thread server_thread_, dialler_;
};

TEST_F(ReverseSend, ADeltaAndAFullCopyArriveAtTheEndThatDialled) {
  offered_.expect(kId, "appliance");
  start_offers();
  make_old_disk();
  const auto delta = send_disk(request(SyncMode::delta), dial(), parts());
  ASSERT_TRUE(delta) << delta.error().to_string();
  EXPECT_EQ(delta->stats.blocks_changed, kMiB / kBlockSize);
  EXPECT_EQ(delta->stats.root_digest_source, delta->stats.root_digest_target);
  EXPECT_FALSE(delta->stats.root_digest_source.empty());
  EXPECT_TRUE(read_file(target()) == content_);

  const auto full = send_disk(request(SyncMode::full), dial(), parts());
  ASSERT_TRUE(full) << full.error().to_string();
  EXPECT_EQ(full->stats.payload_bytes, kContentSize);
  EXPECT_EQ(full->retries, 0U);
  EXPECT_TRUE(read_file(target()) == content_);
  for (const auto& entry : std::filesystem::directory_iterator(folder_.path() / "primary"))
    EXPECT_EQ(entry.path(), source()) << "the sending end's store was written to";
}

TEST_F(ReverseSend, TheVerbsGoTheSameWay) {
  offered_.expect(kId, "appliance");
  start_offers();
  make_old_disk();
  const auto old = read_file(target());
  auto round = request(SyncMode::delta);
  round.swap = false;
  round.epoch = 100;
  ASSERT_TRUE(send_disk(round, dial(), parts()));
  EXPECT_TRUE(query_target("disk", dial()).value().whole);
  ASSERT_TRUE(swap_target("disk", 200, dial()));
  EXPECT_TRUE(read_file(target()) == content_);
  EXPECT_EQ(query_target("disk", dial()).value().state, TargetState::swapped);
  EXPECT_TRUE(cancel_transfer("disk", dial(), 300).value());
  EXPECT_TRUE(read_file(target()) == old);
  const auto refused = swap_target("disk", 250, dial());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().symbol(), "session.fenced");

  round.epoch = 400;
  ASSERT_TRUE(send_disk(round, dial(), parts()));
  ASSERT_TRUE(swap_target("disk", 500, dial()));
  ASSERT_TRUE(release_target("disk", 600, dial()));
  const auto status = query_target("disk", dial()).value();
  EXPECT_EQ(status.state, TargetState::plain);
  EXPECT_EQ(status.epoch, 600U);
  EXPECT_EQ(status.size, kContentSize);
  EXPECT_TRUE(read_file(target()) == content_);
}

TEST_F(ReverseSend, ACutLinkIsTakenUpAgainOverNewStreams) {
  offered_.expect(kId);
  start_offers();
  std::atomic<unsigned> streams{0};
  const DialStream breaking = [&](std::chrono::milliseconds timeout) -> Result<std::unique_ptr<ByteStream>> {
    BH_TRY(auto stream, take(timeout));
    const auto number = streams.fetch_add(1);
    if (number == 1 || number == 2)  // the lanes of the first attempt
      return std::unique_ptr<ByteStream>(std::make_unique<BreakingStream>(std::move(stream), 9 * kMiB));
    return stream;
  };
  const auto sent = send_disk(request(SyncMode::full), breaking, parts());
  ASSERT_TRUE(sent) << sent.error().to_string();
  EXPECT_GE(sent->retries, 1U);
  EXPECT_GE(streams.load(), 6U);
  EXPECT_LT(sent->stats.payload_bytes, 2 * kContentSize);
  EXPECT_EQ(sent->stats.root_digest_source, sent->stats.root_digest_target);
  EXPECT_TRUE(read_file(target()) == content_);
}

TEST_F(ReverseSend, AStoppedTargetEndsItsStreamsAndTheNextOneGoesOn) {
  offered_.expect(kId);
  start_offers();
  make_old_disk();
  auto slow = request(SyncMode::full);
  slow.staging = StagingChoice::undo;
  slow.limit_bytes_per_s = 8 * kMiB;
  std::atomic<bool> moving{false};
  slow.progress = [&](const TransferProgress& progress) { moving = moving || progress.bytes_done > 0; };
  Result<SendResult> sent = make_error(BaseErrc::cancelled);
  std::thread sender([&] { sent = send_disk(slow, dial(), parts()); });
  while (!moving) std::this_thread::yield();
  stop_offers();  // returns with all its threads
  EXPECT_FALSE(std::filesystem::exists(target())) << "a disk that is being written stands at its name";
  start_offers();
  sender.join();
  ASSERT_TRUE(sent) << sent.error().to_string();
  EXPECT_GE(sent->retries, 1U);
  EXPECT_TRUE(read_file(target()) == content_);
}

TEST_F(ReverseSend, AWithdrawnSendEndsAndTheTargetCanBeCancelled) {
  offered_.expect(kId);
  start_offers();
  make_old_disk();
  const auto old = read_file(target());
  auto slow = request(SyncMode::full);
  slow.staging = StagingChoice::undo;
  slow.limit_bytes_per_s = 8 * kMiB;
  std::atomic<bool> moving{false}, stop{false};
  slow.stop = &stop;
  slow.progress = [&](const TransferProgress& progress) { moving = moving || progress.bytes_done > 0; };
  Result<SendResult> sent = make_error(BaseErrc::invalid_argument);
  std::thread sender([&] { sent = send_disk(slow, dial(), parts()); });
  while (!moving) std::this_thread::yield();
  stop = true;
  offered_.withdraw(kId);
  sender.join();
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error(), make_error_code(BaseErrc::cancelled));
  const auto cancelled = recovery_->cancel("disk");
  ASSERT_TRUE(cancelled) << cancelled.error().to_string();
  EXPECT_TRUE(*cancelled);
  EXPECT_TRUE(read_file(target()) == old);
}

TEST_F(ReverseSend, AnOfferThatNobodyExpectsIsTriedAgainUntilSomeoneDoes) {
  start_offers();
  auto early = offered_.dial(kId, std::chrono::milliseconds(0));
  ASSERT_FALSE(early);
  EXPECT_EQ(early.error(), make_error_code(EngineErrc::offer_withdrawn));
  offered_.expect(kId, "another node");
  early = offered_.dial(kId, std::chrono::milliseconds(300));
  ASSERT_FALSE(early);
  EXPECT_EQ(early.error(), make_error_code(EngineErrc::offer_none));
  offered_.expect(kId, "appliance");
  EXPECT_TRUE(offered_.dial(kId, std::chrono::minutes(1)));
}

TEST_F(ReverseSend, ABadNameIsRefusedAtOnce) {
  OfferOptions options;
  options.id = "no/name";
  EXPECT_EQ(serve_offers(options, *recovery_, *client_, stop_offers_).error(),
            make_error_code(BaseErrc::invalid_argument));
}

}  // namespace
}  // namespace backhaul
