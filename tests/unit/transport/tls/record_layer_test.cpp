#include "transport/tls/record_layer.h"

#include <algorithm>

#include "unit/transport/tls/record_fixture.h"

namespace backhaul::test {
namespace {

class RecordLayerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!AesGcm::available()) GTEST_SKIP() << "this CPU lacks AES or carry-less multiply instructions";
  }

  // Opens `record` with a place of `head` bytes; the content, put together again.
  static std::vector<std::byte> content(RecordOpener& opener, std::vector<std::byte> record, std::size_t head,
                                        RecordType type) {
    std::vector<std::byte> place(head);
    const auto opened = opener.open(record, place);
    EXPECT_TRUE(opened) << opened.error().why;
    if (!opened) return {};
    EXPECT_EQ(opened->type, type);
    EXPECT_LE(opened->head, std::min(head, opened->size));
    place.resize(opened->head);
    const auto rest = Bytes(record).subspan(kRecordHeaderSize + opened->head, opened->size - opened->head);
    place.insert(place.end(), rest.begin(), rest.end());
    return place;
  }
  static RecordFault refusal(Bytes bytes, unsigned seed = 1) {
    RecordOpener opener(keys_of(seed));
    std::vector<std::byte> record(bytes.begin(), bytes.end());
    const auto size = RecordOpener::size_of_front(record);
    if (!size) return size.error();
    EXPECT_EQ(*size, record.size());
    const auto opened = opener.open(record, {});
    EXPECT_FALSE(opened);
    return opened ? RecordFault{Alert::close_notify, "opened"} : opened.error();
  }
};

