// The job store: objects under compare-and-set, leases, the audit log, tokens. SQLite is one implementation
// (open_sqlite_store), memory another (tests); a distributed one can carry the jobs of several appliances behind the
// same interface. Thread-safe. Every call is short and blocking. Errors: ControlErrc::store_failed, store_damaged,
// conflict; nothing else.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "control/model/control_error.h"

namespace backhaul {

// `durable` (intents, outcomes, verbs): survives a power loss when the call returns. `relaxed` (progress): survives
// kill -9; a power loss may lose it, but never tears it or moves it before an earlier durable write.
enum class Durability { durable, relaxed };

struct StoredObject {
  std::string kind;  // "item", "job", "plan"
  std::string id;
  std::uint64_t version = 0;  // 1 after creation, grows with each write
  std::string body;           // JSON
};

struct StoreWrite {
  std::string kind, id;
  std::uint64_t expected_version = 0;  // 0: must not exist
  std::optional<std::string> body;     // nothing: delete
};

struct Lease {
  std::string name, owner;
  std::uint64_t fence = 0;  // grows each time the owner changes
  std::int64_t expires_unix_s = 0;
};

inline constexpr std::uint32_t kMaxAuditEntries = 1000;  // in one answer
struct AuditEntry {
  std::uint64_t id = 0;  // given by the store, growing
  std::int64_t at_unix_s = 0;
  std::string actor;    // token name, or "policy", "appliance"
  std::string action;   // "plannedFailover", "token.create", "shutdown"
  std::string object;   // "item/web01", "job/17"
  std::string outcome;  // "accepted", "refused", "done", "failed"
  std::string detail;
};

enum class Role : std::uint8_t { reader, operator_, admin };
std::string_view to_string(Role role) noexcept;
std::optional<Role> parse_role(std::string_view text) noexcept;

inline constexpr std::int64_t kMaxTokenLifetime_s = std::int64_t{100} * 366 * 24 * 3600;
struct TokenRecord {
  std::string name;  // unique
  std::string id;    // the public half of the token
  std::string hash;  // SHA-256 of the secret half, hex
  Role role = Role::reader;
  std::int64_t created_unix_s = 0, expires_unix_s = 0;  // expires 0: never
};

class Store {
 public:
  virtual ~Store() = default;

  virtual Result<std::optional<StoredObject>> get(std::string_view kind, std::string_view id) = 0;
  virtual Result<std::vector<StoredObject>> list(std::string_view kind) = 0;  // by id
  // Writes all or nothing: conflict, and no change, when an expected version differs.
  virtual Result<void> commit(std::span<const StoreWrite> writes, Durability durability) = 0;
  // The next number of `name`, never given before; from 1.
  virtual Result<std::uint64_t> next_number(std::string_view name) = 0;

  // Takes or renews the lease. conflict: another owner holds it and it has not expired.
  virtual Result<Lease> acquire_lease(std::string_view name, std::string_view owner, std::int64_t ttl_s,
                                      std::int64_t now_unix_s) = 0;
  virtual Result<void> release_lease(std::string_view name, std::string_view owner) = 0;

  virtual Result<std::uint64_t> append_audit(const AuditEntry& entry) = 0;
  // Newest first; only entries with id < before (0: from the newest), of `object` when not empty.
  virtual Result<std::vector<AuditEntry>> list_audit(std::string_view object, std::uint64_t before,
                                                     std::size_t limit) = 0;

  virtual Result<void> add_token(const TokenRecord& token) = 0;  // conflict: the name exists
  virtual Result<std::vector<TokenRecord>> list_tokens() = 0;
  virtual Result<std::optional<TokenRecord>> find_token(std::string_view id) = 0;
  virtual Result<bool> remove_token(std::string_view name) = 0;
};

// Creates the file or brings it to the present schema by numbered migrations. store_damaged: not ours, or of a newer
// version.
Result<std::unique_ptr<Store>> open_sqlite_store(const std::filesystem::path& file);

}  // namespace backhaul
