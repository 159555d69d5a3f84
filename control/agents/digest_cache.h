// What rounds leave to the next ones in this process: the digests of the disk that a target holds. A round that reads
// only what a tracker names needs them to know the source's root; without them it compares everything. Thread-safe.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "dataplane/source/send.h"

namespace backhaul {

class DigestCache {
 public:
  // 256 MiB hold 32 TiB of disks; the one that was not used for longest goes first.
  explicit DigestCache(std::size_t max_bytes = 256 * kMiB) : max_bytes_(max_bytes) {}

  std::shared_ptr<const DiskDigests> find(const std::string& target);
  void put(const std::string& target, std::shared_ptr<const DiskDigests> digests);
  void remove(const std::string& target);

  // Runs `send` for a round onto `target`: with the digests of the round before when only changed extents are to be
  // sent and the request has no base of its own, or over everything when there are none. Remembers what it leaves.
  Result<SendResult> run(const std::string& target, SendRequest& request,
                         const std::function<Result<SendResult>(const SendRequest&)>& send);

 private:
  struct Entry {
    std::string target;
    std::shared_ptr<const DiskDigests> digests;
  };
  void remove_locked(const std::string& target);

  const std::size_t max_bytes_;
  std::mutex mutex_;
  std::list<Entry> entries_;  // last used first
  std::size_t bytes_ = 0;
};

}  // namespace backhaul
