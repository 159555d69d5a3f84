// Typed access to the job store. Every change goes through transact(): objects are read, changed by a function without
// side effects, and written together under compare-and-set; on a conflict the function runs again on fresh copies.
// Thread-safe.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "control/model/job.h"
#include "control/model/model.h"
#include "control/store/store.h"

namespace backhaul {

// Only these set the state of an item or job. A transition that the table does not know is a defect: it is logged, and
// the process ends before it is stored.
void set_state(Item& item, ItemState state);
void set_state(Job& job, JobState state);

class Transaction {
 public:
  explicit Transaction(Store& store) : store_(store) {}

  // Errors: not_found, store_failed, store_damaged. Pointers live as long as the transaction; changes through them are
  // written at its end.
  Result<Item*> item(std::string_view id);
  Result<Job*> job(std::string_view id);
  Result<RecoveryPlan*> plan(std::string_view id);
  // Add a new object. The transaction ends with conflict when it exists.
  Job& add(Job job);
  void add(Item item);
  void add(RecoveryPlan plan);
  void remove_item(std::string_view id);
  void remove_plan(std::string_view id);
  void remove_job(std::string_view id);

 private:
  friend class Records;
  template <class T>
  struct Loaded {
    T value;
    std::string before;  // as read; empty for a new object
    bool removed = false;
  };
  template <class T>
  using Objects = std::map<std::string, std::unique_ptr<Loaded<T>>, std::less<>>;
  template <class T, class Parse>
  Result<T*> load(Objects<T>& objects, std::string_view kind, std::string_view id, Parse parse);

  Store& store_;
  Objects<Item> items_;
  Objects<Job> jobs_;
  Objects<RecoveryPlan> plans_;
};

class Records {
 public:
  // Called after each commit, on the committing thread.
  struct Observer {
    std::function<void(const Item&)> item_written;
    std::function<void(const Job&)> job_written;
    std::function<void(const RecoveryPlan&)> plan_written;
    std::function<void(std::string_view kind, std::string_view id)> removed;
  };

  explicit Records(Store& store) : store_(store) {}
  void set_observer(Observer observer) { observer_ = std::move(observer); }

  Result<Item> item(std::string_view id);
  Result<Job> job(std::string_view id);
  Result<RecoveryPlan> plan(std::string_view id);
  Result<std::vector<Item>> items();
  Result<std::vector<Job>> jobs();
  Result<std::vector<RecoveryPlan>> plans();

  // An error of `change` ends the transaction; nothing is written then.
  Result<void> transact(const std::function<Result<void>(Transaction&)>& change,
                        Durability durability = Durability::durable);

  Store& store() { return store_; }

 private:
  Store& store_;
  Observer observer_;
};

}  // namespace backhaul
