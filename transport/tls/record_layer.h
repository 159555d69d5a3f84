// TLS 1.3 records (RFC 8446, section 5) sealed and opened in memory: pure of sockets, of OpenSSL and of what the
// content means. One direction per object, one thread at a time.
#pragma once

#include <boost/system/result.hpp>
#include <string_view>

#include "transport/tls/traffic_keys.h"

namespace backhaul {

enum class RecordType : std::uint8_t {  // section 5.1
  change_cipher_spec = 20,
  alert = 21,
  handshake = 22,
  application_data = 23,
};

enum class Alert : std::uint8_t {  // section 6; those that this program sends or treats specially
  close_notify = 0,
  unexpected_message = 10,
  bad_record_mac = 20,
  record_overflow = 22,
  illegal_parameter = 47,
  decode_error = 50,
  internal_error = 80,
  user_canceled = 90,
};

// What is wrong with what the peer sent: the alert to send, and a reason for our log.
struct RecordFault {
  Alert alert;
  std::string_view why;  // static
};
template <class T>
using RecordResult = boost::system::result<T, RecordFault>;
// value() on a fault: a defect of ours.
[[noreturn]] void throw_exception_from_error(const RecordFault& fault, const boost::source_location& where);

inline constexpr std::size_t kRecordHeaderSize = 5;
inline constexpr std::size_t kRecordContentMax = 1 << 14;                             // section 5.1
inline constexpr std::size_t kRecordCiphertextMax = kRecordContentMax + 256;          // section 5.2
inline constexpr std::size_t kRecordOverhead = kRecordHeaderSize + 1 + kAeadTagSize;  // ours: no padding
inline constexpr std::size_t kRecordMax = kRecordHeaderSize + kRecordCiphertextMax;

// Records under one key. AES-GCM is safe for 2^24.5 of full size (section 5.5); a disk can be larger than those 362
// GiB, so a new key is due after `due`. After `most` none is sealed or opened.
struct RecordLimits {
  std::uint64_t due = 1ULL << 23;
  std::uint64_t most = 23'726'566;  // 2^24.5
};

class RecordSealer {
 public:
  explicit RecordSealer(TrafficKeys keys) : keys_(std::move(keys)) {}

  // Writes one record of content.size() + kRecordOverhead bytes to `out`, without padding, and returns its size.
  // `content` does not overlap. REQUIRES: content of at most kRecordContentMax bytes, that much room, and
  // records() < most records of the limits.
  std::size_t seal(RecordType type, Bytes content, MutableBytes out) noexcept;

  std::uint64_t records() const noexcept { return keys_.records(); }
  bool update() { return keys_.update(); }

 private:
  TrafficKeys keys_;
};

class RecordOpener {
 public:
  explicit RecordOpener(TrafficKeys keys) : keys_(std::move(keys)) {}

  // The size, header included, of the record that `input` starts with, which may be longer than `input`; 0 while the
  // header is not complete. Faults: the record is not protected, or has a length that none can have.
  static RecordResult<std::size_t> size_of_front(Bytes input) noexcept;

  struct Opened {
    RecordType type;
    std::size_t size;  // of the content
    std::size_t head;  // bytes of the content that went to the caller's memory; the rest is in the record
  };
  // Opens one whole record. The content's first bytes go to `head`, as many as fit; the rest is in the record, from
  // kRecordHeaderSize + Opened::head on. Padding may overwrite `head` behind the content. After a fault `head` is
  // meaningless (it holds nothing of a record that failed authentication), and no more records can be opened.
  RecordResult<Opened> open(MutableBytes record, MutableBytes head) noexcept;

  std::uint64_t records() const noexcept { return keys_.records(); }
  bool update() { return keys_.update(); }

 private:
  TrafficKeys keys_;
};

}  // namespace backhaul
