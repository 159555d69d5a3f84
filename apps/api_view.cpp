#include "apps/api_view.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "apps/api_client.h"
#include "apps/commands.h"

namespace backhaul {
namespace {

std::string joined(const boost::json::array& words) {
  std::vector<std::string> texts;
  for (const auto& word : words)
    if (word.is_string()) texts.emplace_back(word.get_string());
  return texts.empty() ? "-" : fmt::format("{}", fmt::join(texts, " "));
}

std::string or_dash(const std::string& text) { return text.empty() ? "-" : text; }

// Prints a label and its fact, aligned; prints nothing for an empty fact.
void print_fact(std::string_view label, const std::string& text) {
  if (!text.empty()) fmt::print("  {:<20} {}\n", label, text);
}

std::string place(const boost::json::value& location) {
  const auto host = text_part(location, "/host");
  return fmt::format("{}, driver {}, VM {}", host.empty() ? "this site" : "host " + host,
                     text_part(location, "/driver"), text_part(location, "/vm"));
}

std::string seconds_text(const boost::json::value& value, std::string_view pointer) {
  return find_part(value, pointer) == nullptr ? std::string() : human_seconds(number_part(value, pointer));
}

std::string bytes_text(const boost::json::value& value, std::string_view pointer) {
  return find_part(value, pointer) == nullptr ? std::string() : human_bytes(number_part(value, pointer));
}

void print_errors(const boost::json::array& errors) {
  for (const auto& error : errors) {
    const auto code = text_part(error, "/serviceErrorDetails/code");
    fmt::print("  error {} {}: {}\n", text_part(error, "/creationTime"), code,
               text_part(error, "/serviceErrorDetails/message"));
    const auto cause = text_part(error, "/serviceErrorDetails/possibleCauses");
    const auto fix = text_part(error, "/serviceErrorDetails/recommendedAction");
    if (!cause.empty()) fmt::print("    cause: {}\n", cause);
    if (!fix.empty()) fmt::print("    fix:   {}\n", fix);
  }
}

void print_rounds(const boost::json::value& job) {
  for (const auto& disk : array_part(job, "/properties/backhaul/round/disks")) {
    print_fact("disk " + text_part(disk, "/name"),
               fmt::format("{} of {} sent, {:.0f} blocks changed, {} on the wire", bytes_text(disk, "/payloadBytes"),
                           bytes_text(disk, "/diskBytes"), number_part(disk, "/blocksChanged"),
                           bytes_text(disk, "/wireBytes")));
    const auto target = text_part(disk, "/rootDigestTarget");
    if (!target.empty()) print_fact("  root digests", text_part(disk, "/rootDigestSource") + " = " + target);
  }
}

// "6.2 s: shutdown 0.1, delta 0.4, ...", from an object with `seconds` and `parts`.
std::string downtime_text(const boost::json::value& downtime) {
  if (find_part(downtime, "/seconds") == nullptr) return {};
  auto text = fmt::format("{:.2f} s:", number_part(downtime, "/seconds"));
  const char* comma = " ";
  for (const char* part : {"shutdown", "delta", "verify", "swap", "wait", "start", "boot"}) {
    const auto key = fmt::format("/parts/{}Seconds", part);
    if (find_part(downtime, key) == nullptr) continue;
    text += fmt::format("{}{} {:.2f}", comma, part, number_part(downtime, key));
    comma = ", ";
  }
  return text;
}

void print_downtime(const boost::json::value& job) {
  const auto* downtime = find_part(job, "/properties/backhaul/downtime");
  if (downtime == nullptr) {
    print_fact("projected downtime", seconds_text(job, "/properties/backhaul/projectedDowntimeSeconds"));
    return;
  }
  if (const auto* projected = find_part(*downtime, "/projected"))
    print_fact("projected downtime", downtime_text(*projected));
  print_fact("downtime", downtime_text(*downtime));
  const auto until = text_part(*downtime, "/until");
  if (until.empty()) return;
  const bool from_write = text_part(*downtime, "/from") == "LastWrite";
  print_fact("  measured",
             fmt::format("from {} to {}", from_write ? "the source's last write" : "the shutdown's request",
                         until == "FirstWrite" ? "the target's first write" : "the VM's start"));
  const auto why = text_part(*downtime, "/whyNoFirstWrite");
  if (!why.empty()) print_fact("  not to the first write", why);
}

}  // namespace

void print_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (widths.size() <= i) widths.push_back(0);
      widths[i] = std::max(widths[i], row[i].size());
    }
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i)
      line += i + 1 == row.size() ? row[i] : fmt::format("{:<{}}  ", row[i], widths[i]);
    fmt::print("{}\n", line);
  }
}

