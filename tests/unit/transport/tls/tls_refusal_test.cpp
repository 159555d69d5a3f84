// Every way in which two ends refuse each other, and what each of them then says. In TLS 1.3 the client's handshake is
// over before the server has judged its certificate, so the client's side is asserted on its first read.
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <cstdio>
#include <fstream>
#include <functional>

#include "transport/stream/transport_error.h"
#include "transport/tls/tls_internal.h"
#include "unit/transport/tls/tls_fixture.h"

namespace backhaul::test {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;

// A certificate that `pki` would never make: `change` is called before it is signed by the CA in `pki`.
void write_odd_node(const fs::path& pki, const fs::path& directory, const std::function<void(X509*)>& change) {
  const auto open = [](const fs::path& path, const char* mode) {
    return std::unique_ptr<std::FILE, OpensslFree<std::fclose>>(std::fopen(path.c_str(), mode));
  };
  const KeyPtr ca_key(PEM_read_PrivateKey(open(pki / "ca.key", "r").get(), nullptr, nullptr, nullptr));
  const X509Ptr node(PEM_read_X509(open(pki / "appliance" / "node.crt", "r").get(), nullptr, nullptr, nullptr));
  change(node.get());
  ASSERT_GT(X509_sign(node.get(), ca_key.get(), EVP_sha256()), 0);
  fs::create_directories(directory);
  fs::copy_file(pki / "ca.crt", directory / "ca.crt");
  fs::copy_file(pki / "appliance" / "node.key", directory / "node.key");
  PEM_write_X509(open(directory / "node.crt", "w").get(), node.get());
}

// An empty or one-entry revocation list of the CA in `pki`.
void write_crl(const fs::path& pki, const fs::path& file, const fs::path& revoked) {
  const auto open = [](const fs::path& path, const char* mode) {
    return std::unique_ptr<std::FILE, OpensslFree<std::fclose>>(std::fopen(path.c_str(), mode));
  };
  const KeyPtr key(PEM_read_PrivateKey(open(pki / "ca.key", "r").get(), nullptr, nullptr, nullptr));
  const X509Ptr ca(PEM_read_X509(open(pki / "ca.crt", "r").get(), nullptr, nullptr, nullptr));
  std::unique_ptr<X509_CRL, OpensslFree<X509_CRL_free>> crl(X509_CRL_new());
  std::unique_ptr<ASN1_TIME, OpensslFree<ASN1_TIME_free>> time(X509_gmtime_adj(nullptr, -60));
  X509_CRL_set_version(crl.get(), 1);
  X509_CRL_set_issuer_name(crl.get(), X509_get_subject_name(ca.get()));
  X509_CRL_set1_lastUpdate(crl.get(), time.get());
  if (!revoked.empty()) {
    const X509Ptr node(PEM_read_X509(open(revoked, "r").get(), nullptr, nullptr, nullptr));
    X509_REVOKED* entry = X509_REVOKED_new();
    X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(node.get()));
    X509_REVOKED_set_revocationDate(entry, time.get());
    X509_CRL_add0_revoked(crl.get(), entry);
  }
  X509_gmtime_adj(time.get(), 86400);
  X509_CRL_set1_nextUpdate(crl.get(), time.get());
  ASSERT_GT(X509_CRL_sign(crl.get(), key.get(), EVP_sha256()), 0);
  PEM_write_X509_CRL(open(file, "w").get(), crl.get());
}

// A peer that keeps none of our rules: its own SSL_CTX, blocking. What it read last tells what it was told.
class RawPeer {
 public:
  RawPeer(bool client, int version, const fs::path& directory, std::string_view alpn)
      : context_(SSL_CTX_new(client ? TLS_client_method() : TLS_server_method())) {
    SSL_CTX_set_max_proto_version(context_.get(), version);
    SSL_CTX_set_verify(context_.get(), SSL_VERIFY_NONE, nullptr);
    if (!directory.empty()) {
      SSL_CTX_use_certificate_chain_file(context_.get(), (directory / "node.crt").c_str());
      SSL_CTX_use_PrivateKey_file(context_.get(), (directory / "node.key").c_str(), SSL_FILETYPE_PEM);
    }
    ssl_.reset(SSL_new(context_.get()));
    client ? SSL_set_connect_state(ssl_.get()) : SSL_set_accept_state(ssl_.get());
    if (!client || alpn.empty()) return;
    std::string wire(1, static_cast<char>(alpn.size()));
    wire += alpn;
    SSL_set_alpn_protos(ssl_.get(), reinterpret_cast<const unsigned char*>(wire.data()),
                        static_cast<unsigned>(wire.size()));
  }
  // Handshake, then one read. 0, or the alert that came (1 when it was another failure).
  int run(UniqueFd socket) {
    SSL_set_fd(ssl_.get(), socket.get());
    char byte;
    if (SSL_do_handshake(ssl_.get()) == 1 && SSL_read(ssl_.get(), &byte, 1) > 0) return 0;
    const int reason = ERR_GET_REASON(ERR_peek_error());
    ERR_clear_error();
    return reason > SSL_AD_REASON_OFFSET ? reason - SSL_AD_REASON_OFFSET : 1;
  }

