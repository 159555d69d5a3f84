#include "transport/tls/record_channel.h"

#include <algorithm>

#include "unit/transport/tls/record_fixture.h"

namespace backhaul::test {
namespace {

constexpr std::byte kUpdate[] = {std::byte{24}, std::byte{0}, std::byte{0}, std::byte{1}, std::byte{0}};
constexpr std::byte kUpdateRequested[] = {std::byte{24}, std::byte{0}, std::byte{0}, std::byte{1}, std::byte{1}};

// A channel of ours and, at the other end, a bare sealer and opener, with which the test says and hears anything.
class RecordChannelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!AesGcm::available()) GTEST_SKIP() << "this CPU lacks AES or carry-less multiply instructions";
    make(TlsSide::client, {});
  }

  void make(TlsSide side, const RecordLimits& limits) {
    channel_.emplace(side, RecordSealer(keys_of(1)), RecordOpener(keys_of(2)), limits);
    peer_sealer_.emplace(keys_of(2));
    peer_opener_.emplace(keys_of(1));
    in_.emplace(256 * kKiB);
    out_.emplace(256 * kKiB);
  }

  void say(RecordType type, Bytes content) { append(*in_, sealed(*peer_sealer_, type, content)); }
  void say(RecordType type, std::string_view hex) { say(type, from_hex(hex)); }
  void say_data(std::string_view text) { say(RecordType::application_data, std::as_bytes(std::span(text))); }
  // Reads until nothing more comes: the data, and how it ended.
  std::string hear(std::size_t place = 1000) {
    std::string text;
    std::vector<std::byte> into(place);
    while (true) {
      std::size_t size = 0;
      const auto step = channel_->read(*in_, into, size);
      if (!step) {
        fault_ = step.error();
        return text + "!";
      }
      text.append(reinterpret_cast<const char*>(into.data()), size);
      if (*step == RecordChannel::Step::ended) return text + ".";
      if (*step == RecordChannel::Step::need_input) return text;
    }
  }
  // What the channel wrote, one record: type and content as the peer opens it.
  std::pair<RecordType, std::vector<std::byte>> written() {
    const auto size = RecordOpener::size_of_front(out_->content());
    EXPECT_TRUE(size && *size > 0 && *size <= out_->size());
    if (!size || *size == 0 || *size > out_->size()) return {};
    const auto record = out_->content().first(*size);
    const auto opened = peer_opener_->open(record, {});
    EXPECT_TRUE(opened);
    if (!opened) return {};
    const auto text = record.subspan(kRecordHeaderSize, opened->size);
    std::pair<RecordType, std::vector<std::byte>> result(opened->type, {text.begin(), text.end()});
    out_->drop(*size);
    return result;
  }
  void expect_fault(Alert alert) {
    hear();
    ASSERT_TRUE(fault_.has_value());
    EXPECT_EQ(fault_->alert, alert) << fault_->why;
  }

  std::optional<RecordChannel> channel_;
  std::optional<RecordSealer> peer_sealer_;
  std::optional<RecordOpener> peer_opener_;
  std::optional<CipherBuffer> in_, out_;
  std::optional<RecordFault> fault_;
};

TEST_F(RecordChannelTest, hands_out_data_in_pieces_and_ends_with_a_goodbye) {
  say_data("hello ");
  say_data("world");
  say(RecordType::alert, "0100");
  say_data("too late");
  for (int again = 0; again < 2; ++again) EXPECT_EQ(hear(3), again == 0 ? "hello world." : ".");
  EXPECT_EQ(channel_->peer_alert(), Alert::close_notify);
}

TEST_F(RecordChannelTest, waits_for_whole_records) {
  RecordSealer sealer(keys_of(2));
  const auto record = sealed(sealer, RecordType::application_data, std::as_bytes(std::span("x", 1)));
  for (const auto byte : record) {
    EXPECT_FALSE(channel_->readable(*in_));
    EXPECT_EQ(hear(), "");
    append(*in_, {&byte, 1});
  }
  EXPECT_TRUE(channel_->readable(*in_));
  EXPECT_EQ(hear(), "x");
  EXPECT_FALSE(channel_->readable(*in_));
}

TEST_F(RecordChannelTest, keeps_half_read_records_when_its_buffer_is_compacted) {
  say_data("abcdefgh");
  say_data("ijkl");
  std::byte into[5];
  std::size_t size = 0;
  ASSERT_TRUE(channel_->read(*in_, into, size));
  EXPECT_EQ(size, 5U);
  in_->compact();
  append(*in_, {});
  EXPECT_EQ(hear(), "fghijkl");
}

