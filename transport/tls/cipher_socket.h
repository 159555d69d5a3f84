// A non-blocking socket with a buffer of ciphertext each way: few and large sends and receives. Its owner
// (openssl_stream.h, record_stream.h) makes and reads TLS records in the buffers. One thread. Internal to the room.
#pragma once

#include <string>

#include "base/error.h"
#include "base/unique_fd.h"
#include "transport/tls/cipher_buffer.h"

namespace backhaul {

class CipherSocket {
 public:
  // Bytes in one send or receive at most. Larger calls halve the kernel's cost; a buffer still fits a core's second
  // cache.
  static constexpr std::size_t kBatch = 512 * kKiB;
  // Bytes that a wait for input gathers at most: half of what one receive takes.
  static constexpr std::size_t kGather = kBatch / 2;

  // `peer` is for messages: address and port. `out` has room for kBatch and two whole records: the one that fills a
  // batch, and one more (an alert, a key update).
  CipherSocket(UniqueFd socket, std::string peer);

  // Compacts `in` and receives behind its content. False: nothing came (would block, end_of_file() or receive_errno()).
  bool fill();
  // Lets the handle become readable only when `bytes` more are there (kGather at most) or the peer has ended; holds
  // until the next fill() that receives something. REQUIRES: so many will come.
  void gather(std::size_t bytes) noexcept;
  // Sends the content of `out`. False: would block, or send_errno().
  bool drain();
  // Makes room for one more record in `out`, sending when it is full. False: would block, or send_errno().
  bool make_room();
  // Closes, without a reset where that can be done.
  void close() noexcept;

  CipherBuffer in, out;
  bool is_open() const noexcept { return static_cast<bool>(socket_); }
  int handle() const noexcept { return socket_.get(); }
  const std::string& peer() const noexcept { return peer_; }
  bool end_of_file() const noexcept { return end_of_file_; }
  int send_errno() const noexcept { return send_errno_; }
  int receive_errno() const noexcept { return receive_errno_; }
  std::uint64_t sent() const noexcept { return sent_; }
  std::uint64_t received() const noexcept { return received_; }

  // TransportErrc::lost, with the peer and the reason.
  Error broken(int number) const;
  Error ended() const;  // without a goodbye

 private:
  void wake_at(int bytes) noexcept;

  UniqueFd socket_;
  std::string peer_;
  std::uint64_t sent_ = 0, received_ = 0;
  int send_errno_ = 0, receive_errno_ = 0;
  int wake_at_ = 1;  // SO_RCVLOWAT, whose default is 1 (socket(7))
  bool end_of_file_ = false;
};

}  // namespace backhaul
