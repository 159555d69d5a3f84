#include "control/jobs/service.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <set>

#include "control/drivers/child_process.h"
#include "control/jobs/preflight.h"
#include "control/jobs/service_state.h"
#include "control/jobs/tokens.h"
#include "control/model/declaration.h"

namespace backhaul {

Service::State::State(Store& in_store, DataPlane& data_plane, VmDriverSource& drivers, Clock& in_clock,
                      Random& in_random, std::string owner, const Limits& in_limits, const Pace& pace,
                      ActionCommand run_action)
    : store(in_store),
      clock(in_clock),
      random(in_random),
      limits(in_limits),
      records(in_store),
      events(in_limits.kept_events),
      runner({records, data_plane, drivers, in_clock, in_random,
              run_action ? run_action : ActionCommand(run_plan_command), owner,
              [this](const Job& job) {
                events.add({0, "progress", job.id, std::string(to_string(job.state)), now()});
              }},
             pace),
      services{records, data_plane, drivers, in_clock, in_random, std::move(run_action), std::move(owner), {}} {
  records.set_observer({[this](const Item& item) {
                          runner.item_written(item);
                          events.add({0, "item", item.id, std::string(to_string(item.state)), now()});
                        },
                        [this](const Job& job) {
                          runner.job_written(job);
                          events.add({0, "job", job.id, std::string(to_string(job.state)), now()});
                        },
                        [this](const RecoveryPlan& plan) {
                          events.add({0, "plan", plan.id, {}, now()});
                        },
                        [this](std::string_view kind, std::string_view id) {
                          events.add({0, std::string(kind), std::string(id), "Removed", now()});
                        }});
}

Result<void> Service::State::require_role(const Actor& actor, Role role) const {
  if (actor.role >= role) return {};
  return make_error(ControlErrc::forbidden_role,
                    fmt::format("needs {}, {} is {}", to_string(role), actor.name, to_string(actor.role)));
}

Result<Start> Service::State::new_start(const Actor& actor) {
  BH_TRY(auto number, store.next_number("job"));
  if (number % 256 == 0) prune_jobs();
  return Start{std::to_string(number), actor.name, now(), {}, {}};
}

void Service::State::audit(const Actor& actor, std::string_view action, std::string_view object,
                           std::string_view outcome, std::string_view detail) {
  auto written = store.append_audit(
      {0, now(), actor.name, std::string(action), std::string(object), std::string(outcome), std::string(detail)});
  if (!written)
    spdlog::error("audit: {} {} {} {}: {}", actor.name, action, object, outcome, written.error().to_string());
}

Result<void> Service::State::verb(const Actor& actor, Role role, std::string_view action, const std::string& object,
                                  const std::function<Result<void>(Transaction&)>& change) {
  auto done = require_role(actor, role);
  if (done) done = records.transact(change);
  audit(actor, action, object, done ? "accepted" : "refused", done ? "" : done.error().to_string());
  return done;
}

// Ended jobs beyond the limit go, oldest first, except those that an item still refers to.
void Service::State::prune_jobs() {
  auto jobs = records.jobs();
  auto items = records.items();
  if (!jobs || !items) return;
  std::set<std::string> kept;
  for (const auto& item : *items) kept.insert({item.current_job, item.failover_job, item.replication_job});
  std::vector<const Job*> ended;
  for (const auto& job : *jobs) {
    if (!has_ended(job.state)) kept.insert(job.children.begin(), job.children.end());
    if (has_ended(job.state)) ended.push_back(&job);
  }
  std::sort(ended.begin(), ended.end(), [](const Job* a, const Job* b) { return a->ended_unix_s < b->ended_unix_s; });
  for (std::size_t i = 0; i + limits.kept_jobs < ended.size(); ++i) {
    if (kept.contains(ended[i]->id)) continue;
    (void)records.transact([&](Transaction& transaction) -> Result<void> {
      BH_TRY(const Job* job, transaction.job(ended[i]->id));
      if (has_ended(job->state)) transaction.remove_job(job->id);
      return {};
    });
  }
}

Service::Service(std::unique_ptr<State> state) : state_(std::move(state)) {}
Service::~Service() { stop(); }

Result<std::unique_ptr<Service>> Service::create(Store& store, DataPlane& data_plane, VmDriverSource& drivers,
                                                 Clock& clock, Random& random, std::string owner, const Limits& limits,
                                                 const Pace& pace, ActionCommand run_action) {
  std::unique_ptr<Service> service(new Service(std::make_unique<State>(
      store, data_plane, drivers, clock, random, std::move(owner), limits, pace, std::move(run_action))));
  BH_RETURN_IF_ERROR(service->state_->runner.load());
  return service;
}

void Service::start() {
  state_->prune_jobs();
  state_->runner.start(state_->limits.threads);
}
void Service::stop() { state_->runner.stop(); }
Runner& Service::runner() { return state_->runner; }

Result<std::vector<Item>> Service::list_items() { return state_->records.items(); }
Result<Item> Service::get_item(std::string_view id) { return state_->records.item(id); }

Result<Item> Service::put_item(const Actor& actor, const Item& declared,
                               std::optional<std::uint64_t> expected_version) {
  auto& s = *state_;
  auto accepted = s.verb(
      actor, required_role(ItemVerb::update), "item.put", "item/" + declared.id,
      [&](Transaction& transaction) -> Result<void> {
        BH_RETURN_IF_ERROR(check_item(declared));
        auto found = transaction.item(declared.id);
        if (!found && !found.error().is(ControlErrc::not_found)) return found.error();
        const std::uint64_t version = found ? (*found)->version : 0;
        if (expected_version && *expected_version != version)
          return make_error(ControlErrc::conflict,
                            fmt::format("item {} has version {}, not {}", declared.id, version, *expected_version));
        Item item = declared;
        if (found) {
          const Item& old = **found;
          BH_RETURN_IF_ERROR(require_verb(old, ItemVerb::update));
          item = old;
          item.vm = declared.vm;
          item.recovery = declared.recovery;
          item.primary = declared.primary;
          item.recovery.vm_exists = old.recovery.vm_exists;
          item.primary.vm_exists = old.primary.vm_exists;
          item.commit_policy = declared.commit_policy;
          item.transfer = declared.transfer;
          item.shutdown = declared.shutdown;
          item.boot = declared.boot;
          item.replication_minutes = declared.replication_minutes;
          **found = std::move(item);
          return {};
        }
        BH_TRY(auto all, s.records.items());
        if (all.size() >= s.limits.max_items)
          return make_error(ControlErrc::busy, fmt::format("{} items are declared", all.size()));
        Item fresh;  // the runner's fields keep their defaults
        fresh.id = declared.id;
        fresh.vm = declared.vm;
        fresh.recovery = declared.recovery;
        fresh.primary = declared.primary;
        fresh.recovery.vm_exists = fresh.primary.vm_exists = true;
        fresh.earlier_failover_committed = declared.earlier_failover_committed;
        fresh.commit_policy = declared.commit_policy;
        fresh.transfer = declared.transfer;
        fresh.shutdown = declared.shutdown;
        fresh.boot = declared.boot;
        fresh.replication_minutes = declared.replication_minutes;
        fresh.state = fresh.resting_state =
            declared.earlier_failover_committed ? ItemState::failover_committed : ItemState::failover_commit_pending;
        transaction.add(std::move(fresh));
        return {};
      });
  BH_RETURN_IF_ERROR(std::move(accepted));
  return s.records.item(declared.id);
}

Result<void> Service::remove_item(const Actor& actor, std::string_view id,
                                  std::optional<std::uint64_t> expected_version) {
  auto& s = *state_;
  return s.verb(
      actor, required_role(ItemVerb::remove), "item.remove", "item/" + std::string(id),
      [&](Transaction& transaction) -> Result<void> {
        BH_TRY(Item * item, transaction.item(id));
        if (expected_version && *expected_version != item->version)
          return make_error(ControlErrc::conflict,
                            fmt::format("item {} has version {}, not {}", id, item->version, *expected_version));
        BH_RETURN_IF_ERROR(require_verb(*item, ItemVerb::remove));
        BH_TRY(auto plans, s.records.plans());
        for (const auto& plan : plans)
          for (const auto& group : plan.groups)
            if (std::find(group.items.begin(), group.items.end(), id) != group.items.end())
              return make_error(ControlErrc::conflict, fmt::format("item {} is part of plan {}", id, plan.id));
        if (!item->replication_job.empty()) {
          BH_TRY(Job * replication, transaction.job(item->replication_job));
          if (!has_ended(replication->state)) {
            replication->cancel_requested = true;  // the job gives staged disks back, then removes the item
            item->remove_requested = true;
            return {};
          }
        }
        transaction.remove_item(id);
        return {};
      });
}

Result<PreflightReport> Service::preflight(const Actor& actor, std::string_view id,
                                           const PlannedFailoverRequest& request) {
  auto& s = *state_;
  BH_RETURN_IF_ERROR(s.require_role(actor, required_role(ItemVerb::preflight)));
  BH_TRY(Item item, s.records.item(id));
  BH_RETURN_IF_ERROR(require_verb(item, ItemVerb::preflight));
  PreflightReport early;
  if (item.state == ItemState::failover_commit_pending)
    early.checks.push_back({"earlier-failover", CheckLevel::failed, "preflight.not_committed",
                            "the earlier failover is not committed",
                            "Commit it (failoverCommit) when it is to stand."});
  Item assumed = item;  // checked as if the verb were allowed
  if (!is_allowed(ItemVerb::planned_failover, item.state)) assumed.state = ItemState::failover_committed;
  BH_TRY(FailoverPath path, failover_path(assumed, request));
  PreflightReport report = run_preflight(s.services, item, path.source, path.target, request);
  report.checks.insert(report.checks.begin(), early.checks.begin(), early.checks.end());
  report.passed = first_failed(report) == nullptr;
  report.estimate = sample_estimate(s.services, item, path.source, path.target);
  return report;
}

Result<std::string> Service::planned_failover(const Actor& actor, std::string_view id,
                                              const PlannedFailoverRequest& request) {
  auto& s = *state_;
  const std::string object = "item/" + std::string(id);
  BH_TRY(Start start, s.new_start(actor));
  // The checks ask the host agent, so they run before the transaction; the job runs them once more.
  const auto checked = [&]() -> Result<void> {
    BH_RETURN_IF_ERROR(s.require_role(actor, required_role(ItemVerb::planned_failover)));
    BH_TRY(Item item, s.records.item(id));
    BH_TRY(FailoverPath path, failover_path(item, request));
    PreflightReport report = run_preflight(s.services, item, path.source, path.target, request);
    if (const Check* failed = first_failed(report))
      return make_error(ControlErrc::precondition_failed,
                        fmt::format("{}: {}: {}. {}", failed->name, failed->code, failed->cause, failed->fix));
    return {};
  };
  if (auto passed = checked(); !passed) {
    s.audit(actor, to_string(ItemVerb::planned_failover), object, "refused", passed.error().to_string());
    return passed.error();
  }
  BH_RETURN_IF_ERROR(
      s.verb(actor, required_role(ItemVerb::planned_failover), to_string(ItemVerb::planned_failover), object,
             [&](Transaction& transaction) { return start_planned_failover(transaction, id, request, start); }));
  return start.job_id;
}

Result<std::string> Service::failover_commit(const Actor& actor, std::string_view id, bool delete_source_disks) {
  auto& s = *state_;
  BH_TRY(Start start, s.new_start(actor));
  bool added = false;
  auto accepted = s.verb(actor, required_role(ItemVerb::failover_commit), to_string(ItemVerb::failover_commit),
                         "item/" + std::string(id), [&](Transaction& transaction) -> Result<void> {
                           BH_TRY(added, start_commit(transaction, id, delete_source_disks, start));
                           return {};
                         });
  BH_RETURN_IF_ERROR(std::move(accepted));
  return added ? start.job_id : std::string();
}

Result<std::string> Service::failover_cancel(const Actor& actor, std::string_view id) {
  auto& s = *state_;
  BH_TRY(Start start, s.new_start(actor));
  std::string job;
  auto accepted = s.verb(actor, required_role(ItemVerb::failover_cancel), to_string(ItemVerb::failover_cancel),
                         "item/" + std::string(id), [&](Transaction& transaction) -> Result<void> {
                           BH_TRY(bool added, start_cancel(transaction, id, start));
                           BH_TRY(const Item* item, transaction.item(id));
                           job = added ? start.job_id : item->current_job;
                           return {};
                         });
  BH_RETURN_IF_ERROR(std::move(accepted));
  return job;
}

Result<std::string> Service::reprotect(const Actor& actor, std::string_view id) {
  auto& s = *state_;
  BH_TRY(Start start, s.new_start(actor));
  BH_RETURN_IF_ERROR(s.verb(actor, required_role(ItemVerb::reprotect), to_string(ItemVerb::reprotect),
                            "item/" + std::string(id),
                            [&](Transaction& transaction) { return start_reprotect(transaction, id, start); }));
  return start.job_id;
}

Result<std::vector<Job>> Service::list_jobs(const JobFilter& filter) {
  BH_TRY(auto jobs, state_->records.jobs());
  const auto one_of = [](const auto& values, const auto& value) {
    return values.empty() || std::find(values.begin(), values.end(), value) != values.end();
  };
  std::erase_if(jobs, [&](const Job& job) {
    const std::int64_t at = job.started_unix_s != 0 ? job.started_unix_s : job.created_unix_s;
    return !one_of(filter.states, job.state) || !one_of(filter.kinds, job.kind) ||
           (!filter.item.empty() && job.item != filter.item) || (!filter.plan.empty() && job.plan != filter.plan) ||
           (filter.started_from_unix_s != 0 && at < filter.started_from_unix_s) ||
           (filter.started_until_unix_s != 0 && at > filter.started_until_unix_s) ||
           (job.kind == JobKind::replication && !filter.with_replication);
  });
  // Ids are numbers: the longer one is the newer.
  std::sort(jobs.begin(), jobs.end(), [](const Job& a, const Job& b) {
    return a.id.size() != b.id.size() ? a.id.size() > b.id.size() : a.id > b.id;
  });
  for (auto& job : jobs)
    if (!has_ended(job.state)) state_->runner.add_progress(job);
  return jobs;
}

Result<Job> Service::get_job(std::string_view id) {
  BH_TRY(Job job, state_->records.job(id));
  if (!has_ended(job.state)) state_->runner.add_progress(job);
  return job;
}

Result<void> Service::resume_job(const Actor& actor, std::string_view id) {
  return state_->verb(actor, Role::operator_, "job.resume", "job/" + std::string(id),
                      [&](Transaction& transaction) { return request_resume(transaction, id); });
}
Result<void> Service::cancel_job(const Actor& actor, std::string_view id) {
  return state_->verb(actor, Role::operator_, "job.cancel", "job/" + std::string(id),
                      [&](Transaction& transaction) { return request_cancel(transaction, id); });
}
Result<void> Service::restart_job(const Actor& actor, std::string_view id) {
  return state_->verb(actor, Role::operator_, "job.restart", "job/" + std::string(id),
                      [&](Transaction& transaction) { return restart_failed(transaction, id, state_->now()); });
}

Result<NewToken> Service::create_token(const Actor& actor, std::string_view name, Role role, std::int64_t lifetime_s) {
  auto& s = *state_;
  const auto make = [&]() -> Result<NewToken> {
    BH_RETURN_IF_ERROR(s.require_role(actor, Role::admin));
    if (!is_valid_id(name))
      return make_error(ControlErrc::invalid, "a token's name is made of letters, digits, '.', '_' and '-'");
    NewToken token = make_token(std::string(name), role, lifetime_s, s.now(), s.random);
    BH_RETURN_IF_ERROR(s.store.add_token(token.record));
    return token;
  };
  auto token = make();
  s.audit(actor, "token.create", "token/" + std::string(name), token ? "accepted" : "refused",
          token ? to_string(role) : token.error().to_string());
  return token;
}

Result<std::vector<TokenRecord>> Service::list_tokens(const Actor& actor) {
  BH_RETURN_IF_ERROR(state_->require_role(actor, Role::admin));
  return state_->store.list_tokens();
}

Result<void> Service::remove_token(const Actor& actor, std::string_view name) {
  auto& s = *state_;
  const auto remove = [&]() -> Result<void> {
    BH_RETURN_IF_ERROR(s.require_role(actor, Role::admin));
    BH_TRY(bool removed, s.store.remove_token(name));
    if (!removed) return make_error(ControlErrc::not_found, "token " + std::string(name));
    return {};
  };
  auto done = remove();
  s.audit(actor, "token.remove", "token/" + std::string(name), done ? "accepted" : "refused",
          done ? "" : done.error().to_string());
  return done;
}

Result<Actor> Service::authenticate(std::string_view bearer_token) {
  return check_token(state_->store, bearer_token, state_->now());
}

Result<std::vector<AuditEntry>> Service::list_audit(const Actor& actor, std::string_view object, std::uint64_t before,
                                                    std::size_t limit) {
  BH_RETURN_IF_ERROR(state_->require_role(actor, Role::reader));
  return state_->store.list_audit(object, before, std::min<std::size_t>(limit, kMaxAuditEntries));
}
void Service::audit(const Actor& actor, std::string_view action, std::string_view object, std::string_view outcome,
                    std::string_view detail) {
  state_->audit(actor, action, object, outcome, detail);
}

std::uint64_t Service::subscribe(std::function<void(const Event&)> listener) {
  return state_->events.subscribe(std::move(listener));
}
void Service::unsubscribe(std::uint64_t id) { state_->events.unsubscribe(id); }
std::vector<Event> Service::events_since(std::uint64_t sequence) { return state_->events.since(sequence); }

}  // namespace backhaul
