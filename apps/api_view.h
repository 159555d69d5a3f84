// How the API's resources look to a person: tables, one object's facts, and a job as it runs.
#pragma once

#include <boost/json.hpp>
#include <string>
#include <vector>

namespace backhaul {

// Columns as wide as their widest cell; the first row is the head.
void print_table(const std::vector<std::vector<std::string>>& rows);

void print_items(const boost::json::array& items);
void print_item(const boost::json::value& item);
void print_preflight(const boost::json::value& answer);
void print_jobs(const boost::json::array& jobs);
void print_job(const boost::json::value& job);
void print_plans(const boost::json::array& plans);
void print_plan(const boost::json::value& plan);

// One line: task, bar, rate, time left; or what it waits for, the next delta and the projected downtime; and what is
// allowed now.
std::string job_line(const boost::json::value& job);
// One line on how a job stands: "job 17 PlannedFailover web01: Suspended, waits for Complete Failover".
std::string job_summary(const boost::json::value& job);

}  // namespace backhaul
