// Being the target of a send that the other end runs, over streams that this end dials: the dialling half of
// docs/wire_protocol.md, section 10.
#pragma once

#include <atomic>
#include <limits>
#include <string>

#include "dataplane/target/target_store.h"
#include "transport/stream/retry.h"
#include "transport/tls/tls_stream.h"

namespace backhaul {

struct OfferOptions {
  Endpoint endpoint;        // of the end that sends
  std::string id;           // the name that it expects: 1 to 64 of [A-Za-z0-9._-]
  std::uint32_t lanes = 2;  // of the sends to come
  // Pauses after an attempt that failed or was refused; it never gives up.
  RetryPolicy retry{std::chrono::milliseconds(200), std::chrono::seconds(10),
                    std::numeric_limits<std::uint32_t>::max()};
};

// Keeps a control stream, the lanes and two streams more offered, each on a thread of its own, and serves whatever the
// other end does with them from `local`, until `stop` is true. Then ends all streams, joins all threads and returns;
// that takes at most kConnectTimeout, and what a disk takes to complete its writes. What goes wrong with a stream is in
// the log. Error: BaseErrc::invalid_argument for a bad name.
Result<void> serve_offers(const OfferOptions& options, TargetStore& local, TlsContext& tls,
                          const std::atomic<bool>& stop);

}  // namespace backhaul