 private:
  SslCtxPtr context_;
  SslPtr ssl_;
};

class CredentialsTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(pki_init(pki())); }
  fs::path pki() const { return directory_.path() / "pki"; }
  fs::path client() const { return pki() / "appliance"; }
  fs::path server() const { return pki() / "host"; }
  fs::path made(std::string_view name) const { return directory_.path() / name; }

  TempDirectory directory_;
};

// Our end's records are ours, or OpenSSL's.
class TlsRefusalTest : public CredentialsTest, public ::testing::WithParamInterface<TlsRecords> {
 protected:
  static Result<std::shared_ptr<TlsContext>> load(TlsRole role, const fs::path& directory) {
    return TlsContext::load(role, directory, GetParam());
  }
  static Ends meet_each_other(const fs::path& client_directory, const fs::path& server_directory,
                              const std::string& host = "127.0.0.1", std::string_view alpn = kAlpnBackhaul) {
    return shake_hands(client_directory, server_directory, {GetParam(), GetParam()}, host, alpn);
  }

  // A server of ours meets a client that is not ours.
  struct Met {
    Error server;
    int alert;
  };
  Met meet(int version, const fs::path& client_directory, std::string_view alpn = kAlpnBackhaul,
           TlsRole role = TlsRole::server) {
    auto context = load(role, server());
    EXPECT_TRUE(context) << context.error().to_string();
    Listener listener;
    auto accepted =
        std::async(std::launch::async, [&] { return tls_accept(**context, listener.accept(), seconds(10)); });
    RawPeer peer(true, version, client_directory, alpn);
    const int alert = peer.run(connect_plain(listener.port()));
    auto result = accepted.get();
    EXPECT_FALSE(result) << "the server was content";
    return {result ? make_error(BaseErrc::internal) : result.error(), alert};
  }
};
INSTANTIATE_TEST_SUITE_P(Records, TlsRefusalTest, ::testing::Values(TlsRecords::automatic, TlsRecords::openssl),
                         [](const auto& one) {
                           return std::string(one.param == TlsRecords::automatic ? "own" : "openssl");
                         });

TEST_P(TlsRefusalTest, a_client_without_a_certificate) {
  const auto met = meet(TLS1_3_VERSION, {});
  EXPECT_EQ(met.server, make_error_code(TransportErrc::tls_certificate_required)) << met.server.to_string();
  EXPECT_EQ(met.alert, 116);
}

TEST_P(TlsRefusalTest, a_client_that_speaks_tls_1_2) {
  const auto met = meet(TLS1_2_VERSION, client());
  EXPECT_EQ(met.server, make_error_code(TransportErrc::tls_protocol_version)) << met.server.to_string();
  EXPECT_EQ(met.alert, 70);
}

TEST_P(TlsRefusalTest, a_server_that_speaks_tls_1_2) {
  auto context = load(TlsRole::client, client());
  ASSERT_TRUE(context);
  Listener listener;
  auto other = std::async(std::launch::async,
                          [&] { return RawPeer(false, TLS1_2_VERSION, server(), {}).run(listener.accept()); });
  auto stream = tls_connect(**context, {"127.0.0.1", listener.port()}, kAlpnBackhaul, seconds(10));
  ASSERT_FALSE(stream);
  EXPECT_EQ(stream.error(), make_error_code(TransportErrc::tls_protocol_version)) << stream.error().to_string();
  EXPECT_NE(other.get(), 0);
}

TEST_P(TlsRefusalTest, a_client_with_the_wrong_alpn_or_none) {
  auto met = meet(TLS1_3_VERSION, client(), "h2");
  EXPECT_EQ(met.server, make_error_code(TransportErrc::alpn_mismatch)) << met.server.to_string();
  EXPECT_EQ(met.alert, 120);
  met = meet(TLS1_3_VERSION, client(), "");
  EXPECT_EQ(met.server, make_error_code(TransportErrc::alpn_mismatch)) << met.server.to_string();
}

