// What a peer can send once the handshake is over: records that it sealed with the right keys and whatever content,
// type and padding, records changed on the way, and bytes that are none, cut and read in any pieces. Each input is a
// list of small commands. The channel may refuse, which is final; it hands out the bytes that were sealed as data, in
// their order, and never a byte else; what it writes the peer can open.
#include <algorithm>
#include <vector>

#include "tests/fuzz/fuzz_input.h"
#include "transport/tls/record_channel.h"

namespace backhaul {
namespace {

TrafficKeys keys_of(unsigned seed) {
  const std::vector<std::byte> secret(secret_size(RecordSuite::aes_128_gcm_sha256), static_cast<std::byte>(seed));
  auto keys = TrafficKeys::make(RecordSuite::aes_128_gcm_sha256, TrafficSecret(secret));
  require(keys.has_value());
  return std::move(*keys);
}

// The channel under test, the peer's keys, and what it must hand out.
class Talk {
 public:
  Talk(TlsSide side, const RecordLimits& limits)
      : channel_(side, RecordSealer(keys_of(1)), RecordOpener(keys_of(2)), limits),
        sealer_(keys_of(2)),
        opener_(keys_of(1)),
        limits_(limits) {}

  void command(Input& input) {
    const auto what = input.next();
    switch (what % 8) {
      case 0: say(RecordType::application_data, repeated(input), 0, -1); break;
      case 1: say(RecordType::application_data, input.take(what / 8), what % 3 * 40U, -1); break;
      case 2: say(RecordType::handshake, input.take(1 + what / 16), 0, -1); break;
      case 3: say_key_update(what / 8); break;
      case 4: say(static_cast<RecordType>(input.next()), input.take(what / 16), what / 128, -1); break;
      case 5: say(RecordType::application_data, input.take(what / 8), 0, input.next()); break;
      case 6: raw(input.take(1 + what / 8)); break;
      default: write(input.take(what / 8)); break;
    }
    read(input.next());
  }
  // Everything that can be read is read.
  void finish() {
    while (!over_ && step(5000)) continue;
  }

 private:
  std::vector<std::byte> repeated(Input& input) {
    const auto length = std::size_t{input.next()} * 71;
    return std::vector<std::byte>(std::min(length, kRecordContentMax), std::byte{input.next()});
  }

  // A record of the peer; `flip` of 0 or more: changed there on the way.
  void say(RecordType type, Bytes content, std::size_t padding, int flip) {
    std::vector<std::byte> inner(content.begin(), content.end());
    auto last = type;
    if (padding > 0) {
      inner.push_back(static_cast<std::byte>(type));
      inner.resize(inner.size() + padding - 1);
      last = RecordType{0};
    }
    std::vector<std::byte> record(inner.size() + kRecordOverhead);
    if (inner.size() > kRecordContentMax || in_.room() + in_.begin < record.size()) return;
    require(sealer_.seal(last, inner, record) == record.size());
    if (flip >= 0) {
      record[static_cast<std::size_t>(flip) % record.size()] ^= std::byte{1};
      poisoned_ = true;
    }
    append(record);
    if (!poisoned_) expect(inner, last);
  }
  // What the channel must make of that: the type is the last byte that is not zero (RFC 8446, section 5.4), so that a
  // type of 0 makes the content's own end the type.
  void expect(Bytes inner, RecordType last) {
    auto type = static_cast<std::byte>(last);
    while (type == std::byte{0} && !inner.empty()) {
      type = inner.back();
      inner = inner.first(inner.size() - 1);
    }
    if (type == static_cast<std::byte>(RecordType::application_data))
      data_.insert(data_.end(), inner.begin(), inner.end());
  }
  void say_key_update(unsigned kind) {
    if (in_.room() + in_.begin < kKeyUpdateSize + kRecordOverhead) return;
    say(RecordType::handshake, key_update_message(kind % 2 != 0), 0, -1);
    require(sealer_.update());
  }
  void raw(Bytes bytes) {
    poisoned_ = true;
    append(bytes);
  }
  void append(Bytes bytes) {
    in_.compact();
    if (bytes.size() > in_.room()) return;
    std::copy(bytes.begin(), bytes.end(), in_.free_space().begin());
    in_.end += bytes.size();
  }

  void write(Bytes bytes) {
    if (over_) return;
    const auto taken = channel_.write(bytes, out_);
    require(taken && *taken == bytes.size());
    while (!out_.empty()) {
      const auto size = RecordOpener::size_of_front(out_.content());
      require(size && *size > 0 && *size <= out_.size());
      const auto record = out_.content().first(*size);
      const auto opened = opener_.open(record, {});
      require(opened.has_value());
      if (opened->type == RecordType::handshake) require(opener_.update());
      if (opened->type == RecordType::application_data)
        require(std::ranges::equal(record.subspan(kRecordHeaderSize, opened->size), bytes));
      require(opener_.records() <= limits_.due);
      out_.drop(*size);
    }
  }

  void read(std::uint8_t how) {
    for (unsigned i = 0; i < how % 4U && !over_; ++i)
      if (!step(how / 4U * how)) break;
    if (how % 5 == 0) in_.compact();
  }
  bool step(std::size_t place_size) {
    std::vector<std::byte> place(place_size);
    std::size_t size = 0;
    const bool readable = channel_.readable(in_);
    const auto step = channel_.read(in_, place, size);
    require(readable == (!step || *step != RecordChannel::Step::need_input));
    over_ = !step || *step == RecordChannel::Step::ended;
    if (over_) return false;
    require(size <= data_.size() - handed_out_);
    require(std::ranges::equal(Bytes(place).first(size), Bytes(data_).subspan(handed_out_, size)));
    handed_out_ += size;
    return *step != RecordChannel::Step::need_input && (place_size > 0 || *step == RecordChannel::Step::record);
  }

  RecordChannel channel_;
  RecordSealer sealer_;
  RecordOpener opener_;
  RecordLimits limits_;
  CipherBuffer in_{64 * 1024}, out_{2 * kRecordMax};
  std::vector<std::byte> data_;  // what the channel must hand out
  std::size_t handed_out_ = 0;
  bool poisoned_ = false;  // what follows must never come out
  bool over_ = false;
};

}  // namespace
}  // namespace backhaul

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace backhaul;
  if (size == 0 || !AesGcm::available()) return 0;
  const RecordLimits limits = data[0] % 4 < 2 ? RecordLimits{} : RecordLimits{.due = 3, .most = 8};
  Talk talk(data[0] % 2 == 0 ? TlsSide::client : TlsSide::server, limits);
  Input input(as_bytes(data + 1, std::min<std::size_t>(size - 1, 2000)));
  while (!input.empty()) talk.command(input);
  talk.finish();
  return 0;
}