TEST_F(RecordChannelTest, follows_the_peers_key_and_answers_a_request_once) {
  say_data("a");
  say(RecordType::handshake, Bytes(kUpdate));
  ASSERT_TRUE(peer_sealer_->update());
  say_data("b");
  EXPECT_EQ(hear(), "ab");
  ASSERT_TRUE(channel_->write_key_update(*out_));
  EXPECT_TRUE(out_->empty()) << "nobody asked";

  for (int i = 0; i < 3; ++i) {
    say(RecordType::handshake, Bytes(kUpdateRequested));
    ASSERT_TRUE(peer_sealer_->update());
  }
  say_data("c");
  EXPECT_EQ(hear(), "c");
  // Ahead of the next data, and without a request of its own, or the two would never end.
  ASSERT_TRUE(channel_->write(from_hex("77"), *out_));
  const auto answer = written();
  EXPECT_EQ(answer.first, RecordType::handshake);
  EXPECT_TRUE(std::ranges::equal(answer.second, kUpdate));
  ASSERT_TRUE(peer_opener_->update());
  EXPECT_EQ(written(), std::pair(RecordType::application_data, from_hex("77")));
  EXPECT_TRUE(out_->empty());
}

TEST_F(RecordChannelTest, changes_its_own_key_before_it_is_worn) {
  make(TlsSide::client, {.due = 3, .most = 5});
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(channel_->write(from_hex("77"), *out_));
    auto record = written();
    if (record.first == RecordType::handshake) {
      EXPECT_EQ(i % 3, 0);
      EXPECT_TRUE(std::ranges::equal(record.second, kUpdate));
      ASSERT_TRUE(peer_opener_->update());
      record = written();
    }
    EXPECT_EQ(record.second, from_hex("77"));
    EXPECT_LE(peer_opener_->records(), 3U);
  }
}

TEST_F(RecordChannelTest, asks_for_a_new_key_of_the_peer_and_refuses_the_old_one_at_its_limit) {
  make(TlsSide::server, {.due = 3, .most = 5});
  for (int i = 0; i < 3; ++i) say_data("x");
  EXPECT_EQ(hear(), "xxx");
  ASSERT_TRUE(channel_->write_key_update(*out_));
  EXPECT_TRUE(out_->empty());
  say_data("y");
  EXPECT_EQ(hear(), "y");
  ASSERT_TRUE(channel_->write_key_update(*out_));
  EXPECT_TRUE(std::ranges::equal(written().second, kUpdateRequested));
  ASSERT_TRUE(channel_->write_key_update(*out_));
  EXPECT_TRUE(out_->empty()) << "it was asked for already";

  say_data("z");
  EXPECT_EQ(hear(), "z");
  say_data("more than is safe");
  expect_fault(Alert::internal_error);
}

TEST_F(RecordChannelTest, goes_on_when_the_peer_gives_the_new_key_that_it_was_asked_for) {
  make(TlsSide::server, {.due = 3, .most = 5});
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < 4; ++i) say_data("x");
    EXPECT_EQ(hear(), "xxxx");
    ASSERT_TRUE(channel_->write_key_update(*out_));
    EXPECT_TRUE(std::ranges::equal(written().second, kUpdateRequested));
    ASSERT_TRUE(peer_opener_->update());
    say(RecordType::handshake, Bytes(kUpdate));
    ASSERT_TRUE(peer_sealer_->update());
  }
}

TEST_F(RecordChannelTest, reads_over_tickets_however_they_are_cut) {
  // A ticket of 20 bytes, and another whose beginning shares a record with the first one's end.
  const auto ticket = from_hex("04000014 0102030405060708090a0b0c0d0e0f1011121314");
  std::vector<std::byte> two(ticket);
  two.insert(two.end(), ticket.begin(), ticket.end());
  for (const std::size_t piece : {1, 3, 7, 24, 30, 48}) {
    make(TlsSide::client, {});
    say_data("a");
    for (std::size_t at = 0; at < two.size(); at += piece)
      say(RecordType::handshake, Bytes(two).subspan(at, std::min(piece, two.size() - at)));
    say_data("b");
    EXPECT_EQ(hear(), "ab") << piece;
  }
}

TEST_F(RecordChannelTest, takes_a_key_update_that_is_cut) {
  say(RecordType::handshake, "180000");
  say(RecordType::handshake, "01");
  say(RecordType::handshake, "00");
  ASSERT_TRUE(peer_sealer_->update());
  say_data("a");
  EXPECT_EQ(hear(), "a");
}

struct Refused {
  const char* what;
  TlsSide side;
  std::vector<std::pair<RecordType, const char*>> records;
  Alert alert;
};
class RefusedRecordsTest : public RecordChannelTest, public ::testing::WithParamInterface<Refused> {};

