// A TLS 1.3 connection after its handshake, between two buffers of ciphertext: application data, alerts, key updates in
// both directions, and what a peer may not do. Knows no socket, so that tests and the fuzzer drive it too. One thread.
#pragma once

#include <optional>

#include "transport/tls/cipher_buffer.h"
#include "transport/tls/post_handshake.h"

namespace backhaul {

class RecordChannel {
 public:
  RecordChannel(TlsSide side, RecordSealer sealer, RecordOpener opener, const RecordLimits& limits)
      : sealer_(std::move(sealer)), opener_(std::move(opener)), messages_(side), limits_(limits) {}

  // What `out` must have room for before write(): a record, and a key update ahead of it.
  static constexpr std::size_t kWriteRoom = kRecordContentMax + kKeyUpdateSize + 2 * kRecordOverhead;
  // Seals the beginning of `from` as one record behind the content of `out`; gives the bytes taken. Fault:
  // internal_error, when no new key could be made.
  RecordResult<std::size_t> write(Bytes from, CipherBuffer& out);
  // Seals the key update that is due (our key is worn, the peer's is, or the peer asked), if any and if it has room.
  RecordResult<void> write_key_update(CipherBuffer& out);
  // Seals an alert if it has room. After it nothing more may be written.
  void write_alert(Alert alert, CipherBuffer& out) noexcept;

  enum class Step {
    need_input,  // `in` holds no whole record
    record,      // a record without application data was used up
    data,        // `size` bytes were put in `into` (0 when `into` is empty: data waits)
    ended,       // the peer sent peer_alert()
  };
  // Takes a step: hands out opened data, or opens the next record of `in`, straight into `into` where it fits. `in` may
  // be compacted and filled between steps, but what is in it must stay. A fault is final; its alert is for the caller
  // to send.
  RecordResult<Step> read(CipherBuffer& in, MutableBytes into, std::size_t& size);
  // Whether read() would do more than ask for input.
  bool readable(const CipherBuffer& in) const noexcept;
  // close_notify, or the alert with which the peer gave up.
  Alert peer_alert() const noexcept { return *peer_alert_; }

 private:
  RecordResult<Step> take_record(CipherBuffer& in, std::size_t record_size, MutableBytes into, std::size_t& size);
  RecordResult<Step> take_handshake(Bytes content);
  RecordResult<Step> take_alert(Bytes content);

  RecordSealer sealer_;
  RecordOpener opener_;
  PostHandshake messages_;
  RecordLimits limits_;
  // The opened record at the front of `in` whose content was not all handed out.
  struct Front {
    std::size_t record = 0;  // its whole size
    std::size_t offset = 0;  // where the rest of the content starts in it
    std::size_t left = 0;    // bytes of the rest; 0: there is no such record
  } front_;
  unsigned idle_records_ = 0;  // without application data, in a row
  bool update_owed_ = false;   // the peer asked for a new key of ours
  bool ask_peer_ = false;      // the peer's key is worn and it was not asked yet
  bool asked_ = false;
  std::optional<Alert> peer_alert_;
};

}  // namespace backhaul
