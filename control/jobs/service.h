// The facade of the control layer: everything that the HTTP API and the CLI can ask for. Thread-safe; calls are short
// (store accesses), except preflight and planned_failover, which ask both sites. Every verb checks the actor's role and
// the phase tables, records intent and audit entry in the store, and only then returns; jobs run on the service's own
// threads (start), or step by step (control/jobs/runner.h) in tests.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/world.h"
#include "control/drivers/vm_driver.h"
#include "control/jobs/data_plane.h"
#include "control/jobs/job_context.h"
#include "control/model/job.h"
#include "control/model/model.h"
#include "control/store/store.h"

namespace backhaul {

struct Actor {
  std::string name;
  Role role = Role::reader;
};

struct PreflightReport {
  bool passed = false;  // no check failed; warnings do not count
  std::vector<Check> checks;
  Estimate estimate;
};

struct JobFilter {
  std::vector<JobState> states;  // empty: all
  std::vector<JobKind> kinds;
  std::string item, plan;
  std::int64_t started_from_unix_s = 0, started_until_unix_s = 0;  // 0: open
  bool with_replication = false;                                   // also the endless jobs of replication cycles
};

struct Event {
  std::uint64_t sequence = 0;  // grows within one process
  std::string kind;            // "item", "job", "plan": the object changed; "progress": a running job's numbers
  std::string id;
  std::string state;  // the object's state
  std::int64_t at_unix_s = 0;
};

struct NewToken {
  TokenRecord record;
  std::string secret;  // the whole bearer token; shown once
};

struct Limits {
  std::size_t threads = 8;  // each runs one step of one job at a time; a step blocks at most for one driver call
  std::size_t max_items = 4096;
  std::size_t max_plans = 1024;
  std::size_t kept_jobs = 10000;  // ended ones beyond this are removed, oldest first
  std::size_t kept_events = 1024;
};

class Runner;

class Service {
 public:
  // All references outlive the service. `run_action` runs plans' commands; empty: a child process does. `owner` names
  // this appliance in leases; two processes must not share it.
  static Result<std::unique_ptr<Service>> create(Store& store, DataPlane& data_plane, VmDriverSource& drivers,
                                                 Clock& clock, Random& random, std::string owner,
                                                 const Limits& limits = {}, const Pace& pace = {},
                                                 ActionCommand run_action = {});
  ~Service();
  void start();  // takes up all unfinished jobs
  void stop();   // finishes the running steps (transfers stop; a new process goes on with them)

  Result<std::vector<Item>> list_items();
  Result<Item> get_item(std::string_view id);
  // Creates an item, or changes its declared fields; the runner's fields stay. `expected_version`: conflict unless it
  // is the present one.
  Result<Item> put_item(const Actor& actor, const Item& declared, std::optional<std::uint64_t> expected_version = {});
  Result<void> remove_item(const Actor& actor, std::string_view id, std::optional<std::uint64_t> expected_version = {});
  Result<PreflightReport> preflight(const Actor& actor, std::string_view item, const PlannedFailoverRequest& request);

  // Verbs return the id of the recorded job.
  Result<std::string> planned_failover(const Actor& actor, std::string_view item,
                                       const PlannedFailoverRequest& request);
  // An empty id: the commit was recorded and needs no job (FailoverCommitPending).
  Result<std::string> failover_commit(const Actor& actor, std::string_view item, bool delete_source_disks = false);
  Result<std::string> failover_cancel(const Actor& actor,
                                      std::string_view item);  // cancels the job, or undoes until commit
  Result<std::string> reprotect(const Actor& actor, std::string_view item);

  Result<std::vector<Job>> list_jobs(const JobFilter& filter = {});  // newest first
  Result<Job> get_job(std::string_view id);                          // with live progress
  Result<void> resume_job(const Actor& actor, std::string_view id);
  Result<void> cancel_job(const Actor& actor, std::string_view id);
  Result<void> restart_job(const Actor& actor, std::string_view id);  // only what failed

  Result<std::vector<RecoveryPlan>> list_plans();
  Result<RecoveryPlan> get_plan(std::string_view id);
  Result<RecoveryPlan> put_plan(const Actor& actor, const RecoveryPlan& plan,
                                std::optional<std::uint64_t> expected_version = {});
  Result<void> remove_plan(const Actor& actor, std::string_view id, std::optional<std::uint64_t> expected_version = {});
  Result<std::string> plan_planned_failover(const Actor& actor, std::string_view plan,
                                            const PlannedFailoverRequest& request);
  Result<std::string> plan_commit(const Actor& actor, std::string_view plan, bool delete_source_disks = false);
  Result<std::string> plan_reprotect(const Actor& actor, std::string_view plan);
  Result<std::vector<std::string_view>> allowed_plan_operations(const RecoveryPlan& plan);

  // Token: "bh_<id>_<secret>". Only the hash is stored.
  Result<NewToken> create_token(const Actor& actor, std::string_view name, Role role, std::int64_t lifetime_s = 0);
  Result<std::vector<TokenRecord>> list_tokens(const Actor& actor);
  Result<void> remove_token(const Actor& actor, std::string_view name);
  Result<Actor> authenticate(std::string_view bearer_token);  // ControlErrc::unauthenticated

  // At most kMaxAuditEntries.
  Result<std::vector<AuditEntry>> list_audit(const Actor& actor, std::string_view object = {}, std::uint64_t before = 0,
                                             std::size_t limit = 100);
  // Records what the HTTP layer refuses (bad token, wrong role).
  void audit(const Actor& actor, std::string_view action, std::string_view object, std::string_view outcome,
             std::string_view detail = {});

  // `listener` gets each event on the thread that caused it; it must not block nor call the service. Returns an id for
  // unsubscribe(), after which no more call comes. events_since() gives what is still kept, for Last-Event-ID.
  std::uint64_t subscribe(std::function<void(const Event&)> listener);
  void unsubscribe(std::uint64_t id);
  std::vector<Event> events_since(std::uint64_t sequence);

  Runner& runner();  // for tests and for metrics

 private:
  struct State;
  explicit Service(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Roles: Reader sees, Operator also runs verbs, Admin also declares items, plans and tokens.
inline constexpr Role required_role(ItemVerb verb) {
  return verb == ItemVerb::update || verb == ItemVerb::remove ? Role::admin : Role::operator_;
}

}  // namespace backhaul
