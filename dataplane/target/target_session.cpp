#include "dataplane/target/target_session.h"

#include "dataplane/protocol/engine_error.h"

namespace backhaul {
namespace {

bool knows_every_extent(const DigestIndex& index) {
  for (std::uint64_t extent = 0; extent < extent_count(index.disk_size()); ++extent)
    if (index.state(extent) != ExtentState::known && index.state(extent) != ExtentState::zero) return false;
  return true;
}

// A root is made of the index (or of reading everything), unless verification is off. A resumed run may find extents
// unknown only because the run before was interrupted in them: those are read, so that the root can be proven again.
bool can_take_changes_unread(const OpenRequest& request, const StagedDisk& staged) {
  if (!request.changed_only || staged.blank || request.verify == VerifyMode::full) return false;
  return request.verify == VerifyMode::none || (!staged.resumed && !knows_every_extent(*staged.index));
}

}  // namespace

TargetSession::TargetSession(std::string id, std::uint64_t epoch, OpenRequest request, StagedDisk staged)
    : id_(std::move(id)),
      epoch_(epoch),
      request_(std::move(request)),
      staged_(std::move(staged)),
      disk_size_(staged_.disk->size()),
      format_(staged_.disk->format()),
      takes_changes_unread_(can_take_changes_unread(request_, staged_)) {}

Result<std::unique_ptr<BlockHasher>> TargetSession::make_hasher(const DataplaneParts& parts) const {
  return compare_by() == CompareBy::gmac ? make_gmac_hasher(*request_.compare_key) : parts.make_hasher();
}

Error TargetSession::revoked_error() const {
  return make_error(static_cast<EngineErrc>(why_.load()),
                    "disk " + request_.disk + ", epoch " + std::to_string(epoch_));
}

void TargetSession::revoke(EngineErrc why) noexcept {
  if (revoked()) return;
  why_.store(static_cast<int>(why));
  revoked_.store(true, std::memory_order_release);
}

bool TargetSession::enter() {
  const std::lock_guard lock(mutex_);
  if (revoked()) return false;
  ++users_;
  return true;
}

Result<void> TargetSession::enter_lane() {
  const std::lock_guard lock(mutex_);
  if (revoked()) return revoked_error();
  if (finishing_) return make_error(EngineErrc::session_busy, "the transfer is being finished");
  BH_RETURN_IF_ERROR(record_lane());
  ++users_;
  return {};
}

// What a lane writes is no point in time of the source before the round ends.
Result<void> TargetSession::record_lane() {
  auto record = staged_.journal->last();
  record.round_ended = false;
  record.root.reset();
  if (!request_.changed_only) record.whole = false;
  return record == staged_.journal->last() ? Result<void>() : staged_.journal->append(record);
}

Result<void> TargetSession::end_round(const std::optional<Sha256>& root) {
  const std::lock_guard lock(mutex_);
  auto record = staged_.journal->last();
  record.whole = record.round_ended = true;
  record.root = root;
  return staged_.journal->append(record);
}

void TargetSession::leave() {
  const std::lock_guard lock(mutex_);
  --users_;
  unused_.notify_all();
}

bool TargetSession::wait_unused(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return unused_.wait_for(lock, timeout, [&] { return users_ == 0; });
}

bool TargetSession::in_use() const {
  const std::lock_guard lock(mutex_);
  return users_ > 0;
}

bool TargetSession::begin_finish(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  finishing_ = unused_.wait_for(lock, timeout, [&] { return users_ <= 1; });
  return finishing_;
}

void TargetSession::end_finish() {
  const std::lock_guard lock(mutex_);
  finishing_ = false;
}

}  // namespace backhaul
