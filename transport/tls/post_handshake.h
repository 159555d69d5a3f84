// Handshake messages after the handshake (RFC 8446, section 4.6). A key update is reported to the owner; tickets are
// skipped, since no session is ever resumed; everything else is refused. A message may span records, and a record may
// hold several (section 5.1). Only the header of a message is kept.
#pragma once

#include "transport/tls/record_layer.h"

namespace backhaul {

enum class TlsSide { client, server };

class PostHandshake {
 public:
  explicit PostHandshake(TlsSide side) : side_(side) {}

  enum class Event { nothing, key_update, key_update_requested };
  // Takes the content of one handshake record. Faults: a message that is not allowed, or malformed; a key update that
  // does not end its record, since what follows belongs under the next key.
  RecordResult<Event> take(Bytes content) noexcept;
  // Whether a message is incomplete: then no record of another type may come (section 5.1).
  bool in_message() const noexcept { return have_ > 0 || left_ > 0; }

 private:
  RecordResult<void> begin() noexcept;  // the header is complete

  TlsSide side_;
  std::array<std::byte, 4> header_{};  // type, and length in three bytes
  std::size_t have_ = 0;               // bytes of the header
  std::size_t left_ = 0;               // bytes of the body to come
};

// A key update's message (section 4.6.3).
inline constexpr std::size_t kKeyUpdateSize = 5;
std::array<std::byte, kKeyUpdateSize> key_update_message(bool request) noexcept;

}  // namespace backhaul