void print_items(const boost::json::array& items) {
  std::vector<std::vector<std::string>> rows{{"ITEM", "STATE", "RUNS AT", "LAG", "JOB", "ALLOWED"}};
  for (const auto& item : items) {
    const auto lag = seconds_text(item, "/properties/backhaul/lagSeconds");
    rows.push_back({text_part(item, "/name"), text_part(item, "/properties/protectionState"),
                    or_dash(text_part(item, "/properties/activeLocation")), or_dash(lag),
                    or_dash(text_part(item, "/properties/backhaul/currentJob")),
                    joined(array_part(item, "/properties/allowedOperations"))});
  }
  print_table(rows);
}

void print_item(const boost::json::value& item) {
  fmt::print("{}: {}\n", text_part(item, "/name"), text_part(item, "/properties/protectionState"));
  print_fact("", text_part(item, "/properties/protectionStateDescription"));
  print_fact("runs at", text_part(item, "/properties/activeLocation"));
  print_fact("host agent", text_part(item, "/properties/primaryFabricFriendlyName"));
  print_fact("job", text_part(item, "/properties/backhaul/currentJob"));
  print_fact("replication job", text_part(item, "/properties/backhaul/replicationJob"));
  print_fact("protected until", text_part(item, "/properties/backhaul/protectedUntil"));
  print_fact("lag", seconds_text(item, "/properties/backhaul/lagSeconds"));
  print_fact("commit deadline", text_part(item, "/properties/backhaul/commitDeadline"));
  print_fact("last error", text_part(item, "/properties/backhaul/lastError"));
  print_fact("allowed", joined(array_part(item, "/properties/allowedOperations")));
}

void print_preflight(const boost::json::value& answer) {
  for (const auto& check : array_part(answer, "/properties/checks")) {
    fmt::print("{:<8} {}\n", text_part(check, "/level"), text_part(check, "/name"));
    const auto cause = text_part(check, "/cause");
    const auto fix = text_part(check, "/recommendedAction");
    if (!cause.empty()) fmt::print("         cause: {}\n", cause);
    if (!fix.empty()) fmt::print("         fix:   {}\n", fix);
  }
  fmt::print("estimate: {} to send, {} until Complete Failover, then {} down\n",
             human_bytes(number_part(answer, "/properties/estimate/bytes")),
             human_seconds(number_part(answer, "/properties/estimate/seconds")),
             human_seconds(number_part(answer, "/properties/estimate/downtimeSeconds")));
  const auto reason = text_part(answer, "/properties/estimate/reason");
  if (truth_part(answer, "/properties/estimate/adviseForSynchronization"))
    fmt::print("advice: ForSynchronization{}{}\n", reason.empty() ? "" : ": ", reason);
  else if (!reason.empty())
    fmt::print("note: {}\n", reason);
  fmt::print("{}\n", truth_part(answer, "/properties/passed") ? "passed" : "not passed");
}

void print_jobs(const boost::json::array& jobs) {
  std::vector<std::vector<std::string>> rows{{"JOB", "SCENARIO", "OBJECT", "STATE", "TASK", "STARTED", "ALLOWED"}};
  for (const auto& job : jobs)
    rows.push_back({text_part(job, "/name"), text_part(job, "/properties/scenarioName"),
                    or_dash(text_part(job, "/properties/targetObjectName")), text_part(job, "/properties/state"),
                    or_dash(text_part(job, "/properties/backhaul/currentTask")),
                    or_dash(text_part(job, "/properties/startTime")),
                    joined(array_part(job, "/properties/allowedActions"))});
  print_table(rows);
}

