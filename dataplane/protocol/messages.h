// The control messages of docs/wire_protocol.md section 5 as structs, and their JSON. Everything from a peer is checked
// here: a missing or malformed field is TransportErrc::bad_message and names the field.
#pragma once

#include <boost/json/object.hpp>

#include "dataplane/protocol/transfer.h"

namespace backhaul {

boost::json::object to_json(const OpenRequest& request);
Result<OpenRequest> open_request_from_json(const boost::json::object& body);

boost::json::object to_json(const OpenedSession& opened);
Result<OpenedSession> opened_from_json(const boost::json::object& body);

struct JoinRequest {
  std::string session;
  std::uint64_t epoch = 0;
  std::uint32_t lane = 0;
};
boost::json::object to_json(const JoinRequest& request);
Result<JoinRequest> join_from_json(const boost::json::object& body);

// `cancel`, `swap`, `release`, `query` (which ignores the epoch).
struct VerbRequest {
  std::string disk;
  std::uint64_t epoch = 0;
};
boost::json::object to_json(const VerbRequest& request);
Result<VerbRequest> verb_from_json(const boost::json::object& body);

struct Offer {
  std::string id;
};
// 1 to 64 of [A-Za-z0-9._-].
bool is_offer_id(std::string_view text) noexcept;
boost::json::object to_json(const Offer& offer);
Result<Offer> offer_from_json(const boost::json::object& body);

boost::json::object to_json(const TargetStatus& status);
Result<TargetStatus> status_from_json(const boost::json::object& body);

boost::json::object to_json(const FinishRequest& request);
Result<FinishRequest> finish_from_json(const boost::json::object& body);

boost::json::object to_json(const FinishResult& result);
Result<FinishResult> finished_from_json(const boost::json::object& body);

// Bytes of a disk's name; the store's own limit, so that a longer name gets a clear error before it is sent.
inline constexpr std::size_t kMaxDiskNameLength = 4096;

// One field of a message.
Result<std::uint64_t> number_field(const boost::json::object& body, std::string_view name);
Result<std::string> text_field(const boost::json::object& body, std::string_view name, std::size_t max_size);
Result<bool> bool_field(const boost::json::object& body, std::string_view name);

}  // namespace backhaul
