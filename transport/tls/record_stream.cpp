#include "transport/tls/record_stream.h"

#include <fmt/format.h>
#include <optional>

#include "transport/tls/tls_internal.h"

namespace backhaul {
namespace {

class RecordStream final : public TlsStream {
 public:
  RecordStream(std::unique_ptr<CipherSocket> socket, StreamNames names, RecordChannel channel)
      : socket_(std::move(socket)), names_(std::move(names)), channel_(std::move(channel)) {}
  ~RecordStream() override { close(); }

  Result<std::size_t> read_some(MutableBytes into) override;
  Result<std::size_t> write_some(Bytes from) override;
  Result<bool> flush() override;
  PollHandle poll_handle() const noexcept override { return socket_->handle(); }
  void expect_input(std::size_t bytes) noexcept override { socket_->gather(bytes); }
  bool has_buffered_input() const noexcept override { return error_.has_value() || channel_.readable(socket_->in); }
  void close() noexcept override;
  std::uint64_t wire_bytes_sent() const noexcept override { return socket_->sent(); }
  std::uint64_t wire_bytes_received() const noexcept override { return socket_->received(); }
  std::string peer_name() const override { return names_.peer_name; }
  std::string_view alpn() const noexcept override { return names_.alpn; }
  std::string_view record_layer() const noexcept override { return "libipsec-mb"; }

 private:
  // One step of the channel, with input received as needed; need_input: would block. Errors are remembered.
  Result<RecordChannel::Step> step(MutableBytes into, std::size_t& size);
  Error fail(const RecordFault& fault);
  Error remember(Error error) {
    if (!error_) error_ = error;
    return error;
  }

  std::unique_ptr<CipherSocket> socket_;
  StreamNames names_;
  RecordChannel channel_;
  std::optional<Error> error_;  // once a stream broke it stays broken
};

Error RecordStream::fail(const RecordFault& fault) {
  channel_.write_alert(fault.alert, socket_->out);
  socket_->drain();
  const auto errc = fault.alert == Alert::internal_error ? TransportErrc::lost : TransportErrc::tls_record_damaged;
  return remember(make_error(errc, fmt::format("{}: {}", socket_->peer(), fault.why)));
}

Result<RecordChannel::Step> RecordStream::step(MutableBytes into, std::size_t& size) {
  while (true) {
    const auto step = channel_.read(socket_->in, into, size);
    if (!step) return fail(step.error());
    if (*step == RecordChannel::Step::ended) {
      if (channel_.peer_alert() != Alert::close_notify)
        return remember(alert_failure(static_cast<int>(channel_.peer_alert()), socket_->peer()));
      return remember(make_error(TransportErrc::closed, fmt::format("{} said goodbye", socket_->peer())));
    }
    if (*step != RecordChannel::Step::need_input || socket_->fill()) {
      if (*step == RecordChannel::Step::need_input) continue;
      return *step;
    }
    if (socket_->receive_errno() != 0) return remember(socket_->broken(socket_->receive_errno()));
    if (socket_->end_of_file()) return remember(socket_->ended());
    return RecordChannel::Step::need_input;
  }
}

Result<std::size_t> RecordStream::read_some(MutableBytes into) {
  if (error_) return *error_;
  std::size_t total = 0;
  while (total < into.size()) {
    std::size_t size = 0;
    const auto taken = step(into.subspan(total), size);
    // What came before a failure is good; the next call reports it.
    if (!taken && total == 0) return taken.error();
    if (!taken || *taken == RecordChannel::Step::need_input) break;
    total += size;
  }
  if (error_) return total;
  const auto waiting = socket_->out.size();
  if (const auto answered = channel_.write_key_update(socket_->out); !answered) return fail(answered.error());
  if (socket_->out.size() > waiting) socket_->drain();
  return total;
}

Result<std::size_t> RecordStream::write_some(Bytes from) {
  if (error_) return *error_;
  std::size_t total = 0;
  while (total < from.size() && socket_->make_room()) {
    const auto taken = channel_.write(from.subspan(total), socket_->out);
    if (!taken) return fail(taken.error());
    total += *taken;
  }
  if (socket_->send_errno() != 0) return flush().error();
  return total;
}

Result<bool> RecordStream::flush() {
  if (error_) return *error_;
  if (socket_->drain()) return true;
  if (socket_->send_errno() == 0) return false;
  // A peer that refused us said why before it closed: its unread alert tells more than EPIPE. Its other bytes stay for
  // the reader.
  std::size_t size = 0;
  auto unread = step({}, size);
  while (unread && *unread == RecordChannel::Step::record) unread = step({}, size);
  if (!unread && !unread.error().is(TransportErrc::closed) && !unread.error().is(TransportErrc::lost))
    return unread.error();
  return socket_->broken(socket_->send_errno());
}

void RecordStream::close() noexcept {
  if (!socket_->is_open()) return;
  if (!error_ && socket_->send_errno() == 0) {
    if (socket_->out.room() < 2 * kRecordMax) socket_->out.compact();
    channel_.write_alert(Alert::close_notify, socket_->out);
    socket_->drain();
  }
  socket_->close();
  if (!error_) error_ = make_error(TransportErrc::closed, "closed by this end");
}

}  // namespace

std::unique_ptr<TlsStream> make_record_stream(std::unique_ptr<CipherSocket> socket, StreamNames names,
                                              RecordChannel channel) {
  return std::make_unique<RecordStream>(std::move(socket), std::move(names), std::move(channel));
}

}  // namespace backhaul
