// backhaul plan add|list|show|remove|failover|commit|reprotect
#include <fmt/format.h>

#include "apps/api_command.h"
#include "apps/api_view.h"
#include "apps/failover_options.h"
#include "apps/job_watch.h"
#include "control/model/declaration.h"

namespace backhaul {
namespace {

struct PlanOptions : ApiOptions {
  std::string plan, file;
  FailoverOptions failover;
  bool replace = false, wait = false, delete_source_disks = false;
};

std::string plan_path(const PlanOptions& options) { return "/replicationRecoveryPlans/" + options.plan; }

Result<int> add_plan(ApiClient& client, const PlanOptions& options) {
  BH_TRY(const auto text, read_declaration(options.file));
  BH_TRY(const RecoveryPlan plan, parse_plan_toml(text, options.file));
  HttpHeaders headers;
  if (!options.replace) headers.emplace_back("if-none-match", "*");
  BH_TRY(const auto answer, client.call("PUT", "/replicationRecoveryPlans/" + plan.id,
                                        boost::json::object{{"properties", declared_json(plan)}}, headers));
  if (options.json)
    print_json(answer.body.as_object());
  else
    fmt::print("{} {}\n", plan.id, answer.status == 201 ? "added" : "changed");
  return kExitOk;
}

Result<int> list_plans(ApiClient& client, const PlanOptions& options) {
  BH_TRY(auto plans, client.list("/replicationRecoveryPlans"));
  if (options.json)
    print_json({{"value", std::move(plans)}});
  else
    print_plans(plans);
  return kExitOk;
}

Result<int> show_plan(ApiClient& client, const PlanOptions& options) {
  BH_TRY(const auto plan, client.get(plan_path(options)));
  if (options.json)
    print_json(plan.as_object());
  else
    print_plan(plan);
  return kExitOk;
}

Result<int> remove_plan(ApiClient& client, const PlanOptions& options) {
  BH_RETURN_IF_ERROR(client.call("DELETE", plan_path(options)));
  if (options.json)
    print_json({{"removed", true}});
  else
    fmt::print("{} removed\n", options.plan);
  return kExitOk;
}

Result<int> failover_plan(ApiClient& client, const PlanOptions& options) {
  BH_TRY(const auto body, failover_body(options.failover, true));
  BH_TRY(const auto answer, client.call("POST", plan_path(options) + "/plannedFailover", body));
  return finish_verb(client, answer, "", options.wait, options.json);
}

Result<int> commit_plan(ApiClient& client, const PlanOptions& options) {
  boost::json::value body;
  if (options.delete_source_disks) body = {{"properties", {{"backhaul", {{"deleteSourceDisks", true}}}}}};
  BH_TRY(const auto answer, client.call("POST", plan_path(options) + "/failoverCommit", body));
  return finish_verb(client, answer, "", options.wait, options.json);
}

Result<int> reprotect_plan(ApiClient& client, const PlanOptions& options) {
  BH_TRY(const auto answer, client.call("POST", plan_path(options) + "/reProtect"));
  return finish_verb(client, answer, "", options.wait, options.json);
}

}  // namespace

void add_plan_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<PlanOptions>();
  auto* plan = app.add_subcommand("plan", "recovery plans: items in ordered groups that fail back together");
  plan->require_subcommand(1);

  auto* added = plan->add_subcommand("add", "create a plan as declared");
  added->add_option("FILE", options->file, "TOML (docs/OPERATIONS.md)")->required();
  added->add_flag("--replace", options->replace, "update the plan when it exists");
  set_api_action(added, options, action, add_plan);
  set_api_action(plan->add_subcommand("list", "list plans with allowed operations"), options, action, list_plans);

  const auto verb = [&](const char* name, const char* about, auto work) {
    auto* command = plan->add_subcommand(name, about);
    command->add_option("PLAN", options->plan, "the plan's id")->required();
    set_api_action(command, options, action, [work](ApiClient& client, const PlanOptions& given) -> Result<int> {
      BH_RETURN_IF_ERROR(check_id("a plan", given.plan));
      return work(client, given);
    });
    return command;
  };
  const auto job_verb = [&](const char* name, const char* about, auto work) {
    auto* command = verb(name, about, work);
    command->add_flag("--wait", options->wait, "wait until the job needs you or has ended");
    return command;
  };
  verb("show", "show a plan's groups and actions", show_plan);
  verb("remove", "remove a plan; its items stay", remove_plan);
  add_failover_options(
      *job_verb("failover", "start the planned failover of all its items, group by group", failover_plan),
      options->failover, true);
  job_verb("commit", "commit the failover of all its items", commit_plan)
      ->add_flag("--delete-source-disks", options->delete_source_disks, "delete the source disks, too");
  job_verb("reprotect", "Reverse Replicate all its items", reprotect_plan);
}

}  // namespace backhaul
