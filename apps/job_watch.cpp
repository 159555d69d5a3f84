#include "apps/job_watch.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "apps/api_view.h"
#include "apps/commands.h"

namespace backhaul {
namespace {

constexpr std::chrono::milliseconds kSoon{100}, kLater{500};
constexpr int kSoonLooks = 30;
constexpr std::chrono::seconds kPatience{60};  // while the appliance restarts

class LiveLine {
 public:
  explicit LiveLine(bool quiet) : quiet_(quiet), terminal_(isatty(STDERR_FILENO) == 1) {}
  ~LiveLine() {
    if (open_) fmt::print(stderr, "\n");
  }
  LiveLine(const LiveLine&) = delete;
  LiveLine& operator=(const LiveLine&) = delete;

  void show(const boost::json::value& job) {
    if (quiet_) return;
    const auto text = job_line(job);
    if (terminal_) {
      fmt::print(stderr, "\r\033[K{:.160}", text);
      std::fflush(stderr);
      open_ = true;
      return;
    }
    // Off a terminal, only another task or state is worth a line.
    const auto place = text_part(job, "/properties/state") + text_part(job, "/properties/backhaul/currentTask");
    if (place == last_) return;
    last_ = place;
    fmt::print(stderr, "{}\n", text);
  }

 private:
  const bool quiet_, terminal_;
  bool open_ = false;
  std::string last_;
};

}  // namespace

bool job_rests(const boost::json::value& job) {
  const auto state = text_part(job, "/properties/state");
  if (state == "Succeeded" || state == "Failed" || state == "Cancelled") return true;
  if (state != "Suspended" || truth_part(job, "/properties/backhaul/cancelRequested")) return false;
  // Resumed, and not yet gone on to Complete Failover. A manual action of a plan waits for another resume.
  return !(truth_part(job, "/properties/backhaul/completeRequested") &&
           text_part(job, "/properties/backhaul/waitingFor") == "Complete Failover");
}

Result<boost::json::value> watch_job(ApiClient& client, const std::string& id, bool quiet,
                                     const std::string& status_path) {
  const auto& stop = stop_on_signals();
  LiveLine line(quiet);
  for (int looks = 0; !stop; ++looks) {
    bool rests = false;
    if (!status_path.empty()) {
      BH_TRY(const auto status, client.get(status_path));
      rests = text_part(status, "/status") != "InProgress";
    }
    BH_TRY(auto job, client.get("/replicationJobs/" + id));
    client.set_patience(kPatience);
    line.show(job);
    if (rests || (status_path.empty() && job_rests(job))) return job;
    system_clock().sleep_for(looks < kSoonLooks ? kSoon : kLater);
  }
  return make_error(BaseErrc::cancelled, "stopped watching; the job goes on");
}

int job_exit_code(const boost::json::value& job, bool cancels) {
  const auto state = text_part(job, "/properties/state");
  if (state == "Failed") return kExitJobFailed;
  if (state == "Cancelled" && !cancels) return kExitJobCancelled;
  return kExitOk;
}

int finish_verb(ApiClient& client, const ApiAnswer& answer, const std::string& what, bool wait, bool json,
                bool cancels) {
  const auto id = answer.job();
  if (id.empty()) {  // no job was needed
    if (json)
      print_json({{"accepted", true}, {"job", nullptr}});
    else
      fmt::print("{}\n", what);
    return kExitOk;
  }
  if (!wait) {
    if (json)
      print_json({{"accepted", true}, {"job", id}});
    else
      fmt::print("job {}\n", id);
    return kExitOk;
  }
  if (!json) fmt::print(stderr, "job {}\n", id);
  auto job = watch_job(client, id, json, answer.status_path);
  if (!job) return print_error(job.error(), json);
  if (json)
    print_json(job->as_object());
  else
    fmt::print("{}\n", job_summary(*job));
  return job_exit_code(*job, cancels);
}

}  // namespace backhaul
