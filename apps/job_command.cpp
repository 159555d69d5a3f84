// backhaul job list|show|watch|resume|cancel|restart
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "apps/api_command.h"
#include "apps/api_view.h"
#include "apps/job_watch.h"

namespace backhaul {
namespace {

struct JobOptions : ApiOptions {
  std::string job, item, plan, comments;
  std::vector<std::string> states, scenarios;
  bool wait = false;
};

std::string job_path(const JobOptions& options) { return "/replicationJobs/" + options.job; }

// A value in single quotes for $filter; a quote inside is doubled.
std::string in_quotes(std::string_view text) {
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? std::string("''") : std::string(1, c);
  return result + "'";
}

Result<int> list_jobs(ApiClient& client, const JobOptions& options) {
  std::vector<std::string> parts;
  if (!options.states.empty())
    parts.push_back("JobStatus eq " + in_quotes(fmt::format("{}", fmt::join(options.states, ","))));
  if (!options.scenarios.empty())
    parts.push_back("ScenarioName eq " + in_quotes(fmt::format("{}", fmt::join(options.scenarios, ","))));
  if (!options.item.empty()) parts.push_back("ItemName eq " + in_quotes(options.item));
  if (!options.plan.empty()) parts.push_back("PlanName eq " + in_quotes(options.plan));
  std::string path = "/replicationJobs";
  if (!parts.empty()) path += "?$filter=" + url_encode(fmt::format("{}", fmt::join(parts, " and ")));
  BH_TRY(auto jobs, client.list(path));
  if (options.json)
    print_json({{"value", std::move(jobs)}});
  else
    print_jobs(jobs);
  return kExitOk;
}

Result<int> show_job(ApiClient& client, const JobOptions& options) {
  BH_TRY(const auto job, client.get(job_path(options)));
  if (options.json)
    print_json(job.as_object());
  else
    print_job(job);
  return kExitOk;
}

Result<int> follow_job(ApiClient& client, const JobOptions& options) {
  BH_TRY(const auto job, watch_job(client, options.job, options.json));
  if (options.json)
    print_json(job.as_object());
  else
    print_job(job);
  return job_exit_code(job, false);
}

// The job's verbs answer with the same job.
Result<int> verb(ApiClient& client, const JobOptions& options, const char* name, const boost::json::value& body,
                 bool cancels) {
  BH_TRY(const auto answer, client.call("POST", job_path(options) + "/" + name, body));
  return finish_verb(client, answer, "", options.wait, options.json, cancels);
}

Result<int> resume_job(ApiClient& client, const JobOptions& options) {
  boost::json::value body;
  if (!options.comments.empty()) body = {{"properties", {{"comments", options.comments}}}};
  return verb(client, options, "resume", body, false);
}
Result<int> cancel_job(ApiClient& client, const JobOptions& options) {
  return verb(client, options, "cancel", nullptr, true);
}
Result<int> restart_job(ApiClient& client, const JobOptions& options) {
  return verb(client, options, "restart", nullptr, false);
}

}  // namespace

void add_job_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<JobOptions>();
  auto* job = app.add_subcommand("job", "jobs: runs of operations, with their tasks");
  job->require_subcommand(1);

  auto* listed = job->add_subcommand("list", "list jobs, newest first");
  listed->add_option("--state", options->states,
                     "NotStarted, InProgress, Suspended, Succeeded, Failed, Cancelled; may be repeated");
  listed->add_option("--scenario", options->scenarios,
                     "PlannedFailover, Commit, CancelFailover, ReverseReplicate, Replication, ...; may be repeated");
  listed->add_option("--item", options->item, "jobs of this item");
  listed->add_option("--plan", options->plan, "jobs of this plan");
  set_api_action(listed, options, action, list_jobs);

  const auto add = [&](const char* name, const char* about, auto work) {
    auto* command = job->add_subcommand(name, about);
    command->add_option("JOB", options->job, "the job's id")->required();
    set_api_action(command, options, action, [work](ApiClient& client, const JobOptions& given) -> Result<int> {
      BH_RETURN_IF_ERROR(check_id("a job", given.job));
      return work(client, given);
    });
    return command;
  };
  const auto add_verb = [&](const char* name, const char* about, auto work) {
    auto* command = add(name, about, work);
    command->add_flag("--wait", options->wait, "wait until the job needs you or has ended");
    return command;
  };
  add("show", "show a job with its tasks, errors and measurements", show_job);
  add("watch", "follow a job until it needs you or has ended", follow_job);
  add_verb("resume", "Complete Failover, or confirm a plan's manual action", resume_job)
      ->add_option("--comments", options->comments, "for the audit log");
  add_verb("cancel", "cancel a job: the target gets its old disks back, the source VM runs", cancel_job);
  add_verb("restart", "restart a failed job: only what failed is done again", restart_job);
}

}  // namespace backhaul
