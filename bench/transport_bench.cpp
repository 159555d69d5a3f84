// Codec, CRC and TLS streams over loopback: bytes per second, and CPU seconds per GB of both ends together (the
// process's). Beside them the ceilings: large sends over plain TCP, and the same with nothing but AES-GCM on both ends.
// Compare what ran in one process, as medians of several runs that alternate:
// transport_bench --benchmark_filter=stream --benchmark_repetitions=5 --benchmark_enable_random_interleaving=true
#include <benchmark/benchmark.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cstdlib>
#include <filesystem>
#include <future>
#include <thread>

#include "transport/frames/compress.h"
#include "transport/frames/frame_io.h"
#include "transport/pki/pki.h"
#include "transport/tls/aead.h"
#include "transport/tls/tls_stream.h"

namespace backhaul {
namespace {

using std::chrono::seconds;

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto of = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return of(usage.ru_utime) + of(usage.ru_stime);
}

void report(benchmark::State& state, double cpu_before, std::uint64_t bytes) {
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes));
  state.counters["cpu_s_per_GB"] = (cpu_seconds() - cpu_before) / (static_cast<double>(bytes) / 1e9);
}

template <class T>
T must(Result<T> result) {
  if (result) return std::move(*result);
  std::fprintf(stderr, "%s\n", result.error().to_string().c_str());
  std::exit(1);
}

class Listener {
 public:
  Listener() : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(socket_.get(), 1) != 0)
      std::abort();
    ::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    address_ = address;
  }
  std::uint16_t port() const { return ntohs(address_.sin_port); }
  UniqueFd accept() { return UniqueFd(::accept(socket_.get(), nullptr, nullptr)); }
  UniqueFd connect() {
    UniqueFd socket(::socket(AF_INET, SOCK_STREAM, 0));
    if (::connect(socket.get(), reinterpret_cast<sockaddr*>(&address_), sizeof address_) != 0) std::abort();
    return socket;
  }

 private:
  UniqueFd socket_;
  sockaddr_in address_{};
};