TEST_P(TlsRefusalTest, our_client_asks_for_an_alpn_that_is_not_offered) {
  auto [c, s] = meet_each_other(client(), server(), "127.0.0.1", "backhaul/9");
  ASSERT_FALSE(c);
  ASSERT_FALSE(s);
  EXPECT_EQ(c.error(), make_error_code(TransportErrc::alpn_mismatch)) << c.error().to_string();
  EXPECT_EQ(s.error(), make_error_code(TransportErrc::alpn_mismatch)) << s.error().to_string();
}

// The API's listener

TEST_P(TlsRefusalTest, the_api_server_takes_clients_with_any_certificate_or_none) {
  ASSERT_TRUE(pki_init(made("other")));
  auto context = load(TlsRole::api_server, server());
  ASSERT_TRUE(context) << context.error().to_string();
  for (const auto& certificate : {fs::path(), client(), made("other") / "appliance"}) {
    for (const std::string_view alpn : {kAlpnHttp, std::string_view()}) {
      Listener listener;
      auto accepted = std::async(std::launch::async, [&]() -> Result<std::string> {
        BH_TRY(auto stream, tls_accept(**context, listener.accept(), seconds(10)));
        BH_RETURN_IF_ERROR(write_all(*stream, std::as_bytes(std::span("x", 1))));
        return std::string(stream->alpn()) + stream->peer_name();
      });
      RawPeer peer(true, TLS1_3_VERSION, certificate, alpn);
      EXPECT_EQ(peer.run(connect_plain(listener.port())), 0) << certificate << alpn;
      auto result = accepted.get();
      ASSERT_TRUE(result) << result.error().to_string();
      EXPECT_EQ(*result, kAlpnHttp) << "a certificate is not asked for, so it names nobody";
    }
  }
}

TEST_P(TlsRefusalTest, the_api_server_offers_neither_lanes_nor_tls_1_2) {
  auto met = meet(TLS1_3_VERSION, client(), kAlpnBackhaul, TlsRole::api_server);
  EXPECT_EQ(met.server, make_error_code(TransportErrc::alpn_mismatch)) << met.server.to_string();
  met = meet(TLS1_2_VERSION, client(), kAlpnHttp, TlsRole::api_server);
  EXPECT_EQ(met.server, make_error_code(TransportErrc::tls_protocol_version)) << met.server.to_string();
}

TEST_P(TlsRefusalTest, an_api_client_needs_the_ca_alone_and_checks_the_server) {
  ASSERT_TRUE(pki_init(made("other")));
  auto context = TlsContext::load_ca(pki() / "ca.crt");
  ASSERT_TRUE(context) << context.error().to_string();
  const auto dial = [&](TlsRole role, const fs::path& directory) -> Result<void> {
    auto server_context = load(role, directory);
    EXPECT_TRUE(server_context);
    Listener listener;
    auto accepted =
        std::async(std::launch::async, [&] { return tls_accept(**server_context, listener.accept(), seconds(10)); });
    auto stream = tls_connect(**context, {"127.0.0.1", listener.port()}, kAlpnHttp, seconds(10));
    auto other = accepted.get();
    if (!stream) return stream.error();
    return other ? Result<void>() : other.error();
  };
  EXPECT_TRUE(dial(TlsRole::api_server, server()));
  auto refused = dial(TlsRole::api_server, made("other") / "host");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error(), make_error_code(TransportErrc::tls_unknown_ca)) << refused.error().to_string();
  refused = dial(TlsRole::server, server());  // a node's listener stays mutual
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error(), make_error_code(TransportErrc::tls_certificate_required)) << refused.error().to_string();
}

TEST_P(TlsRefusalTest, a_server_of_another_ca) {
  ASSERT_TRUE(pki_init(made("other")));
  auto [c, s] = meet_each_other(client(), made("other") / "host");
  ASSERT_FALSE(c);
  EXPECT_EQ(c.error(), make_error_code(TransportErrc::tls_unknown_ca)) << c.error().to_string();
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error(), make_error_code(TransportErrc::tls_unknown_ca)) << s.error().to_string();
  EXPECT_NE(s.error().cause().find("refused our certificate"), std::string::npos) << s.error().cause();
}

TEST_P(TlsRefusalTest, a_client_of_another_ca) {
  ASSERT_TRUE(pki_init(made("other")));
  // It trusts our CA but has another one's certificate.
  fs::copy_file(client() / "ca.crt", made("other") / "appliance" / "ca.crt", fs::copy_options::overwrite_existing);
  auto [c, s] = meet_each_other(made("other") / "appliance", server());
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error(), make_error_code(TransportErrc::tls_unknown_ca)) << s.error().to_string();
  ASSERT_TRUE(c) << "TLS 1.3: the client does not know yet";
  const auto error = read_to_error(**c);
  EXPECT_EQ(error, make_error_code(TransportErrc::tls_unknown_ca)) << error.to_string();
  EXPECT_NE(error.cause().find("refused our certificate"), std::string::npos) << error.cause();
}

