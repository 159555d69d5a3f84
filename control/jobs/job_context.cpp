#include "control/jobs/job_context.h"

#include <spdlog/spdlog.h>

#include "control/jobs/job_flow.h"

namespace backhaul {

VmRef vm_ref(const Item& item, const Location& location) {
  return {location.vm.empty() ? item.vm.name : location.vm, location.settings, location.disks};
}

Result<void> JobContext::refresh() {
  BH_TRY(job, services.records.job(id_));
  if (!job.item.empty()) {
    BH_TRY(item, services.records.item(job.item));
  }
  return {};
}

Result<void> JobContext::update_with(const std::function<Result<void>(Transaction&, Job&, Item*)>& change) {
  auto accepted = services.records.transact([&](Transaction& transaction) -> Result<void> {
    BH_TRY(Job * stored, transaction.job(id_));
    Item* stored_item = nullptr;
    if (!stored->item.empty()) {
      BH_TRY(stored_item, transaction.item(stored->item));
    }
    return change(transaction, *stored, stored_item);
  });
  BH_RETURN_IF_ERROR(std::move(accepted));
  BH_TRY(job, services.records.job(id_));
  if (!job.item.empty()) {
    auto found = services.records.item(job.item);  // gone when its removal was asked for
    if (found) item = std::move(*found);
  }
  return {};
}

Result<void> JobContext::update(const Change& change, Durability durability) {
  auto changed = services.records.transact(
      [&](Transaction& transaction) -> Result<void> {
        BH_TRY(Job * stored, transaction.job(id_));
        Item none;
        Item* stored_item = &none;
        if (!stored->item.empty()) {
          BH_TRY(stored_item, transaction.item(stored->item));
        }
        change(*stored, *stored_item);
        return {};
      },
      durability);
  BH_RETURN_IF_ERROR(std::move(changed));
  return refresh();
}

const ActionRecord* JobContext::find_action(std::string_view key) const {
  for (const auto& action : job.actions)
    if (action.key == key) return &action;
  return nullptr;
}

Result<boost::json::value> JobContext::once(const std::string& key, const Action& action, const Change& intend,
                                            const std::function<void(Job&, Item&, const boost::json::value&)>& accept) {
  if (const auto* record = find_action(key); record != nullptr && record->done) return record->outcome;

  const std::string object = "job/" + id_;
  bool cancelled = false;
  BH_RETURN_IF_ERROR(update([&](Job& stored, Item& stored_item) {
    cancelled = cancel_is_due(stored);
    if (cancelled) return;
    if (intend) intend(stored, stored_item);
    for (const auto& record : stored.actions)
      if (record.key == key) return;
    stored.actions.push_back({key, false, nullptr, now_unix_s()});
  }));
  if (cancelled) return make_error(BaseErrc::cancelled, key);

  auto outcome = action();
  if (!outcome) {
    spdlog::warn("{}: {} failed: {}", object, key, outcome.error().to_string());
    return outcome;
  }
  BH_RETURN_IF_ERROR(update([&](Job& stored, Item& stored_item) {
    for (auto& record : stored.actions)
      if (record.key == key) record = {key, true, *outcome, now_unix_s()};
    if (accept) accept(stored, stored_item, *outcome);
  }));
  return outcome;
}

DiskRef JobContext::target_disk(const std::string& name) const {
  for (const auto& disk : job.target.disks)
    if (disk.name == name) return {job.target.host, disk.path};
  return {job.target.host, {}};
}

Result<std::string> JobContext::new_job_id() {
  BH_TRY(auto number, services.records.store().next_number("job"));
  return std::to_string(number);
}

Result<void> stop_transfers(JobContext& context) {
  for (auto transfer = context.live.transfers.begin(); transfer != context.live.transfers.end();) {
    BH_RETURN_IF_ERROR(context.services.data_plane.cancel_round(transfer->second));
    context.services.data_plane.forget_round(transfer->second);
    transfer = context.live.transfers.erase(transfer);
  }
  return {};
}

}  // namespace backhaul
