#include <algorithm>
#include <map>
#include <mutex>

#include "tests/unit/control/memory_store.h"

namespace backhaul {
namespace {

class MemoryStore final : public Store {
 public:
  Result<std::optional<StoredObject>> get(std::string_view kind, std::string_view id) override {
    std::lock_guard lock(mutex_);
    auto found = objects_.find({std::string(kind), std::string(id)});
    if (found == objects_.end()) return std::optional<StoredObject>();
    return std::optional<StoredObject>(found->second);
  }

  Result<std::vector<StoredObject>> list(std::string_view kind) override {
    std::lock_guard lock(mutex_);
    std::vector<StoredObject> objects;
    for (const auto& [key, object] : objects_)
      if (key.first == kind) objects.push_back(object);
    return objects;
  }

  Result<void> commit(std::span<const StoreWrite> writes, Durability) override {
    std::lock_guard lock(mutex_);
    for (const auto& write : writes) {
      auto found = objects_.find({write.kind, write.id});
      const std::uint64_t version = found == objects_.end() ? 0 : found->second.version;
      if (version != write.expected_version || (version == 0 && !write.body))
        return make_error(ControlErrc::conflict, write.kind + " " + write.id);
    }
    for (const auto& write : writes) {
      if (write.body)
        objects_[{write.kind, write.id}] = {write.kind, write.id, write.expected_version + 1, *write.body};
      else
        objects_.erase({write.kind, write.id});
    }
    return {};
  }

  Result<std::uint64_t> next_number(std::string_view name) override {
    std::lock_guard lock(mutex_);
    return ++numbers_[std::string(name)];
  }

  Result<Lease> acquire_lease(std::string_view name, std::string_view owner, std::int64_t ttl_s,
                              std::int64_t now_unix_s) override {
    std::lock_guard lock(mutex_);
    Lease& lease = leases_[std::string(name)];
    if (!lease.owner.empty() && lease.owner != owner && lease.expires_unix_s > now_unix_s)
      return make_error(ControlErrc::conflict, "lease " + std::string(name) + " is held by " + lease.owner);
    if (lease.owner != owner) ++lease.fence;
    lease.name = name;
    lease.owner = owner;
    lease.expires_unix_s = now_unix_s + ttl_s;
    return lease;
  }

  Result<void> release_lease(std::string_view name, std::string_view owner) override {
    std::lock_guard lock(mutex_);
    auto found = leases_.find(std::string(name));
    if (found != leases_.end() && found->second.owner == owner) found->second.owner.clear();
    return {};
  }

  Result<std::uint64_t> append_audit(const AuditEntry& entry) override {
    std::lock_guard lock(mutex_);
    audit_.push_back(entry);
    audit_.back().id = audit_.size();
    return audit_.back().id;
  }

  Result<std::vector<AuditEntry>> list_audit(std::string_view object, std::uint64_t before,
                                             std::size_t limit) override {
    std::lock_guard lock(mutex_);
    std::vector<AuditEntry> entries;
    for (auto entry = audit_.rbegin(); entry != audit_.rend() && entries.size() < limit; ++entry)
      if ((before == 0 || entry->id < before) && (object.empty() || entry->object == object)) entries.push_back(*entry);
    return entries;
  }

  Result<void> add_token(const TokenRecord& token) override {
    std::lock_guard lock(mutex_);
    for (const auto& [name, existing] : tokens_)
      if (name == token.name || existing.id == token.id)
        return make_error(ControlErrc::conflict, "token " + token.name + " exists");
    tokens_[token.name] = token;
    return {};
  }

  Result<std::vector<TokenRecord>> list_tokens() override {
    std::lock_guard lock(mutex_);
    std::vector<TokenRecord> tokens;
    for (const auto& [name, token] : tokens_) tokens.push_back(token);
    return tokens;
  }

  Result<std::optional<TokenRecord>> find_token(std::string_view id) override {
    std::lock_guard lock(mutex_);
    for (const auto& [name, token] : tokens_)
      if (token.id == id) return std::optional<TokenRecord>(token);
    return std::optional<TokenRecord>();
  }

  Result<bool> remove_token(std::string_view name) override {
    std::lock_guard lock(mutex_);
    return tokens_.erase(std::string(name)) > 0;
  }

 private:
  std::mutex mutex_;
  std::map<std::pair<std::string, std::string>, StoredObject> objects_;
  std::map<std::string, std::uint64_t> numbers_;
  std::map<std::string, Lease> leases_;
  std::vector<AuditEntry> audit_;
  std::map<std::string, TokenRecord> tokens_;
};

}  // namespace

std::unique_ptr<Store> make_memory_store() { return std::make_unique<MemoryStore>(); }

}  // namespace backhaul