TEST_P(TlsRefusalTest, a_refused_client_learns_why_even_when_it_only_writes) {
  ASSERT_TRUE(pki_init(made("other")));
  fs::copy_file(client() / "ca.crt", made("other") / "appliance" / "ca.crt", fs::copy_options::overwrite_existing);
  auto [c, s] = meet_each_other(made("other") / "appliance", server());
  ASSERT_TRUE(c && !s);
  const std::vector<std::byte> bytes(16 * kMiB);
  const auto written = write_all(**c, bytes);
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error(), make_error_code(TransportErrc::tls_unknown_ca)) << written.error().to_string();
}

TEST_P(TlsRefusalTest, an_expired_client) {
  write_odd_node(pki(), made("expired"), [](X509* node) {
    X509_gmtime_adj(X509_getm_notBefore(node), -7200);
    X509_gmtime_adj(X509_getm_notAfter(node), -3600);
  });
  const auto met = meet(TLS1_3_VERSION, made("expired"));
  EXPECT_EQ(met.server, make_error_code(TransportErrc::tls_certificate_expired)) << met.server.to_string();
  EXPECT_EQ(met.alert, 45);
}

TEST_P(TlsRefusalTest, an_expired_server) {
  write_odd_node(pki(), made("expired"), [](X509* node) {
    X509_gmtime_adj(X509_getm_notBefore(node), -7200);
    X509_gmtime_adj(X509_getm_notAfter(node), -3600);
  });
  auto context = load(TlsRole::client, client());
  Listener listener;
  auto other = std::async(std::launch::async,
                          [&] { return RawPeer(false, TLS1_3_VERSION, made("expired"), {}).run(listener.accept()); });
  auto stream = tls_connect(**context, {"127.0.0.1", listener.port()}, kAlpnBackhaul, seconds(10));
  ASSERT_FALSE(stream);
  EXPECT_EQ(stream.error(), make_error_code(TransportErrc::tls_certificate_expired)) << stream.error().to_string();
  EXPECT_EQ(other.get(), 45);
}

TEST_P(TlsRefusalTest, a_revoked_client_and_only_that_one) {
  write_crl(pki(), server() / "crl.pem", client() / "node.crt");
  auto [c, s] = meet_each_other(client(), server());
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error(), make_error_code(TransportErrc::tls_certificate_revoked)) << s.error().to_string();
  ASSERT_TRUE(c);
  const auto error = read_to_error(**c);
  EXPECT_EQ(error, make_error_code(TransportErrc::tls_certificate_revoked)) << error.to_string();
  EXPECT_EQ(error.retry(), Retry::no);

  write_crl(pki(), server() / "crl.pem", {});
  auto again = meet_each_other(client(), server());
  EXPECT_TRUE(again.client && again.server) << "an empty list revokes nobody";
}

TEST_P(TlsRefusalTest, a_revoked_server) {
  write_crl(pki(), client() / "crl.pem", server() / "node.crt");
  auto [c, s] = meet_each_other(client(), server());
  ASSERT_FALSE(c);
  EXPECT_EQ(c.error(), make_error_code(TransportErrc::tls_certificate_revoked)) << c.error().to_string();
  EXPECT_FALSE(s);
}

TEST_P(TlsRefusalTest, a_server_with_another_name) {
  ASSERT_TRUE(pki_issue(pki(), {.name = "elsewhere", .alt_names = {"elsewhere.example", "192.0.2.1"}}));
  for (const char* host : {"127.0.0.1", "localhost"}) {
    auto [c, s] = meet_each_other(client(), pki() / "elsewhere", host);
    ASSERT_FALSE(c) << host;
    EXPECT_EQ(c.error(), make_error_code(TransportErrc::tls_wrong_host)) << c.error().to_string();
    EXPECT_FALSE(s);
  }
}

TEST_P(TlsRefusalTest, a_certificate_without_the_extended_usage_of_its_role) {
  const auto without_usage = [](X509* node) {
    X509_EXTENSION_free(X509_delete_ext(node, X509_get_ext_by_NID(node, NID_ext_key_usage, -1)));
  };
  write_odd_node(pki(), made("no_usage"), without_usage);
  auto met = meet(TLS1_3_VERSION, made("no_usage"));
  EXPECT_EQ(met.server, make_error_code(TransportErrc::tls_bad_certificate)) << met.server.to_string();
  EXPECT_EQ(met.alert, 43);
  write_odd_node(pki(), made("server_only"), [&](X509* node) {
    without_usage(node);
    X509_EXTENSION* usage = X509V3_EXT_conf_nid(nullptr, nullptr, NID_ext_key_usage, "serverAuth");
    X509_add_ext(node, usage, -1);
    X509_EXTENSION_free(usage);
  });
  met = meet(TLS1_3_VERSION, made("server_only"));
  EXPECT_EQ(met.server, make_error_code(TransportErrc::tls_bad_certificate)) << met.server.to_string();
}