constexpr auto kHandshake = RecordType::handshake;
INSTANTIATE_TEST_SUITE_P(
    Peer, RefusedRecordsTest,
    ::testing::Values(
        Refused{"a_ticket_of_a_client", TlsSide::server, {{kHandshake, "04000001 00"}}, Alert::unexpected_message},
        Refused{"a_hello", TlsSide::server, {{kHandshake, "01000001 00"}}, Alert::unexpected_message},
        Refused{"a_request_for_a_certificate",
                TlsSide::client,
                {{kHandshake, "0d000003 000000"}},
                Alert::unexpected_message},
        Refused{"a_finished", TlsSide::client, {{kHandshake, "14000001 00"}}, Alert::unexpected_message},
        Refused{"an_empty_handshake_record", TlsSide::client, {{kHandshake, ""}}, Alert::unexpected_message},
        Refused{"an_empty_ticket", TlsSide::client, {{kHandshake, "04000000"}}, Alert::decode_error},
        Refused{"a_huge_ticket", TlsSide::client, {{kHandshake, "04ffffff"}}, Alert::decode_error},
        Refused{
            "a_key_update_with_a_length_of_two", TlsSide::client, {{kHandshake, "18000002 0000"}}, Alert::decode_error},
        Refused{"a_key_update_that_asks_for_something_else",
                TlsSide::client,
                {{kHandshake, "18000001 02"}},
                Alert::illegal_parameter},
        Refused{"a_key_update_that_does_not_end_its_record",
                TlsSide::client,
                {{kHandshake, "18000001 00 04"}},
                Alert::unexpected_message},
        Refused{"data_in_the_middle_of_a_message",
                TlsSide::client,
                {{kHandshake, "040000"}, {RecordType::application_data, "61"}},
                Alert::unexpected_message},
        Refused{"an_alert_in_the_middle_of_a_message",
                TlsSide::client,
                {{kHandshake, "04000002 00"}, {RecordType::alert, "0100"}},
                Alert::unexpected_message},
        Refused{"an_empty_alert", TlsSide::client, {{RecordType::alert, ""}}, Alert::decode_error},
        Refused{"half_an_alert", TlsSide::client, {{RecordType::alert, "01"}}, Alert::decode_error},
        Refused{"two_alerts_in_one_record", TlsSide::client, {{RecordType::alert, "015a0100"}}, Alert::decode_error}),
    [](const auto& one) { return std::string(one.param.what); });

TEST_P(RefusedRecordsTest, with_the_right_alert) {
  make(GetParam().side, {});
  say_data("before");
  for (const auto& [type, hex] : GetParam().records) say(type, hex);
  std::vector<std::byte> into(100);
  std::size_t size = 0;
  ASSERT_TRUE(channel_->read(*in_, into, size)) << "what came before is good";
  EXPECT_EQ(size, 6U);
  expect_fault(GetParam().alert);
  channel_->write_alert(fault_->alert, *out_);
  const auto [type, content] = written();
  EXPECT_EQ(type, RecordType::alert);
  EXPECT_EQ(content, (std::vector{std::byte{2}, static_cast<std::byte>(GetParam().alert)}));
}

TEST_F(RecordChannelTest, bounds_records_without_data) {
  const auto empty = [&](int count) {
    for (int i = 0; i < count; ++i) say(RecordType::application_data, "");
  };
  empty(64);
  say_data("a");
  empty(64);
  say_data("b");
  EXPECT_EQ(hear(), "ab");
  empty(65);
  expect_fault(Alert::unexpected_message);
}

TEST_F(RecordChannelTest, tells_a_goodbye_from_an_alert) {
  say(RecordType::alert, "015a");  // user_canceled announces a goodbye, no more
  say(RecordType::alert, "0100");
  EXPECT_EQ(hear(), ".");
  EXPECT_EQ(channel_->peer_alert(), Alert::close_notify);
  make(TlsSide::client, {});
  say(RecordType::alert, "0114");  // fatal whatever level it claims
  EXPECT_EQ(hear(), ".");
  EXPECT_EQ(channel_->peer_alert(), Alert::bad_record_mac);
}

// An alert or a ticket is decrypted where the caller wants data, before its type is known.
TEST_F(RecordChannelTest, never_hands_out_what_is_not_data) {
  const auto ticket = from_hex("04000008 4142434445464748");
  say(RecordType::handshake, Bytes(ticket));
  say(RecordType::alert, "0100");
  for (const std::size_t place : {1, 5, 100}) {
    make(TlsSide::client, {});
    say(RecordType::handshake, Bytes(ticket));
    say(RecordType::alert, "0100");
    EXPECT_EQ(hear(place), ".") << place;
  }
}

}  // namespace
}  // namespace backhaul::test
