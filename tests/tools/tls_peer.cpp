// One end of a TLS stream for tests with other programs at the other end:
//   tls_peer serve DIR RECORDS          listens on a free port of 127.0.0.1, prints it, accepts one connection, and
//                                       sends back what comes, byte by byte
//   tls_peer dial DIR RECORDS PORT      sends its input, and then reads; prints what comes
// RECORDS: auto or openssl; "/N" behind it lets a key live for N records. Ends with a line on stderr: the layer, and
// the error that ended the stream.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "transport/tls/tls_internal.h"
#include "transport/tls/tls_stream.h"

namespace backhaul {
namespace {

using std::chrono::seconds;

[[noreturn]] void die(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::exit(1);
}

std::shared_ptr<TlsContext> load(TlsRole role, const char* directory, const std::string& records) {
  const auto slash = records.find('/');
  const auto choice = parse_tls_records(records.substr(0, slash));
  if (!choice) die("records: auto or openssl");
  auto context = TlsContext::load(role, directory, *choice);
  if (!context) die(context.error().to_string());
  if (slash != std::string::npos) (*context)->impl().limits.due = std::stoull(records.substr(slash + 1));
  return *context;
}

UniqueFd accept_one() {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* any = reinterpret_cast<sockaddr*>(&address);
  if (::bind(listener.get(), any, size) != 0 || ::listen(listener.get(), 1) != 0 ||
      ::getsockname(listener.get(), any, &size) != 0)
    die("cannot listen");
  std::printf("%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  return UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
}

Result<void> write_all(ByteStream& stream, Bytes bytes) {
  while (!bytes.empty()) {
    BH_TRY(const std::size_t taken, stream.write_some(bytes));
    bytes = bytes.subspan(taken);
    if (taken == 0) BH_RETURN_IF_ERROR(wait_stream(stream, true, seconds(60)));
  }
  while (true) {
    BH_TRY(const bool out, stream.flush());
    if (out) return {};
    BH_RETURN_IF_ERROR(wait_stream(stream, true, seconds(60)));
  }
}

// What comes goes back, or to stdout, until the stream ends.
Error relay(ByteStream& stream, bool back) {
  std::byte bytes[10'000];
  while (true) {
    const auto got = stream.read_some(bytes);
    if (!got) return got.error();
    if (*got == 0) {
      const auto ready = wait_stream(stream, false, seconds(60));
      if (!ready) return ready.error();
      if (!*ready) return make_error(BaseErrc::timed_out);
      continue;
    }
    if (back) {
      if (const auto written = write_all(stream, Bytes(bytes).first(*got)); !written) return written.error();
    } else {
      std::fwrite(bytes, 1, *got, stdout);
      std::fflush(stdout);
    }
  }
}

int run(const std::string& verb, const char* directory, const std::string& records, const char* port) {
  const bool serve = verb == "serve";
  const auto context = load(serve ? TlsRole::server : TlsRole::client, directory, records);
  auto stream =
      serve ? tls_accept(*context, accept_one(), seconds(60))
            : tls_connect(*context, {"127.0.0.1", static_cast<std::uint16_t>(std::atoi(port))}, kAlpnHttp, seconds(60));
  if (!stream) die(stream.error().to_string());
  if (!serve) {
    std::byte bytes[10'000];
    for (auto count = ::read(0, bytes, sizeof bytes); count > 0; count = ::read(0, bytes, sizeof bytes))
      if (const auto written = write_all(**stream, Bytes(bytes).first(static_cast<std::size_t>(count))); !written)
        die(written.error().to_string());
  }
  const auto ended = relay(**stream, serve);
  std::fprintf(stderr, "%s %s\n", std::string((*stream)->record_layer()).c_str(), ended.symbol().c_str());
  return 0;
}

}  // namespace
}  // namespace backhaul

int main(int count, char** words) {
  const std::string verb = count > 1 ? words[1] : "";
  if ((verb == "serve" && count == 4) || (verb == "dial" && count == 5))
    return backhaul::run(verb, words[2], words[3], count > 4 ? words[4] : "");
  backhaul::die("usage: tls_peer serve DIR RECORDS | tls_peer dial DIR RECORDS PORT");
}
