// The API's resources as text for people: tables, one object's facts, and a job as it runs.
#pragma once

#include <boost/json.hpp>
#include <string>
#include <vector>

namespace backhaul {

// Columns are as wide as their widest cell; the first row is the head.
void print_table(const std::vector<std::vector<std::string>>& rows);

void print_items(const boost::json::array& items);
void print_item(const boost::json::value& item);
void print_preflight(const boost::json::value& answer);
void print_jobs(const boost::json::array& jobs);
void print_job(const boost::json::value& job);
void print_plans(const boost::json::array& plans);
void print_plan(const boost::json::value& plan);

// One line: task, bar, rate and time left, or what the job waits for, the next delta and the projected downtime; then
// the allowed actions.
std::string job_line(const boost::json::value& job);
// One line with a job's state: "job 17 PlannedFailover web01: Suspended, waits for Complete Failover".
std::string job_summary(const boost::json::value& job);

}  // namespace backhaul
