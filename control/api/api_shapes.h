// The API's resources as JSON (docs/http_api.md): Site Recovery's shapes, with what is Backhaul's own below
// properties.backhaul. Pure: facts in, JSON out.
#pragma once

#include <boost/json/object.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "control/jobs/service.h"

namespace backhaul {

// The appliance is one fabric with one container.
inline constexpr std::string_view kFabric = "backhaul", kContainer = "items";

std::string_view last_segment(std::string_view id) noexcept;  // of a resource id, or the name itself

// `base`: what ids begin with.
std::string item_id(std::string_view base, std::string_view item);
std::string job_id(std::string_view base, std::string_view job);
std::string plan_id(std::string_view base, std::string_view plan);

boost::json::object fabric_json(std::string_view base);
boost::json::object container_json(std::string_view base, std::size_t items);
// `current`: the job that holds the item, when it is known.
boost::json::object item_json(std::string_view base, const Item& item, const std::optional<Job>& current,
                              std::int64_t now_unix_s);
boost::json::object job_json(std::string_view base, const Job& job);
boost::json::object plan_json(std::string_view base, const RecoveryPlan& plan, const std::optional<Job>& current,
                              const std::vector<std::string_view>& allowed_operations);
boost::json::object preflight_json(const PreflightReport& report);
boost::json::object token_json(const TokenRecord& token, std::string_view secret = {});
boost::json::object audit_json(const AuditEntry& entry);
boost::json::object event_json(const Event& event);

// Seconds of each part; `boot` only where it is known.
boost::json::object downtime_parts_json(const DowntimeParts& parts, bool boot_known);
std::string_view target_type(JobKind kind) noexcept;  // "ProtectionEntity", "RecoveryPlan"
// Why a job failed, as an ARM error's inside; `code` and `message` are never empty.
boost::json::object job_error_json(const Job& job);
// Age of the point in time that the recovery site holds; nothing when the item is not replicated.
std::optional<std::int64_t> lag_seconds(const Item& item, std::int64_t now_unix_s);

}  // namespace backhaul