TEST_P(TlsRefusalTest, a_peer_that_does_not_speak_tls) {
  auto context = load(TlsRole::server, server());
  Listener listener;
  auto accepted = std::async(std::launch::async, [&] { return tls_accept(**context, listener.accept(), seconds(10)); });
  const auto socket = connect_plain(listener.port());
  constexpr std::string_view kRequest = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
  ASSERT_EQ(::send(socket.get(), kRequest.data(), kRequest.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(kRequest.size()));
  auto result = accepted.get();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error(), make_error_code(TransportErrc::tls_handshake)) << result.error().to_string();
}

TEST_P(TlsRefusalTest, a_peer_that_says_nothing_times_out) {
  auto context = load(TlsRole::server, server());
  Listener listener;
  const auto socket = connect_plain(listener.port());
  const auto result = tls_accept(**context, listener.accept(), std::chrono::milliseconds(50));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().symbol(), "link.timed_out");
}

TEST_P(TlsRefusalTest, nobody_listens_and_no_such_name) {
  auto context = load(TlsRole::client, client());
  std::uint16_t port = 0;
  { port = Listener().port(); }
  const auto refused = tls_connect(**context, {"127.0.0.1", port}, kAlpnBackhaul, seconds(5));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().symbol(), "link.refused") << refused.error().to_string();
  EXPECT_NE(refused.error().cause().find("127.0.0.1"), std::string::npos);
  const auto unknown = tls_connect(**context, {"a host with blanks", 1}, kAlpnBackhaul, seconds(5));
  ASSERT_FALSE(unknown);
  EXPECT_TRUE(unknown.error() == make_error_code(TransportErrc::resolve_failed) ||
              unknown.error().symbol() == "link.unreachable")
      << unknown.error().to_string();
}

TEST_F(CredentialsTest, errors_name_the_file_and_the_reason) {
  const auto cause = [&] {
    const auto context = TlsContext::load(TlsRole::client, client());
    if (context) return std::string("loaded");
    EXPECT_EQ(context.error(), make_error_code(TransportErrc::tls_credentials));
    return context.error().cause();
  };
  for (const char* name : {"ca.crt", "node.crt", "node.key"}) {
    fs::rename(client() / name, client() / "aside");
    EXPECT_NE(cause().find((client() / name).string() + ": No such file"), std::string::npos) << cause();
    std::ofstream(client() / name) << "nonsense";
    EXPECT_NE(cause().find((client() / name).string()), std::string::npos) << cause();
    fs::rename(client() / "aside", client() / name);
  }
  EXPECT_EQ(cause(), "loaded");
  fs::copy_file(server() / "node.key", client() / "node.key", fs::copy_options::overwrite_existing);
  EXPECT_NE(cause().find("node.key: does not belong to node.crt"), std::string::npos) << cause();
  std::ofstream(client() / "crl.pem") << "nonsense";
  EXPECT_NE(cause().find("crl.pem"), std::string::npos) << cause();
}

TEST_F(CredentialsTest, an_own_certificate_that_expired_is_named) {
  write_odd_node(pki(), made("expired"), [](X509* node) { X509_gmtime_adj(X509_getm_notAfter(node), -3600); });
  const auto context = TlsContext::load(TlsRole::client, made("expired"));
  ASSERT_FALSE(context);
  EXPECT_NE(context.error().cause().find("node.crt: expired on"), std::string::npos) << context.error().cause();
}

TEST_F(CredentialsTest, a_key_that_others_can_read_is_a_warning) {
  auto context = TlsContext::load(TlsRole::client, client());
  ASSERT_TRUE(context);
  EXPECT_TRUE((*context)->warnings().empty());
  fs::permissions(client() / "node.key", fs::perms::group_read, fs::perm_options::add);
  context = TlsContext::load(TlsRole::client, client());
  ASSERT_TRUE(context);
  ASSERT_EQ((*context)->warnings().size(), 1U);
  EXPECT_NE((*context)->warnings()[0].find("node.key: mode 640"), std::string::npos) << (*context)->warnings()[0];
}

}  // namespace
}  // namespace backhaul::test
