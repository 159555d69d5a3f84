// Prometheus' text format, version 0.0.4, written by hand: each scrape reads every number from the service, and a
// library that keeps metrics of its own would have to be filled anew each time.
#include <fmt/format.h>

#include "control/api/api_context.h"
#include "control/jobs/runner.h"

namespace backhaul {
namespace {

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? "\\n" : std::string(1, c);
  }
  return out;
}

class Exposition {
 public:
  void family(std::string_view name, std::string_view type, std::string_view help) {
    name_ = name;
    text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
  }
  using Labels = std::initializer_list<std::pair<std::string_view, std::string_view>>;
  template <class T>
  void value(Labels labels, T number) {
    std::string list;
    for (const auto& [key, text] : labels)
      list += fmt::format("{}{}=\"{}\"", list.empty() ? "" : ",", key, escaped(text));
    text_ += list.empty() ? fmt::format("{} {}\n", name_, number) : fmt::format("{}{{{}}} {}\n", name_, list, number);
  }
  std::string take() { return std::move(text_); }

 private:
  std::string_view name_;
  std::string text_;
};

void put_items(Exposition& out, const std::vector<Item>& items, std::int64_t now_unix_s) {
  std::size_t counts[kItemStates] = {};
  for (const auto& item : items) ++counts[static_cast<std::size_t>(item.state)];
  out.family("backhaul_items", "gauge", "Replication protected items by state.");
  for (std::size_t i = 0; i < kItemStates; ++i) out.value({{"state", to_string(static_cast<ItemState>(i))}}, counts[i]);
  out.family("backhaul_item_lag_seconds", "gauge", "Age of what the other site holds (RPO), of protected items.");
  for (const auto& item : items)
    if (const auto lag = lag_seconds(item, now_unix_s)) out.value({{"item", item.id}}, *lag);
  out.family("backhaul_item_replication_failing", "gauge", "1 when the last replication cycle failed.");
  for (const auto& item : items)
    if (item.state == ItemState::protected_) out.value({{"item", item.id}}, item.last_error.empty() ? 0 : 1);
}

void put_jobs(Exposition& out, const std::vector<Job>& jobs) {
  std::size_t counts[kJobKinds][kJobStates] = {};
  for (const auto& job : jobs) ++counts[static_cast<std::size_t>(job.kind)][static_cast<std::size_t>(job.state)];
  out.family("backhaul_jobs", "gauge", "Jobs in the store by scenario and state.");
  for (std::size_t k = 0; k < kJobKinds; ++k)
    for (std::size_t s = 0; s < kJobStates; ++s)
      if (counts[k][s] != 0)
        out.value({{"scenario", to_string(static_cast<JobKind>(k))}, {"state", to_string(static_cast<JobState>(s))}},
                  counts[k][s]);

  struct Series {
    std::string_view name, help;
    double (*of)(const Job&);
  };
  constexpr Series kSeries[] = {
      {"backhaul_job_bytes_done", "Bytes that the current task has moved.",
       [](const Job& job) { return static_cast<double>(job.tasks[job.current_task].progress.bytes_done); }},
      {"backhaul_job_bytes_total", "Bytes that the current task has to move.",
       [](const Job& job) { return static_cast<double>(job.tasks[job.current_task].progress.bytes_total); }},
      {"backhaul_job_bytes_per_second", "Rate of the current task.",
       [](const Job& job) { return job.tasks[job.current_task].progress.bytes_per_s; }},
      {"backhaul_job_next_delta_bytes", "What the next round would send.",
       [](const Job& job) { return static_cast<double>(job.next_delta_bytes); }},
      {"backhaul_job_projected_downtime_seconds", "Downtime if Complete Failover were said now.",
       [](const Job& job) { return job.projected_downtime_s; }},
  };
  for (const auto& series : kSeries) {
    out.family(series.name, "gauge", series.help);
    for (const auto& job : jobs)
      if (!has_ended(job.state) && !job.tasks.empty() && !job.item.empty())
        out.value({{"job", job.id}, {"item", job.item}, {"scenario", to_string(job.kind)}}, series.of(job));
  }
}

// Of each item's last planned failover.
void put_downtimes(Exposition& out, const std::vector<Item>& items, const std::vector<Job>& jobs) {
  std::vector<const Job*> measured;
  for (const auto& item : items)
    for (const auto& job : jobs)
      if (job.id == item.failover_job && job.downtime_s > 0) measured.push_back(&job);
  out.family("backhaul_item_downtime_seconds", "gauge", "Downtime of the item's last planned failover, by part.");
  for (const Job* job : measured) {
    const auto parts = downtime_parts(job->moments);
    const std::pair<std::string_view, double> named[] = {
        {"shutdown", parts.shutdown}, {"delta", parts.delta}, {"verify", parts.verify}, {"swap", parts.swap},
        {"wait", parts.wait},         {"start", parts.start}, {"boot", parts.boot}};
    for (const auto& [part, seconds] : named)
      if (part != "boot" || job->moments.first_write_unix_ms != 0)
        out.value({{"item", job->item}, {"part", part}}, seconds);
  }
  out.family("backhaul_item_projected_downtime_seconds", "gauge", "What was projected for it.");
  for (const Job* job : measured) out.value({{"item", job->item}}, job->projected.sum());
}

void put_http(Exposition& out, const RequestCounts::Counts& counts) {
  out.family("backhaul_http_requests_total", "counter", "Answers of the HTTP API.");
  for (const auto& [key, entry] : counts)
    out.value({{"operation", key.first}, {"status", std::to_string(key.second)}}, entry.requests);
  out.family("backhaul_http_request_seconds_total", "counter", "Time that these answers took.");
  for (const auto& [key, entry] : counts)
    out.value({{"operation", key.first}, {"status", std::to_string(key.second)}}, entry.seconds);
}

}  // namespace

Result<HttpResponse> metrics(ApiContext& context, const ApiCall&) {
  BH_TRY(const auto items, context.service.list_items());
  JobFilter all;
  all.with_replication = true;
  BH_TRY(const auto jobs, context.service.list_jobs(all));
  Exposition out;
  out.family("backhaul_info", "gauge", "The program's version.");
  out.value({{"version", context.config.version}}, 1);
  put_items(out, items, context.clock.unix_time_s());
  put_jobs(out, jobs);
  put_downtimes(out, items, jobs);
  out.family("backhaul_jobs_unfinished", "gauge", "Jobs that this appliance carries.");
  out.value({}, context.service.runner().unfinished());
  out.family("backhaul_event_streams", "gauge", "Open event streams.");
  out.value({}, context.streams.load());
  put_http(out, context.counts.snapshot());
  HttpResponse response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = out.take();
  return response;
}

}  // namespace backhaul
