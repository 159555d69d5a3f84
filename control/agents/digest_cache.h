// The digests of the disks that targets hold, kept in this process from one round to the next. A round that reads only
// what a tracker names needs them for the source's root; without them it compares everything. Thread-safe.
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
  // 256 MiB hold the digests of 32 TiB of disks; the least recently used go first.
  explicit DigestCache(std::size_t max_bytes = 256 * kMiB) : max_bytes_(max_bytes) {}

  std::shared_ptr<const DiskDigests> find(const std::string& target);
  void put(const std::string& target, std::shared_ptr<const DiskDigests> digests);
  void remove(const std::string& target);

  // Runs `send` for a round onto `target`. When only changed extents are sent and the request has no base, the last
  // round's digests are its base; without any, everything is compared. Keeps the digests that the round leaves.
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