struct TlsPair {
  std::unique_ptr<TlsStream> client, server;
};
TlsPair make_tls_pair(TlsRecords records) {
  static const auto directory = [] {
    std::string pattern = (std::filesystem::temp_directory_path() / "backhaul-bench-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr || !pki_init(pattern)) std::abort();
    static const struct Remove {
      std::string path;
      ~Remove() { std::filesystem::remove_all(path); }
    } remove{pattern};
    return std::filesystem::path(pattern);
  }();
  const auto client = must(TlsContext::load(TlsRole::client, directory / "appliance", records));
  const auto server = must(TlsContext::load(TlsRole::server, directory / "host", records));
  Listener listener;
  auto accepted =
      std::async(std::launch::async, [&] { return must(tls_accept(*server, listener.accept(), seconds(10))); });
  auto connected = must(tls_connect(*client, {"127.0.0.1", listener.port()}, kAlpnBackhaul, seconds(10)));
  return {std::move(connected), accepted.get()};
}

void encode_and_decode_header(benchmark::State& state) {
  FrameHeader header{.type = FrameType::data,
                     .epoch = 7,
                     .offset = kExtentSize,
                     .length = kBlockSize,
                     .payload_size = kBlockSize,
                     .raw_size = kBlockSize};
  std::array<std::byte, kFrameHeaderSize> raw;
  for (auto _ : state) {
    encode_frame_header(header, raw);
    auto decoded = decode_frame_header(raw);
    benchmark::DoNotOptimize(decoded);
    header.offset += kBlockSize;
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(encode_and_decode_header);

// Frames with payloads of state.range(0) bytes from one thread to another.
void frames_over_tls(benchmark::State& state, TlsRecords records) {
  auto pair = make_tls_pair(records);
  std::thread reader_thread([&] {
    FrameReader reader(*pair.server);
    std::vector<std::byte> place(kMaxPayloadSize);
    while (true) {
      const auto step = reader.step();
      if (!step) return;
      if (*step == FrameReader::Step::need_buffer) reader.set_buffer(place);
      if (*step == FrameReader::Step::blocked) must(wait_stream(*pair.server, false, seconds(10)));
      if (*step == FrameReader::Step::frame && reader.header().type == FrameType::lane_end) return;
    }
  });
  const std::vector<std::byte> payload(static_cast<std::size_t>(state.range(0)), std::byte{0x5A});
  FrameWriter writer(*pair.client);
  std::uint64_t bytes = 0;
  const double before = cpu_seconds();
  const auto drain = [&](std::size_t most) {
    while (!must(writer.pump()) && writer.queued_frames() > most) must(wait_stream(*pair.client, true, seconds(10)));
  };
  for (auto _ : state) {
    writer.push({.type = FrameType::data, .epoch = 7, .length = payload.size()}, payload);
    bytes += payload.size();
    // A lane pumps once a batch of completions, not once a frame.
    if (writer.queued_frames() * payload.size() >= kMiB) drain(0);
  }
  writer.push({.type = FrameType::lane_end, .epoch = 7});
  while (!must(writer.pump())) must(wait_stream(*pair.client, true, seconds(10)));
  reader_thread.join();
  report(state, before, bytes);
}
BENCHMARK_CAPTURE(frames_over_tls, own, TlsRecords::automatic)
    ->Arg(kBlockSize)
    ->Arg(128 * kKiB)
    ->Arg(kMiB)
    ->UseRealTime();
BENCHMARK_CAPTURE(frames_over_tls, openssl, TlsRecords::openssl)->Arg(kMiB)->UseRealTime();

// The memory that the streams below send from and read to, used in turn as lanes use their buffers.
constexpr std::size_t kPlace = 8 * kMiB;
std::vector<std::byte>& place_of(bool sender) {
  static std::vector<std::byte> places[2] = {std::vector<std::byte>(kPlace, std::byte{0x5A}),
                                             std::vector<std::byte>(kPlace)};
  return places[sender ? 0 : 1];
}

// Bytes alone, without frames and their CRC: state.range(0) a call.
void stream_over_tls(benchmark::State& state, TlsRecords records) {
  auto pair = make_tls_pair(records);
  const auto size = static_cast<std::size_t>(state.range(0));
  std::thread reader([&] {
    auto& place = place_of(false);
    for (std::size_t at = 0;; at = (at + size) % kPlace) {
      for (std::size_t have = 0; have < size;) {
        const auto got = pair.server->read_some(MutableBytes(place).subspan(at + have, size - have));
        if (!got) return;
        have += *got;
        if (*got > 0) continue;
        pair.server->expect_input(size - have);
        must(wait_stream(*pair.server, false, seconds(10)));
      }
    }
  });
  std::uint64_t bytes = 0;
  const double before = cpu_seconds();
  for (auto _ : state) {
    auto rest = Bytes(place_of(true)).subspan(bytes % kPlace, size);
    while (!rest.empty()) {
      const auto taken = must(pair.client->write_some(rest));
      if (taken == 0) must(wait_stream(*pair.client, true, seconds(10)));
      rest = rest.subspan(taken);
    }
    bytes += size;
  }
  while (!must(pair.client->flush())) must(wait_stream(*pair.client, true, seconds(10)));
  pair.client->close();
  reader.join();
  report(state, before, bytes);
}
BENCHMARK_CAPTURE(stream_over_tls, own, TlsRecords::automatic)->Arg(kMiB)->UseRealTime();
BENCHMARK_CAPTURE(stream_over_tls, openssl, TlsRecords::openssl)->Arg(kMiB)->UseRealTime();

// The ceiling of the streams above: the same AES-GCM over the same memory in pieces of a record's size, in batches of
// state.range(0) bytes, blocking, and nothing else: no record headers, no types, no sizes to be found out.
void stream_of_aead(benchmark::State& state) {
  constexpr std::size_t kPiece = 16 * kKiB, kSealed = kPiece + 1 + kAeadTagSize;
  const auto batch = static_cast<std::size_t>(state.range(0)) / kPiece;
  const std::vector<std::byte> key(16, std::byte{7});
  const AeadNonce nonce{};
  Listener listener;
  UniqueFd client = listener.connect();
  UniqueFd server = listener.accept();
  std::thread reader([&] {
    AesGcm aead(key);
    std::vector<std::byte> sealed(batch * kSealed);
    auto& place = place_of(false);
    std::size_t at = 0;
    while (::recv(server.get(), sealed.data(), sealed.size(), MSG_WAITALL) == static_cast<ssize_t>(sealed.size())) {
      for (std::size_t i = 0; i < batch; ++i, at = (at + kPiece) % kPlace) {
        const auto piece = MutableBytes(sealed).subspan(i * kSealed, kSealed);
        if (!aead.open(nonce, {}, piece.first(kPiece + 1), MutableBytes(place).subspan(at, kPiece),
                       piece.last(kAeadTagSize)))
          std::abort();
      }
    }
  });
  AesGcm aead(key);
  std::vector<std::byte> sealed(batch * kSealed);
  std::uint64_t bytes = 0;
  const double before = cpu_seconds();
  for (auto _ : state) {
    for (std::size_t i = 0; i < batch; ++i, bytes += kPiece)
      aead.seal(nonce, {}, Bytes(place_of(true)).subspan(bytes % kPlace, kPiece), std::byte{23},
                MutableBytes(sealed).subspan(i * kSealed, kSealed));
    for (std::size_t at = 0; at < sealed.size();) {
      const auto count = ::send(client.get(), sealed.data() + at, sealed.size() - at, MSG_NOSIGNAL);
      if (count <= 0) std::abort();
      at += static_cast<std::size_t>(count);
    }
  }
  ::shutdown(client.get(), SHUT_WR);
  reader.join();
  report(state, before, bytes);
}
BENCHMARK(stream_of_aead)->Arg(256 * kKiB)->Arg(kMiB)->UseRealTime();

void stream_of_tcp(benchmark::State& state) {
  Listener listener;
  UniqueFd client = listener.connect();
  UniqueFd server = listener.accept();
  std::thread reader([&] {
    std::vector<char> place(kMiB);
    while (::recv(server.get(), place.data(), place.size(), 0) > 0) continue;
  });
  const std::vector<char> payload(static_cast<std::size_t>(state.range(0)), 'Z');
  std::uint64_t bytes = 0;
  const double before = cpu_seconds();
  for (auto _ : state) {
    for (std::size_t at = 0; at < payload.size();) {
      const auto count = ::send(client.get(), payload.data() + at, payload.size() - at, MSG_NOSIGNAL);
      if (count <= 0) std::abort();
      at += static_cast<std::size_t>(count);
    }
    bytes += payload.size();
  }
  ::shutdown(client.get(), SHUT_WR);
  reader.join();
  report(state, before, bytes);
}
BENCHMARK(stream_of_tcp)->Arg(256 * kKiB)->UseRealTime();

// 0: noise, 1: text.
void compress_automatic(benchmark::State& state) {
  std::vector<std::byte> raw(kMiB), into(Compressor::bound(kMiB));
  std::uint64_t seed = 88172645463325252ULL;
  for (std::size_t i = 0; i < raw.size(); ++i) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    raw[i] = state.range(0) == 0 ? static_cast<std::byte>(seed)
                                 : static_cast<std::byte>("backhaul disk block"[(i / 3 + seed % 2) % 19]);
  }
  Compressor compressor(CompressMode::automatic);
  std::uint64_t bytes = 0;
  const double before = cpu_seconds();
  for (auto _ : state) {
    benchmark::DoNotOptimize(compressor.compress(raw, into));
    bytes += raw.size();
  }
  report(state, before, bytes);
}
BENCHMARK(compress_automatic)->Arg(0)->Arg(1);

}  // namespace
}  // namespace backhaul

BENCHMARK_MAIN();