// RFC 8448, section 3, "Simple 1-RTT Handshake": the application traffic secrets and what was sent with them. The
// server's first record there is a session ticket; any other record in its place leaves the next one the same.
TEST_F(RecordLayerTest, makes_and_reads_the_records_of_rfc_8448) {
  const auto client_secret = from_hex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5");
  const auto server_secret = from_hex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643");
  const auto client_data = from_hex(
      "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62974e1f5a6292"
      "a2977014bd1e3deae63aeebb21694915e4");
  const auto server_data = from_hex(
      "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a59a8fcc49c4bf2e5f0"
      "a21c0047c2abf332540dd032e167c2955d");
  const auto client_goodbye = from_hex("1703030013c9872760655666b74d7ff1153efd6db6d0b0e3");
  const auto server_goodbye = from_hex("1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9");
  std::vector<std::byte> payload(50);
  for (std::size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<std::byte>(i);
  const auto goodbye = from_hex("0100");

  const auto keys = [](Bytes secret) {
    return std::move(*TrafficKeys::make(RecordSuite::aes_128_gcm_sha256, TrafficSecret(secret)));
  };
  RecordSealer client(keys(client_secret)), server(keys(server_secret));
  const auto ticket = sealed(server, RecordType::handshake, goodbye);
  EXPECT_EQ(sealed(client, RecordType::application_data, payload), client_data);
  EXPECT_EQ(sealed(server, RecordType::application_data, payload), server_data);
  EXPECT_EQ(sealed(client, RecordType::alert, goodbye), client_goodbye);
  EXPECT_EQ(sealed(server, RecordType::alert, goodbye), server_goodbye);

  RecordOpener from_client(keys(client_secret)), from_server(keys(server_secret));
  content(from_server, ticket, 0, RecordType::handshake);
  EXPECT_EQ(content(from_client, client_data, 20, RecordType::application_data), payload);
  EXPECT_EQ(content(from_server, server_data, 50, RecordType::application_data), payload);
  EXPECT_EQ(content(from_client, client_goodbye, 0, RecordType::alert), goodbye);
  EXPECT_EQ(content(from_server, server_goodbye, 9, RecordType::alert), goodbye);
}

TEST_F(RecordLayerTest, carries_every_size_to_places_of_every_size_across_key_updates) {
  for (const auto suite : {RecordSuite::aes_128_gcm_sha256, RecordSuite::aes_256_gcm_sha384}) {
    RecordSealer sealer(keys_of(1, suite));
    RecordOpener opener(keys_of(1, suite));
    std::vector<std::byte> text(kRecordContentMax);
    for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<std::byte>(i * 7 + i / 256);
    unsigned turn = 0;
    for (const std::size_t size : {0, 1, 2, 15, 16, 17, 64, 4096, 16383, 16384}) {
      for (const std::size_t head : {0, 1, 16, 64, 5000, 16384, 20000}) {
        const auto want = Bytes(text).first(size);
        const auto got =
            content(opener, sealed(sealer, RecordType::application_data, want), head, RecordType::application_data);
        ASSERT_TRUE(std::ranges::equal(got, want)) << size << " to a place of " << head;
        if (++turn % 5 == 0) {
          ASSERT_TRUE(sealer.update() && opener.update());
          EXPECT_EQ(sealer.records(), 0U);
        }
      }
    }
  }
}

TEST_F(RecordLayerTest, takes_padding_off) {
  RecordSealer sealer(keys_of(1));
  RecordOpener opener(keys_of(1));
  for (const std::size_t padding : {1, 15, 16, 1000}) {
    for (const std::size_t head : {0, 3, 10, 500, 2000}) {
      auto inner = from_hex("616200");  // ends with a zero of its own
      inner.push_back(static_cast<std::byte>(RecordType::application_data));
      inner.resize(inner.size() + padding - 1);
      const auto record = sealed(sealer, RecordType{0}, inner);
      EXPECT_EQ(content(opener, record, head, RecordType::application_data), from_hex("616200")) << padding;
    }
  }
}

TEST_F(RecordLayerTest, writes_nothing_behind_a_place_that_the_content_fills) {
  RecordSealer sealer(keys_of(1));
  RecordOpener opener(keys_of(1));
  const std::vector<std::byte> text(100, std::byte{0x41});
  auto record = sealed(sealer, RecordType::application_data, text);
  std::vector<std::byte> place(101, std::byte{0xEE});
  ASSERT_TRUE(opener.open(record, place));
  EXPECT_EQ(place.back(), std::byte{0xEE});
}

TEST_F(RecordLayerTest, refuses_what_is_not_a_record_that_may_come) {
  EXPECT_EQ(refusal(from_hex("1503030002 0100")).alert, Alert::unexpected_message);  // an alert in the clear
  EXPECT_EQ(refusal(from_hex("1403030001 01")).alert, Alert::unexpected_message);    // change_cipher_spec
  EXPECT_EQ(refusal(from_hex("47")).alert, Alert::unexpected_message);               // "GET"
  EXPECT_EQ(refusal(from_hex("1703034101")).alert, Alert::record_overflow);
  EXPECT_EQ(refusal(from_hex("1703030010")).alert, Alert::bad_record_mac);
  EXPECT_EQ(*RecordOpener::size_of_front(from_hex("1703034100")), 5 + (1U << 14) + 256);
  EXPECT_EQ(*RecordOpener::size_of_front(from_hex("17030341")), 0U);
  EXPECT_EQ(*RecordOpener::size_of_front({}), 0U);

  const auto inner = [](RecordType type, Bytes content) {
    RecordSealer sealer(keys_of(1));
    return sealed(sealer, type, content);
  };
  EXPECT_EQ(refusal(inner(RecordType{0}, {})).alert, Alert::unexpected_message);
  EXPECT_EQ(refusal(inner(RecordType{0}, std::vector<std::byte>(700))).alert, Alert::unexpected_message);
  EXPECT_EQ(refusal(inner(RecordType::change_cipher_spec, from_hex("01"))).alert, Alert::unexpected_message);
  EXPECT_EQ(refusal(inner(RecordType{24}, from_hex("01"))).alert, Alert::unexpected_message);
}

// 2^14 + 1 bytes of content, and 2^14 with a byte of padding: both authentic, both too long.
TEST_F(RecordLayerTest, refuses_an_authentic_record_that_is_too_long) {
  for (const std::byte last : {std::byte{23}, std::byte{0}}) {
    std::vector<std::byte> inner(kRecordContentMax + 1, std::byte{23});
    std::vector<std::byte> record(kRecordHeaderSize + inner.size() + 1 + kAeadTagSize);
    record[0] = std::byte{23}, record[1] = record[2] = std::byte{3};
    const auto length = record.size() - kRecordHeaderSize;
    record[3] = static_cast<std::byte>(length >> 8), record[4] = static_cast<std::byte>(length);
    auto keys = keys_of(1);
    keys.aead().seal(keys.take_nonce(), Bytes(record).first(kRecordHeaderSize), inner, last,
                     MutableBytes(record).subspan(kRecordHeaderSize));
    EXPECT_EQ(refusal(record).alert, Alert::record_overflow);
  }
}

TEST_F(RecordLayerTest, refuses_a_record_changed_anywhere_or_out_of_its_turn) {
  const auto text = from_hex("000102030405060708090a0b0c0d0e0f1011");
  RecordSealer sealer(keys_of(1));
  const auto first = sealed(sealer, RecordType::application_data, text);
  const auto second = sealed(sealer, RecordType::application_data, text);
  EXPECT_EQ(refusal(second).alert, Alert::bad_record_mac);    // a record is missing before it
  EXPECT_EQ(refusal(first, 2).alert, Alert::bad_record_mac);  // another key
  for (std::size_t i = 1; i < first.size(); ++i) {            // the type is refused before that
    if (i == 3 || i == 4) continue;                           // the length, which cuts it elsewhere
    auto changed = first;
    changed[i] ^= std::byte{0x10};
    EXPECT_EQ(refusal(changed).alert, Alert::bad_record_mac) << i;
  }
  RecordOpener opener(keys_of(1));
  auto once = first, twice = first;
  EXPECT_TRUE(opener.open(once, {}));
  EXPECT_FALSE(opener.open(twice, {})) << "a record that came before";
}

}  // namespace
}  // namespace backhaul::test
