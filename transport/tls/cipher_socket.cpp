#include "transport/tls/cipher_socket.h"

#include <sys/socket.h>

#include <fmt/format.h>
#include <algorithm>
#include <cerrno>

#include "transport/stream/transport_error.h"
#include "transport/tls/record_layer.h"

namespace backhaul {

// `in` holds a batch and one whole record, so that the beginning of a record leaves room for a batch.
CipherSocket::CipherSocket(UniqueFd socket, std::string peer)
    : in(kBatch + kRecordMax), out(kBatch + 2 * kRecordMax), socket_(std::move(socket)), peer_(std::move(peer)) {}

bool CipherSocket::fill() {
  if (end_of_file_ || receive_errno_ != 0 || !socket_) return false;
  in.compact();
  while (in.room() > 0) {
    const auto got = ::recv(socket_.get(), in.free_space().data(), in.room(), MSG_DONTWAIT);
    if (got > 0) {
      in.end += static_cast<std::size_t>(got);
      received_ += static_cast<std::size_t>(got);
      wake_at(1);  // the expected bytes may be among them
      return true;
    }
    if (got == 0) {
      end_of_file_ = true;
      return false;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) receive_errno_ = errno;
    return false;
  }
  return false;
}

void CipherSocket::gather(std::size_t bytes) noexcept {
  const auto more = bytes > in.size() ? bytes - in.size() : 0;
  wake_at(static_cast<int>(std::clamp<std::size_t>(more, 1, kGather)));
}

void CipherSocket::wake_at(int bytes) noexcept {
  if (bytes == wake_at_ || !socket_) return;
  if (::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes) == 0) wake_at_ = bytes;
}

bool CipherSocket::drain() {
  while (!out.empty()) {
    if (send_errno_ != 0 || !socket_) return false;
    const auto count = ::send(socket_.get(), out.data(), out.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count >= 0) {
      sent_ += static_cast<std::uint64_t>(count);
      out.drop(static_cast<std::size_t>(count));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) send_errno_ = errno;
    return false;
  }
  return true;
}

bool CipherSocket::make_room() {
  if (out.size() >= kBatch || out.room() < 2 * kRecordMax) drain();
  if (send_errno_ != 0) return false;
  // The network took a part of a batch. A large rest is not moved: that costs a copy, and it waits for the network
  // anyway. A small rest is, so that the next records go out in the same send.
  if (out.room() < 2 * kRecordMax && out.size() <= kBatch / 8) out.compact();
  return out.room() >= 2 * kRecordMax;
}

void CipherSocket::close() noexcept {
  if (!socket_) return;
  ::shutdown(socket_.get(), SHUT_WR);
  // Linux sends a reset when a socket closes with unread bytes: read them.
  in.begin = in.end = 0;
  fill();
  in.begin = in.end = 0;
  socket_.reset();
}

Error CipherSocket::broken(int number) const {
  return make_error(TransportErrc::lost,
                    fmt::format("{}: {}", peer_, std::error_code(number, std::generic_category()).message()));
}

Error CipherSocket::ended() const {
  return make_error(TransportErrc::lost, fmt::format("{} ended the connection without a goodbye", peer_));
}

}  // namespace backhaul
