// The verbs: the full grid of item verb and state, roles, what may be declared, jobs' filter, tokens, events, audit.
#include "control/jobs/service.h"

#include <gtest/gtest.h>

#include "control/model/model_json.h"
#include "control/store/records.h"
#include "dataplane/nbd/nbd.h"
#include "tests/unit/control/bench.h"

namespace backhaul {
namespace {

using namespace fake;

struct ServiceTest : ::testing::Test, Bench {
  void SetUp() override { add_item(make_item("web")); }

  // Puts the item into a state directly, with a failover job that commit and undo can go on from.
  void force_state(ItemState state) {
    auto object = store->get("item", "web").value();
    Item item = item_from_json(object->body).value();
    item.state = state;
    item.current_job = item.failover_job = "900";
    item.direction = Direction::recovery_to_primary;
    const StoreWrite write{"item", "web", object->version, to_json(item)};
    ASSERT_TRUE(store->commit({&write, 1}, Durability::durable));
    Job job;
    job.id = "900";
    job.item = "web";
    job.kind = JobKind::planned_failover;
    job.state = state == ItemState::planned_failover_in_progress ? JobState::in_progress : JobState::failed;
    job.tasks = {{TaskKind::replicate}};
    job.source = item.recovery;
    job.target = item.primary;
    auto existing = store->get("job", "900").value();
    const StoreWrite job_write{"job", "900", existing ? existing->version : 0, to_json(job)};
    ASSERT_TRUE(store->commit({&job_write, 1}, Durability::durable));
  }
};

TEST_F(ServiceTest, EveryVerbInEveryStateIsAllowedOrRefusedAsTheTableSaysAndARefusalChangesNothing) {
  for (std::size_t s = 0; s < kItemStates; ++s) {
    for (std::size_t v = 0; v < kItemVerbs; ++v) {
      const auto state = static_cast<ItemState>(s);
      const auto verb = static_cast<ItemVerb>(v);
      SCOPED_TRACE(std::string(to_string(verb)) + " in " + std::string(to_string(state)));
      Bench::store = make_memory_store();
      open();
      world.vms.clear();
      add_item(make_item("web"));
      if (state == ItemState::protected_) {
        world.vm("hv1", "web").power = PowerState::running;
        world.vm("", "web").power = PowerState::off;
      }
      force_state(state);
      const auto before = store->get("item", "web").value()->body;
      const std::size_t jobs_before = store->list("job").value().size();
      std::optional<Error> refused;
      auto note = [&](auto result) {
        if (!result) refused = result.error();
      };
      switch (verb) {
        case ItemVerb::planned_failover: note(service->planned_failover(kAdmin, "web", {})); break;
        case ItemVerb::failover_commit: note(service->failover_commit(kAdmin, "web")); break;
        case ItemVerb::failover_cancel: note(service->failover_cancel(kAdmin, "web")); break;
        case ItemVerb::reprotect: note(service->reprotect(kAdmin, "web")); break;
        case ItemVerb::update: note(service->put_item(kAdmin, make_item("web"))); break;
        case ItemVerb::remove: note(service->remove_item(kAdmin, "web")); break;
        case ItemVerb::preflight: note(service->preflight(kAdmin, "web", {})); break;
      }
      if (is_allowed(verb, state)) {
        EXPECT_FALSE(refused) << refused->to_string();
        continue;
      }
      ASSERT_TRUE(refused);
      EXPECT_EQ(*refused, make_error_code(ControlErrc::forbidden_in_phase));
      EXPECT_NE(refused->cause().find("web"), std::string::npos);
      EXPECT_NE(refused->cause().find(to_string(state)), std::string::npos);
      EXPECT_EQ(store->get("item", "web").value()->body, before);
      EXPECT_EQ(store->list("job").value().size(), jobs_before);
    }
  }
}

TEST_F(ServiceTest, ADirectionThatTheStateDoesNotHaveIsRefused) {
  PlannedFailoverRequest request;
  request.direction = Direction::primary_to_recovery;
  auto refused = service->planned_failover(kAdmin, "web", request);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error(), make_error_code(ControlErrc::forbidden_in_phase));
}

TEST_F(ServiceTest, AFailoverIsRefusedUntilTheEarlierOneIsCommittedAndPreflightPasses) {
  Item item = make_item("new");
  item.earlier_failover_committed = false;
  add_item(item);
  auto refused = service->planned_failover(kAdmin, "new", {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error(), make_error_code(ControlErrc::forbidden_in_phase));
  EXPECT_FALSE(service->preflight(kAdmin, "new", {}).value().passed);
  EXPECT_EQ(service->failover_commit(kAdmin, "new").value(), "");
  EXPECT_TRUE(service->preflight(kAdmin, "new", {}).value().passed);

  const auto refusal = [&](const char* expected) {
    auto result = service->planned_failover(kAdmin, "new", {});
    ASSERT_FALSE(result) << expected;
    EXPECT_EQ(result.error(), make_error_code(ControlErrc::precondition_failed));
    EXPECT_NE(result.error().cause().find(expected), std::string::npos) << result.error().cause();
    EXPECT_EQ(state("new"), ItemState::failover_committed);
  };
  world.host_connected = false;
  refusal("host-agent");
  world.host_connected = true;
  const HostReport good = world.host;
  world.host.free_bytes = 1;
  refusal("free-space");
  world.host = good;
  world.host.networks = {"DMZ"};
  refusal("network:LAN");
  world.host = good;
  world.host.generations = {1};
  refusal("generation");
  world.host = good;
  world.host.certificate_ends_unix_s = world.clock.unix_time_s() + 3600;
  refusal("certificates");
  world.host = good;
  world.host.unix_time_s = world.clock.unix_time_s() + 120;
  refusal("clock");
  world.host = good;
  world.host.formats = {"vhdx"};
  refusal("format");
  world.host = good;
  world.vm("hv1", "new").power = PowerState::running;
  refusal("target-vm");
  world.vm("hv1", "new").power = PowerState::off;
  world.vm("", "new").power = PowerState::absent;
  refusal("source-vm");
  world.vm("", "new").power = PowerState::running;
  EXPECT_TRUE(service->planned_failover(kAdmin, "new", {}));
}

TEST_F(ServiceTest, PreflightChangesNothingAndEstimatesFromSamples) {
  const auto before = store->list("item").value()[0].body;
  const int actions = world.actions;
  auto report = service->preflight(kAdmin, "web", {}).value();
  EXPECT_TRUE(report.passed);
  EXPECT_GT(report.estimate.bytes, 0u);
  EXPECT_FALSE(report.estimate.advise_for_synchronization);
  world.change_sample.changed_fraction = 1;
  EXPECT_TRUE(service->preflight(kAdmin, "web", {}).value().estimate.advise_for_synchronization);
  world.change_sample = {1 << 20, 0, 1e9, false};
  EXPECT_TRUE(service->preflight(kAdmin, "web", {}).value().estimate.advise_for_synchronization)
      << "the primary disk is gone";
  EXPECT_EQ(store->list("item").value()[0].body, before);
  EXPECT_EQ(world.actions, actions);
}

TEST_F(ServiceTest, RolesAreEnforcedAndRefusalsAreAudited) {
  const Actor reader{"bob", Role::reader}, operator_{"eve", Role::operator_};
  EXPECT_EQ(service->planned_failover(reader, "web", {}).error(), make_error_code(ControlErrc::forbidden_role));
  EXPECT_EQ(service->put_item(operator_, make_item("x")).error(), make_error_code(ControlErrc::forbidden_role));
  EXPECT_EQ(service->create_token(operator_, "t", Role::reader).error(), make_error_code(ControlErrc::forbidden_role));
  EXPECT_TRUE(service->planned_failover(operator_, "web", {}));
  auto entries = service->list_audit(reader, "item/web").value();
  ASSERT_GE(entries.size(), 3u);
  EXPECT_EQ(entries[0].actor, "eve");
  EXPECT_EQ(entries[0].outcome, "accepted");
  EXPECT_EQ(entries[1].actor, "bob");
  EXPECT_EQ(entries[1].outcome, "refused");
}

TEST_F(ServiceTest, AChangedDeclarationKeepsWhatTheRunnerKnowsAndNeedsTheVersion) {
  Item changed = make_item("web");
  changed.vm.memory_mib = 4096;
  changed.state = ItemState::protected_;  // not the caller's to say
  changed.epoch = 99;
  const auto version = item("web").version;
  EXPECT_EQ(service->put_item(kAdmin, changed, version + 1).error(), make_error_code(ControlErrc::conflict));
  auto put = service->put_item(kAdmin, changed, version);
  ASSERT_TRUE(put);
  EXPECT_EQ(put->vm.memory_mib, 4096u);
  EXPECT_EQ(put->state, ItemState::failover_committed);
  EXPECT_EQ(put->epoch, 0u);
  Item bad = make_item("web");
  bad.primary.disks.pop_back();
  EXPECT_EQ(service->put_item(kAdmin, bad).error(), make_error_code(ControlErrc::invalid));
  bad = make_item("../etc");
  EXPECT_EQ(service->put_item(kAdmin, bad).error(), make_error_code(ControlErrc::invalid));
}

TEST_F(ServiceTest, JobsAreListedNewestFirstAndFiltered) {
  add_item(make_item("db"));
  auto first = service->planned_failover(kAdmin, "web", full_request()).value();
  ASSERT_TRUE(run_until_job(first, JobState::succeeded));
  auto second = service->planned_failover(kAdmin, "db", {}).value();
  auto jobs = service->list_jobs().value();
  ASSERT_EQ(jobs.size(), 2u);
  EXPECT_EQ(jobs[0].id, second);
  JobFilter filter;
  filter.states = {JobState::succeeded};
  EXPECT_EQ(service->list_jobs(filter).value().size(), 1u);
  filter.states.clear();
  filter.item = "db";
  EXPECT_EQ(service->list_jobs(filter).value()[0].id, second);
  filter = {};
  filter.started_until_unix_s = jobs[1].started_unix_s - 1;
  EXPECT_TRUE(service->list_jobs(filter).value().empty());
  EXPECT_EQ(service->get_job("999").error(), make_error_code(ControlErrc::not_found));
  EXPECT_EQ(service->resume_job(kAdmin, "999").error(), make_error_code(ControlErrc::not_found));
}

TEST_F(ServiceTest, ARunningTransferShowsBytesRateAndTimeLeft) {
  world.polls_of_a_round = 1000;
  auto id = service->planned_failover(kAdmin, "web", {}).value();
  ASSERT_TRUE(run_until([&] { return world.rounds.size() == 2 && job(id).tasks[1].progress.bytes_done != 0; }));
  const TransferProgress progress = job(id).tasks[1].progress;
  EXPECT_EQ(progress.bytes_total, 200u);
  EXPECT_EQ(progress.bytes_done, 100u);
  EXPECT_DOUBLE_EQ(progress.bytes_per_s, 50);
  EXPECT_DOUBLE_EQ(progress.seconds_left, 2);
}

TEST_F(ServiceTest, TokensWorkUntilRemovedOrExpiredAndOnlyTheirHashIsStored) {
  auto token = service->create_token(kAdmin, "ci", Role::operator_, 100).value();
  auto actor = service->authenticate(token.secret);
  ASSERT_TRUE(actor);
  EXPECT_EQ(actor->name, "ci");
  EXPECT_EQ(actor->role, Role::operator_);
  EXPECT_EQ(store->list_tokens().value()[0].hash.find(token.secret.substr(20)), std::string::npos);
  for (std::string wrong :
       {std::string(), token.secret + "0", token.secret.substr(1), std::string(token.secret.size(), 'x')})
    EXPECT_EQ(service->authenticate(wrong).error(), make_error_code(ControlErrc::unauthenticated));
  std::string flipped = token.secret;
  flipped.back() = flipped.back() == '0' ? '1' : '0';
  EXPECT_FALSE(service->authenticate(flipped));
  world.clock.sleep_for(std::chrono::seconds(101));
  EXPECT_FALSE(service->authenticate(token.secret));
  auto second = service->create_token(kAdmin, "ui", Role::reader).value();
  EXPECT_FALSE(service->create_token(kAdmin, "ui", Role::reader));
  ASSERT_TRUE(service->remove_token(kAdmin, "ui"));
  EXPECT_FALSE(service->authenticate(second.secret));
  EXPECT_EQ(service->remove_token(kAdmin, "ui").error(), make_error_code(ControlErrc::not_found));
}

TEST_F(ServiceTest, EventsAreGivenInOrderAndKeptForThoseWhoComeBack) {
  std::vector<Event> seen;
  auto listener = service->subscribe([&](const Event& event) { seen.push_back(event); });
  auto id = service->planned_failover(kAdmin, "web", full_request()).value();
  ASSERT_TRUE(run_until_job(id, JobState::succeeded));
  service->unsubscribe(listener);
  ASSERT_GT(seen.size(), 5u);
  for (std::size_t i = 1; i < seen.size(); ++i) EXPECT_EQ(seen[i].sequence, seen[i - 1].sequence + 1);
  EXPECT_EQ(seen.back().state, "Succeeded");
  auto since = service->events_since(seen[2].sequence);
  ASSERT_FALSE(since.empty());
  EXPECT_EQ(since.front().sequence, seen[3].sequence);
}

TEST_F(ServiceTest, AnotherAppliancesLeaseKeepsAJobUntouchedUntilItExpires) {
  auto id = service->planned_failover(kAdmin, "web", {}).value();
  ASSERT_TRUE(store->acquire_lease("job/" + id, "other", 60, world.clock.unix_time_s()));
  run_until([] { return false; }, 50);
  EXPECT_EQ(job(id).state, JobState::not_started);
  ASSERT_TRUE(run_until_job(id, JobState::suspended, 120));
}

TEST_F(ServiceTest, ThreadsRunJobsToo) {
  Limits limits;
  limits.threads = 3;
  Pace pace;
  pace.poll = pace.poll.zero() + std::chrono::milliseconds(1);
  service = Service::create(*store, world, world, system_clock(), world.random, "appliance", limits, pace, {}).value();
  auto id = service->planned_failover(kAdmin, "web", full_request());
  ASSERT_FALSE(id) << "the fake host's clock is not the system's";
  world.host.unix_time_s = system_clock().unix_time_s();
  id = service->planned_failover(kAdmin, "web", full_request());
  ASSERT_TRUE(id) << id.error().to_string();
  std::mutex mutex;
  std::condition_variable changed;
  bool ended = false;
  auto listener = service->subscribe([&](const Event& event) {
    std::lock_guard lock(mutex);
    ended =
        ended || (event.kind == "job" && event.id == *id && (event.state == "Succeeded" || event.state == "Failed"));
    changed.notify_all();
  });
  service->start();
  {
    std::unique_lock lock(mutex);
    EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(20), [&] { return ended; }));
  }
  service->unsubscribe(listener);
  service->stop();
  EXPECT_EQ(job(*id).state, JobState::succeeded) << errors_of(*id);
}

