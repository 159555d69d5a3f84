// One attempt of a send: a control stream, its lanes, the finish; and what a send keeps from attempt to attempt. Used
// by send.cpp, which tries again. One thread; the lanes run on their own.
#pragma once

#include "dataplane/source/send.h"
#include "transport/stream/rate_limit.h"

namespace backhaul {

// What the attempts of one send share: the source, what was acknowledged of it, and the names under which the next
// attempt goes on.
struct SendState {
  SendState(const SendRequest& wanted, const DialStream& dial_stream, const DataplaneParts& dataplane);

  bool stopped() const { return request.stop != nullptr && request.stop->load(); }
  double seconds() const { return std::chrono::duration<double>(clock.now() - started).count(); }
  void report(std::string_view phase, std::uint64_t done, std::uint64_t total, std::string detail = {});
  // Opens the source; `padded_size` 0: as it is. What was acknowledged is forgotten.
  Result<void> open_source(std::uint64_t padded_size);

  const SendRequest& request;
  const DialStream& dial;
  const DataplaneParts& parts;
  Clock& clock;
  RateLimit limit;
  TransferRate rate;
  const Clock::Duration started;
  std::uint64_t epoch;
  std::uint64_t transfer = 0;            // what a retry goes on with
  std::optional<std::string> sent_root;  // of the last finish that was sent
  Clock::Duration read_source{0};        // for the root alone
  std::optional<Clock::Duration> verify_began;
  std::uint64_t source_size = 0;
  std::unique_ptr<Disk> disk;
  std::unique_ptr<SourceSession> session;  // destroyed before the disk it reads
  std::atomic<std::uint64_t> wire_bytes{0};
  std::uint32_t retries = 0;
  bool opened_once = false;
};

// On an error `state` says what was reached; another attempt goes on from there.
Result<SendResult> attempt_send(SendState& state);

// Not tried again by a send, although it may pass: whether what is exported then is the same disk is the caller's to
// know.
bool lost_the_source(const Error& error);

}  // namespace backhaul
