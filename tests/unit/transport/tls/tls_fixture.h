// What the TLS tests share: a temporary directory, a PKI in it, listening sockets, and both ends of a handshake at
// once.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>

#include "transport/pki/pki.h"
#include "transport/tls/tls_stream.h"

namespace backhaul::test {

class TempDirectory {
 public:
  TempDirectory();
  ~TempDirectory();
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;
  const std::filesystem::path& path() const noexcept { return path_; }

 private:
  std::filesystem::path path_;
};

// A listening socket on a free port of 127.0.0.1.
class Listener {
 public:
  Listener();
  std::uint16_t port() const noexcept { return port_; }
  UniqueFd accept();

 private:
  UniqueFd socket_;
  std::uint16_t port_ = 0;
};

UniqueFd connect_plain(std::uint16_t port);

using StreamResult = Result<std::unique_ptr<TlsStream>>;

struct Ends {
  StreamResult client, server;
};

// Whose records each end makes: the suites run over each kind, and over both kinds meeting.
struct RecordsOfEnds {
  TlsRecords client = TlsRecords::automatic, server = TlsRecords::automatic;
};
inline constexpr RecordsOfEnds kAllRecords[] = {{TlsRecords::automatic, TlsRecords::automatic},
                                                {TlsRecords::openssl, TlsRecords::automatic},
                                                {TlsRecords::automatic, TlsRecords::openssl},
                                                {TlsRecords::openssl, TlsRecords::openssl}};
std::string name_of(const ::testing::TestParamInfo<RecordsOfEnds>& info);
// What a stream of that choice says its records are.
std::string_view layer_of(TlsRecords records);

// Both ends of a handshake over loopback, the server's in a second thread.
Ends shake_hands(const std::filesystem::path& client_directory, const std::filesystem::path& server_directory,
                 RecordsOfEnds records, const std::string& host = "127.0.0.1", std::string_view alpn = kAlpnBackhaul);
Ends shake_hands(TlsContext& client, TlsContext& server);

// Reads until an error comes, and returns it.
Error read_to_error(ByteStream& stream);
Result<void> write_all(ByteStream& stream, Bytes bytes);
Result<void> read_all(ByteStream& stream, MutableBytes into);

}  // namespace backhaul::test
