#include "transport/tls/post_handshake.h"

#include <algorithm>
#include <cstring>

namespace backhaul {
namespace {

// Section 4, HandshakeType.
constexpr std::byte kNewSessionTicket{4};
constexpr std::byte kKeyUpdate{24};
// Section 4.6.1: lifetime, age_add, nonce, ticket, extensions, each at its longest.
constexpr std::size_t kTicketMax = 4 + 4 + (1 + 255) + (2 + 65535) + (2 + 65534);

}  // namespace

RecordResult<void> PostHandshake::begin() noexcept {
  left_ = std::to_integer<std::size_t>(header_[1]) << 16 | std::to_integer<std::size_t>(header_[2]) << 8 |
          std::to_integer<std::size_t>(header_[3]);
  if (header_[0] == kKeyUpdate) {
    if (left_ != 1) return RecordFault{Alert::decode_error, "a malformed key update"};
    return {};
  }
  if (header_[0] != kNewSessionTicket || side_ != TlsSide::client)
    return RecordFault{Alert::unexpected_message, "a handshake message that is not allowed after the handshake"};
  if (left_ == 0 || left_ > kTicketMax) return RecordFault{Alert::decode_error, "a malformed session ticket"};
  return {};
}

RecordResult<PostHandshake::Event> PostHandshake::take(Bytes content) noexcept {
  if (content.empty()) return RecordFault{Alert::unexpected_message, "an empty handshake record"};
  while (!content.empty()) {
    if (left_ == 0) {
      const auto count = std::min(header_.size() - have_, content.size());
      std::memcpy(header_.data() + have_, content.data(), count);
      have_ += count;
      content = content.subspan(count);
      if (have_ < header_.size()) break;
      if (const auto begun = begin(); !begun) return begun.error();
      have_ = 0;
      continue;
    }
    if (header_[0] == kKeyUpdate) {
      if (content.size() > 1)
        return RecordFault{Alert::unexpected_message, "a key update that does not end its record"};
      left_ = 0;
      if (content[0] > std::byte{1}) return RecordFault{Alert::illegal_parameter, "a malformed key update"};
      return content[0] == std::byte{1} ? Event::key_update_requested : Event::key_update;
    }
    const auto count = std::min(left_, content.size());
    left_ -= count;
    content = content.subspan(count);
  }
  return Event::nothing;
}

std::array<std::byte, kKeyUpdateSize> key_update_message(bool request) noexcept {
  return {kKeyUpdate, std::byte{0}, std::byte{0}, std::byte{1}, static_cast<std::byte>(request ? 1 : 0)};
}

}  // namespace backhaul
