#include "control/http/http_wire.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/units.h"
#include "control/http/http.h"

namespace backhaul {
namespace {

constexpr std::size_t kReadSize = 16 * kKiB;
constexpr std::size_t kKeptWhileStreaming = 64 * kKiB;
// The longest that a stop, or a test's clock, goes unnoticed.
constexpr std::chrono::milliseconds kSlice{100};

Error timed_out(const char* what) { return make_error(BaseErrc::timed_out, what); }

std::string_view first(const HttpHeaders& headers, std::string_view name) noexcept {
  for (const auto& [key, value] : headers)
    if (key == name) return value;
  return {};
}

}  // namespace

std::string_view HttpRequest::header(std::string_view name) const noexcept { return first(headers, name); }
std::string_view HttpResponse::header(std::string_view name) const noexcept { return first(headers, name); }

std::string to_lower(std::string_view text) {
  std::string lower(text);
  for (auto& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return lower;
}

Result<std::size_t> HttpWire::read_some() {
  std::array<std::byte, kReadSize> piece;
  BH_TRY(const std::size_t got, stream_.read_some(piece));
  input_.append(reinterpret_cast<const char*>(piece.data()), got);
  return got;
}

Result<void> HttpWire::wait(bool for_write, Clock::Duration deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - clock_.now());
  if (left.count() <= 0) return timed_out(for_write ? "the peer took nothing" : "the peer sent nothing");
  BH_TRY([[maybe_unused]] const bool ready, wait_stream(stream_, for_write, std::min(left, kSlice)));
  return {};
}

Result<void> HttpWire::fill(Clock::Duration deadline) {
  while (true) {
    BH_TRY(const std::size_t got, read_some());
    if (got > 0) return {};
    if (stopping()) return make_error(BaseErrc::cancelled, "the server stops");
    BH_RETURN_IF_ERROR(wait(false, deadline));
  }
}

Result<void> HttpWire::write_all(std::string_view bytes, Clock::Duration stall, Clock::Duration deadline) {
  auto last_progress = clock_.now();
  auto sent = stream_.wire_bytes_sent();
  while (true) {
    bool out = false;
    if (!bytes.empty()) {
      BH_TRY(const std::size_t taken,
             stream_.write_some(Bytes(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size())));
      bytes.remove_prefix(taken);
      if (taken > 0) last_progress = clock_.now();
    }
    if (bytes.empty()) {
      BH_TRY(out, stream_.flush());
      if (out) return {};
    }
    if (const auto now_sent = stream_.wire_bytes_sent(); now_sent != sent) {
      sent = now_sent;
      last_progress = clock_.now();
    }
    BH_RETURN_IF_ERROR(wait(true, std::min(last_progress + stall, deadline)));
  }
}

bool HttpWire::peer_gone() {
  while (true) {
    if (input_.size() > kKeptWhileStreaming) return true;
    auto got = read_some();
    if (!got) return true;
    if (*got == 0) return false;
  }
}

void HttpWire::linger(std::size_t limit, Clock::Duration deadline) {
  for (std::size_t dropped = 0; dropped < limit && !stopping();) {
    input_.clear();
    if (!fill(deadline)) return;
    dropped += input_.size();
  }
}

}  // namespace backhaul
