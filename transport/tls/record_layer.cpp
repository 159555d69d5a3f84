#include "transport/tls/record_layer.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>

namespace backhaul {
namespace {

// The version field is TLS 1.2's and means nothing (section 5.1); the tag covers it.
void write_header(MutableBytes out, std::size_t length) noexcept {
  out[0] = static_cast<std::byte>(RecordType::application_data);
  out[1] = std::byte{3};
  out[2] = std::byte{3};
  out[3] = static_cast<std::byte>(length >> 8);
  out[4] = static_cast<std::byte>(length);
}

constexpr std::size_t kNoType = ~std::size_t{0};
// The content's size. The text is `head`, then `rest`: content, type, zeros (section 5.4). kNoType: all of it is zero.
std::size_t content_size(Bytes head, Bytes rest) noexcept {
  const auto last = [](Bytes bytes) {
    auto size = bytes.size();
    while (size > 0 && bytes[size - 1] == std::byte{0}) --size;
    return size;
  };
  if (const auto size = last(rest); size > 0) return head.size() + size - 1;
  if (const auto size = last(head); size > 0) return size - 1;
  return kNoType;
}

}  // namespace

void throw_exception_from_error(const RecordFault&, const boost::source_location&) { std::abort(); }

std::size_t RecordSealer::seal(RecordType type, Bytes content, MutableBytes out) noexcept {
  const auto size = content.size() + kRecordOverhead;
  assert(content.size() <= kRecordContentMax && out.size() >= size);
  const auto header = out.first(kRecordHeaderSize);
  write_header(header, size - kRecordHeaderSize);
  keys_.aead().seal(keys_.take_nonce(), header, content, static_cast<std::byte>(type),
                    out.subspan(kRecordHeaderSize, size - kRecordHeaderSize));
  return size;
}

RecordResult<std::size_t> RecordOpener::size_of_front(Bytes input) noexcept {
  if (input.empty()) return 0;
  if (input[0] != static_cast<std::byte>(RecordType::application_data))
    return RecordFault{Alert::unexpected_message, "a record that is not protected"};
  if (input.size() < kRecordHeaderSize) return 0;
  const auto length = std::to_integer<std::size_t>(input[3]) << 8 | std::to_integer<std::size_t>(input[4]);
  if (length > kRecordCiphertextMax) return RecordFault{Alert::record_overflow, "a record above the size limit"};
  // Type and tag: a shorter record cannot be authentic (section 5.2).
  if (length < 1 + kAeadTagSize) return RecordFault{Alert::bad_record_mac, "a record too short to be authentic"};
  return kRecordHeaderSize + length;
}

RecordResult<RecordOpener::Opened> RecordOpener::open(MutableBytes record, MutableBytes head) noexcept {
  const auto text = record.subspan(kRecordHeaderSize, record.size() - kRecordHeaderSize - kAeadTagSize);
  // At least the type stays in the record, so that no byte is written behind a content that fills `head`.
  head = head.first(std::min(head.size(), text.size() - 1));
  if (!keys_.aead().open(keys_.take_nonce(), record.first(kRecordHeaderSize), text, head, record.last(kAeadTagSize)))
    return RecordFault{Alert::bad_record_mac, "a record failed authentication"};
  // Padding counts (section 5.4).
  if (text.size() > kRecordContentMax + 1)
    return RecordFault{Alert::record_overflow, "a record of more than 2^14 bytes"};
  const Bytes rest = text.subspan(head.size());
  const auto size = content_size(head, rest);
  if (size == kNoType) return RecordFault{Alert::unexpected_message, "a record without a type"};
  const auto type = size < head.size() ? head[size] : rest[size - head.size()];
  switch (static_cast<RecordType>(type)) {
    case RecordType::alert:
    case RecordType::handshake:
    case RecordType::application_data: return Opened{static_cast<RecordType>(type), size, std::min(size, head.size())};
    default: return RecordFault{Alert::unexpected_message, "a record of a type that is not allowed here"};
  }
}

}  // namespace backhaul