TEST_F(ServiceTest, ADiskThatIsOnlyExportedFailsBackAndIsNoTargetOfReverseReplicate) {
  Item declared = item("web");
  const std::string file = declared.recovery.disks[0].path, uri = "nbd+unix:///os?socket=/run/web.sock";
  declared.recovery.disks[0].path = uri;
  ASSERT_TRUE(service->put_item(kAdmin, declared, {}));
  world.disk("", uri) = world.disk("", file);
  const auto job_id = service->planned_failover(kAdmin, "web", full_request()).value();
  ASSERT_TRUE(run_until_job(job_id, JobState::succeeded)) << errors_of(job_id);
  EXPECT_EQ(world.disk("hv1", "web-os").content, "new os");
  ASSERT_TRUE(run_until_job(service->failover_commit(kAdmin, "web").value(), JobState::succeeded));
  const auto refused = service->reprotect(kAdmin, "web");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error(), NbdErrc::read_only) << refused.error().to_string();
  EXPECT_NE(refused.error().cause().find("disk os"), std::string::npos);
  EXPECT_EQ(state("web"), ItemState::planned_failover_committed);
  declared.recovery.disks[0].path = file;
  ASSERT_TRUE(service->put_item(kAdmin, declared, {}));
  ASSERT_TRUE(run_until_job(service->reprotect(kAdmin, "web").value(), JobState::succeeded));
}

}  // namespace
}  // namespace backhaul
