#include "transport/tls/record_channel.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace backhaul {
namespace {

// Records without application data (tickets, key updates, empty ones) that a peer may send in a row: more would only
// keep us busy.
constexpr unsigned kIdleRecordsMax = 64;

}  // namespace

RecordResult<std::size_t> RecordChannel::write(Bytes from, CipherBuffer& out) {
  assert(out.room() >= kWriteRoom);
  if (const auto written = write_key_update(out); !written) return written.error();
  const auto content = from.first(std::min(from.size(), kRecordContentMax));
  out.end += sealer_.seal(RecordType::application_data, content, out.free_space());
  return content.size();
}

RecordResult<void> RecordChannel::write_key_update(CipherBuffer& out) {
  const bool worn = sealer_.records() >= limits_.due;
  if (!worn && !update_owed_ && !ask_peer_) return {};
  if (out.room() < kKeyUpdateSize + kRecordOverhead) return {};
  out.end += sealer_.seal(RecordType::handshake, key_update_message(ask_peer_), out.free_space());
  asked_ |= ask_peer_;
  update_owed_ = ask_peer_ = false;
  if (!sealer_.update()) return RecordFault{Alert::internal_error, "no new key could be derived"};
  return {};
}

void RecordChannel::write_alert(Alert alert, CipherBuffer& out) noexcept {
  constexpr std::byte kWarning{1}, kFatal{2};  // section 6: the level is meaningless but still there
  const std::array content = {alert == Alert::close_notify ? kWarning : kFatal, static_cast<std::byte>(alert)};
  if (out.room() < content.size() + kRecordOverhead) return;
  out.end += sealer_.seal(RecordType::alert, content, out.free_space());
}

bool RecordChannel::readable(const CipherBuffer& in) const noexcept {
  if (front_.left > 0 || peer_alert_) return true;
  const auto size = RecordOpener::size_of_front(in.content());
  return !size || (*size > 0 && in.size() >= *size);
}

RecordResult<RecordChannel::Step> RecordChannel::read(CipherBuffer& in, MutableBytes into, std::size_t& size) {
  size = 0;
  if (front_.left > 0) {
    size = std::min(front_.left, into.size());
    if (size > 0) std::memcpy(into.data(), in.data() + front_.offset, size);
    front_.offset += size;
    front_.left -= size;
    if (front_.left == 0) in.drop(front_.record);
    return Step::data;
  }
  if (peer_alert_) return Step::ended;
  const auto record_size = RecordOpener::size_of_front(in.content());
  if (!record_size) return record_size.error();
  if (*record_size == 0 || in.size() < *record_size) return Step::need_input;
  return take_record(in, *record_size, into, size);
}

RecordResult<RecordChannel::Step> RecordChannel::take_record(CipherBuffer& in, std::size_t record_size,
                                                             MutableBytes into, std::size_t& size) {
  if (opener_.records() >= limits_.most)
    return RecordFault{Alert::internal_error, "the peer used one key for more records than is safe"};
  if (opener_.records() >= limits_.due && !asked_) ask_peer_ = true;
  const auto record = in.content().first(record_size);
  const auto opened = opener_.open(record, into);
  if (!opened) return opened.error();
  if (messages_.in_message() && opened->type != RecordType::handshake)
    return RecordFault{Alert::unexpected_message, "a record in the middle of a handshake message"};

  if (opened->type == RecordType::application_data && opened->size > 0) {
    idle_records_ = 0;
    size = opened->head;
    front_ = {record_size, kRecordHeaderSize + opened->head, opened->size - opened->head};
    if (front_.left == 0) in.drop(record_size);
    return Step::data;
  }
  // The content's beginning may be in the caller's memory, where only data belongs: put it before its rest.
  const auto content = record.subspan(kRecordHeaderSize, opened->size);
  if (opened->head > 0) std::memcpy(content.data(), into.data(), opened->head);
  if (++idle_records_ > kIdleRecordsMax) return RecordFault{Alert::unexpected_message, "too many records without data"};
  RecordResult<Step> step = Step::record;
  if (opened->type == RecordType::handshake) step = take_handshake(content);
  if (opened->type == RecordType::alert) step = take_alert(content);
  in.drop(record_size);
  return step;
}

RecordResult<RecordChannel::Step> RecordChannel::take_handshake(Bytes content) {
  const auto event = messages_.take(content);
  if (!event) return event.error();
  if (*event == PostHandshake::Event::nothing) return Step::record;
  if (!opener_.update()) return RecordFault{Alert::internal_error, "no new key could be derived"};
  asked_ = ask_peer_ = false;
  if (*event == PostHandshake::Event::key_update_requested) update_owed_ = true;
  return Step::record;
}

RecordResult<RecordChannel::Step> RecordChannel::take_alert(Bytes content) {
  if (content.size() != 2) return RecordFault{Alert::decode_error, "a malformed alert"};
  const auto alert = static_cast<Alert>(content[1]);
  if (alert == Alert::user_canceled) return Step::record;  // close_notify follows (section 6.1)
  peer_alert_ = alert;
  return Step::ended;
}

}  // namespace backhaul
