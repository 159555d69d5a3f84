// A non-blocking socket with a buffer of ciphertext on each way: few and large sends and receives. TLS records are made
// and read in the buffers by who owns this (openssl_stream.h, record_stream.h). One thread. Included by transport/*.cpp
// only.
#pragma once

#include <string>

#include "base/error.h"
#include "base/unique_fd.h"
#include "transport/tls/cipher_buffer.h"

namespace backhaul {

class CipherSocket {
 public:
  // Bytes in one send or receive at most. Fewer and larger calls halve what the kernel's part costs; the buffer in use
  // stays in a core's second cache.
  static constexpr std::size_t kBatch = 512 * kKiB;
  // Bytes that a wait for input gathers at most: half of what one receive takes.
  static constexpr std::size_t kGather = kBatch / 2;

  // `peer` is for messages: address and port. `out` has room for kBatch and two whole records, so that the record with
  // which a batch becomes full stands behind it, and one more (an alert, a key update).
  CipherSocket(UniqueFd socket, std::string peer);

  // Receives behind what is in `in`, which is compacted. False: nothing came (would block, end_of_file() or
  // receive_errno()).
  bool fill();
  // The handle becomes readable when `bytes` are there beside what is in `in`, kGather at most, or the peer has ended;
  // until the next fill that receives something. REQUIRES: so many will come.
  void gather(std::size_t bytes) noexcept;
  // Sends what is in `out`. False: would block, or send_errno().
  bool drain();
  // Makes room for one more record in `out`, sending when it is full. False: would block, or send_errno().
  bool make_room();
  // Sends no more and closes without a reset where that can be done.
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