void print_job(const boost::json::value& job) {
  fmt::print("{}\n", job_summary(job));
  print_fact("direction", text_part(job, "/properties/backhaul/direction"));
  if (const auto* source = find_part(job, "/properties/backhaul/source")) print_fact("source", place(*source));
  if (const auto* target = find_part(job, "/properties/backhaul/target")) print_fact("target", place(*target));
  print_fact("data sync", text_part(job, "/properties/backhaul/dataSyncOption"));
  print_fact("started", text_part(job, "/properties/startTime"));
  print_fact("ended", text_part(job, "/properties/endTime"));
  print_fact("started by", text_part(job, "/properties/backhaul/startedBy"));
  print_fact("next delta", bytes_text(job, "/properties/backhaul/nextDeltaBytes"));
  print_downtime(job);
  print_fact("allowed", joined(array_part(job, "/properties/allowedActions")));
  for (const auto& task : array_part(job, "/properties/tasks")) {
    const auto detail = text_part(task, "/stateDescription");
    fmt::print("  task {:<18} {}{}{}\n", text_part(task, "/name"), text_part(task, "/state"),
               detail.empty() ? "" : ": ", detail);
  }
  print_rounds(job);
  print_errors(array_part(job, "/properties/errors"));
  const auto& children = array_part(job, "/properties/backhaul/children");
  if (!children.empty()) print_fact("jobs of its items", joined(children));
}

void print_plans(const boost::json::array& plans) {
  std::vector<std::vector<std::string>> rows{{"PLAN", "GROUPS", "JOB", "ALLOWED"}};
  for (const auto& plan : plans)
    rows.push_back({text_part(plan, "/name"),
                    std::to_string(array_part(plan, "/properties/backhaul/declaration/groups").size()),
                    or_dash(text_part(plan, "/properties/backhaul/currentJob")),
                    joined(array_part(plan, "/properties/allowedOperations"))});
  print_table(rows);
}

void print_plan(const boost::json::value& plan) {
  fmt::print("{}\n", text_part(plan, "/name"));
  for (const auto& group : array_part(plan, "/properties/backhaul/declaration/groups")) {
    print_fact("group " + text_part(group, "/name"), joined(array_part(group, "/items")));
    for (const char* moment : {"before_shutdown", "after_shutdown", "before_boot", "after_boot"})
      for (const auto& action : array_part(group, std::string("/") + moment))
        print_fact(std::string("  ") + moment,
                   text_part(action, "/name") + (truth_part(action, "/manual") ? " (manual)" : ""));
  }
  print_fact("job", text_part(plan, "/properties/backhaul/currentJob"));
  print_fact("allowed", joined(array_part(plan, "/properties/allowedOperations")));
}

std::string job_line(const boost::json::value& job) {
  const auto state = text_part(job, "/properties/state");
  std::string line = fmt::format("{:<10} {:<15}", state, text_part(job, "/properties/backhaul/currentTask"));
  const double total = number_part(job, "/properties/backhaul/progress/bytesTotal");
  const double rate = number_part(job, "/properties/backhaul/progress/bytesPerSecond");
  if (total > 0 && state == "InProgress") {
    const double done = number_part(job, "/properties/backhaul/progress/bytesDone");
    line += fmt::format(" {} {} of {}", progress_bar(done, total), human_bytes(done), human_bytes(total));
    if (rate > 0) line += fmt::format(", {}/s", human_bytes(rate));
    const auto left = seconds_text(job, "/properties/backhaul/progress/secondsLeft");
    if (!left.empty() && rate > 0) line += ", left " + left;
  }
  const auto waiting = text_part(job, "/properties/backhaul/waitingFor");
  if (state == "Suspended" && !waiting.empty()) line += " waits for " + waiting;
  const auto delta = bytes_text(job, "/properties/backhaul/nextDeltaBytes");
  const auto downtime = seconds_text(job, "/properties/backhaul/projectedDowntimeSeconds");
  if (!delta.empty()) line += ", next delta " + delta;
  if (!downtime.empty()) line += ", projected downtime " + downtime;
  const auto& allowed = array_part(job, "/properties/allowedActions");
  if (!allowed.empty()) line += ", allowed: " + joined(allowed);
  return line;
}

std::string job_summary(const boost::json::value& job) {
  const auto state = text_part(job, "/properties/state");
  std::string line =
      fmt::format("job {} {} {}: {}", text_part(job, "/name"), text_part(job, "/properties/scenarioName"),
                  text_part(job, "/properties/targetObjectName"), state);
  const auto waiting = text_part(job, "/properties/backhaul/waitingFor");
  if (state == "Suspended" && !waiting.empty()) line += ", waits for " + waiting;
  const auto downtime = seconds_text(job, "/properties/backhaul/downtimeSeconds");
  if (state == "Succeeded" && !downtime.empty()) line += ", downtime " + downtime;
  if (state == "InProgress" || state == "Failed") line += " in " + text_part(job, "/properties/backhaul/currentTask");
  return line;
}

}  // namespace backhaul
