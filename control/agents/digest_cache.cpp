#include "control/agents/digest_cache.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "dataplane/protocol/engine_error.h"

namespace backhaul {
namespace {

std::size_t bytes_of(const DiskDigests& digests) { return digests.extents.size() * sizeof(Sha256); }

}  // namespace

std::shared_ptr<const DiskDigests> DigestCache::find(const std::string& target) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.target == target; });
  if (found == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found);
  return found->digests;
}

void DigestCache::remove_locked(const std::string& target) {
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.target == target; });
  if (found == entries_.end()) return;
  bytes_ -= bytes_of(*found->digests);
  entries_.erase(found);
}

void DigestCache::remove(const std::string& target) {
  const std::lock_guard lock(mutex_);
  remove_locked(target);
}

void DigestCache::put(const std::string& target, std::shared_ptr<const DiskDigests> digests) {
  const std::lock_guard lock(mutex_);
  remove_locked(target);
  bytes_ += bytes_of(*digests);
  entries_.push_front({target, std::move(digests)});
  while (bytes_ > max_bytes_ && !entries_.empty()) {
    bytes_ -= bytes_of(*entries_.back().digests);
    entries_.pop_back();
  }
}

Result<SendResult> DigestCache::run(const std::string& target, SendRequest& request,
                                    const std::function<Result<SendResult>(const SendRequest&)>& send) {
  if (request.changed) {
    if (!request.base) request.base = find(target);
    if (!request.base && request.verify != VerifyMode::none) {
      spdlog::info("{}: no digests of a round before: compares everything", target);
      request.changed.reset();
    }
  }
  const bool hinted = request.changed.has_value();
  request.keep_digests = true;
  auto result = send(request);
  if (result && result->digests)
    put(target, result->digests);
  else if (result || !hinted || result.error().is(EngineErrc::root_mismatch))
    remove(target);  // the target holds something else than what is remembered
  return result;
}

}  // namespace backhaul
