#include "control/store/records.h"

#include <spdlog/spdlog.h>

#include <cstdlib>

#include "control/model/model_json.h"

namespace backhaul {
namespace {

constexpr int kMaxConflicts = 200;  // in a row, for one change; more is a defect, not contention

template <class State>
void require_transition(std::string_view what, const std::string& id, State from, State to) {
  if (may_follow(from, to)) {
    spdlog::info("{} {}: {} -> {}", what, id, to_string(from), to_string(to));
    return;
  }
  spdlog::critical("{} {}: {} -> {} is not in the table (docs/phases.md)", what, id, to_string(from), to_string(to));
  std::abort();
}

template <class T, class Parse>
Result<T> parse_object(const StoredObject& object, Parse parse) {
  BH_TRY(T value, parse(object.body));
  value.version = object.version;
  return value;
}

template <class T, class Parse>
Result<T> read_one(Store& store, std::string_view kind, std::string_view id, Parse parse) {
  BH_TRY(auto object, store.get(kind, id));
  if (!object) return make_error(ControlErrc::not_found, std::string(kind) + " " + std::string(id));
  return parse_object<T>(*object, parse);
}

template <class T, class Parse>
Result<std::vector<T>> read_all(Store& store, std::string_view kind, Parse parse) {
  BH_TRY(auto objects, store.list(kind));
  std::vector<T> values;
  values.reserve(objects.size());
  for (const auto& object : objects) {
    BH_TRY(values.emplace_back(), parse_object<T>(object, parse));
  }
  return values;
}

}  // namespace

void set_state(Item& item, ItemState state) {
  if (item.state == state) return;
  require_transition("item", item.id, item.state, state);
  item.state = state;
}

void set_state(Job& job, JobState state) {
  if (job.state == state) return;
  require_transition("job", job.id, job.state, state);
  job.state = state;
}

template <class T, class Parse>
Result<T*> Transaction::load(Objects<T>& objects, std::string_view kind, std::string_view id, Parse parse) {
  if (auto found = objects.find(id); found != objects.end()) {
    if (found->second->removed) return make_error(ControlErrc::not_found, std::string(kind) + " " + std::string(id));
    return &found->second->value;
  }
  BH_TRY(T value, read_one<T>(store_, kind, id, parse));
  auto loaded = std::make_unique<Loaded<T>>();
  loaded->value = std::move(value);
  loaded->before = to_json(loaded->value);
  return &objects.emplace(std::string(id), std::move(loaded)).first->second->value;
}

Result<Item*> Transaction::item(std::string_view id) { return load(items_, "item", id, item_from_json); }
Result<Job*> Transaction::job(std::string_view id) { return load(jobs_, "job", id, job_from_json); }
Result<RecoveryPlan*> Transaction::plan(std::string_view id) { return load(plans_, "plan", id, plan_from_json); }

Job& Transaction::add(Job job) {
  auto loaded = std::make_unique<Loaded<Job>>();
  loaded->value = std::move(job);
  loaded->value.version = 0;
  auto& slot = jobs_[loaded->value.id];
  slot = std::move(loaded);
  return slot->value;
}
void Transaction::add(Item item) {
  item.version = 0;
  auto loaded = std::make_unique<Loaded<Item>>();
  loaded->value = std::move(item);
  auto& slot = items_[loaded->value.id];
  slot = std::move(loaded);
}
void Transaction::add(RecoveryPlan plan) {
  plan.version = 0;
  auto loaded = std::make_unique<Loaded<RecoveryPlan>>();
  loaded->value = std::move(plan);
  auto& slot = plans_[loaded->value.id];
  slot = std::move(loaded);
}
void Transaction::remove_item(std::string_view id) {
  if (auto found = items_.find(id); found != items_.end()) found->second->removed = true;
}
void Transaction::remove_plan(std::string_view id) {
  if (auto found = plans_.find(id); found != plans_.end()) found->second->removed = true;
}
void Transaction::remove_job(std::string_view id) {
  if (auto found = jobs_.find(id); found != jobs_.end()) found->second->removed = true;
}

Result<Item> Records::item(std::string_view id) { return read_one<Item>(store_, "item", id, item_from_json); }
Result<Job> Records::job(std::string_view id) { return read_one<Job>(store_, "job", id, job_from_json); }
Result<RecoveryPlan> Records::plan(std::string_view id) {
  return read_one<RecoveryPlan>(store_, "plan", id, plan_from_json);
}
Result<std::vector<Item>> Records::items() { return read_all<Item>(store_, "item", item_from_json); }
Result<std::vector<Job>> Records::jobs() { return read_all<Job>(store_, "job", job_from_json); }
Result<std::vector<RecoveryPlan>> Records::plans() { return read_all<RecoveryPlan>(store_, "plan", plan_from_json); }

Result<void> Records::transact(const std::function<Result<void>(Transaction&)>& change, Durability durability) {
  for (int attempt = 0;; ++attempt) {
    Transaction transaction(store_);
    BH_RETURN_IF_ERROR(change(transaction));

    std::vector<StoreWrite> writes;
    std::vector<std::function<void()>> notices;
    auto collect = [&](auto& objects, const char* kind, const auto& written) {
      for (auto& [id, loaded] : objects) {
        if (loaded->removed) {
          writes.push_back({kind, id, loaded->value.version, {}});
          if (observer_.removed) notices.push_back([this, kind, id = id] { observer_.removed(kind, id); });
          continue;
        }
        std::string body = to_json(loaded->value);
        if (body == loaded->before) continue;
        writes.push_back({kind, id, loaded->value.version, std::move(body)});
        ++loaded->value.version;
        if (written) notices.push_back([&written, &value = loaded->value] { written(value); });
      }
    };
    collect(transaction.items_, "item", observer_.item_written);
    collect(transaction.jobs_, "job", observer_.job_written);
    collect(transaction.plans_, "plan", observer_.plan_written);
    if (writes.empty()) return {};

    auto committed = store_.commit(writes, durability);
    if (committed) {
      for (auto& notice : notices) notice();
      return {};
    }
    const bool created =
        std::any_of(writes.begin(), writes.end(), [](const auto& w) { return w.expected_version == 0; });
    if (!committed.error().is(ControlErrc::conflict) || attempt >= (created ? 3 : kMaxConflicts)) return committed;
  }
}

}  // namespace backhaul
