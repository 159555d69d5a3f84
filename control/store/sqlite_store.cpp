// The store in one SQLite file, WAL. A durable commit runs with synchronous=FULL (the log is synced before it returns),
// a relaxed one with NORMAL: the same log in the same order, synced by the next durable commit.
#include <SQLiteCpp/SQLiteCpp.h>
#include <sqlite3.h>

#include <mutex>

#include "control/store/store.h"

namespace backhaul {
namespace {

constexpr int kApplicationId = 0x42484c31;  // "BHL1"
constexpr int kBusyTimeoutMs = 10'000;

// Migration i brings version i to i + 1. Never change one that was released; append.
constexpr const char* kMigrations[] = {
    R"(CREATE TABLE objects (kind TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
                             PRIMARY KEY (kind, id)) WITHOUT ROWID;
       CREATE TABLE numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
       CREATE TABLE leases (name TEXT PRIMARY KEY, owner TEXT NOT NULL, fence INTEGER NOT NULL, expires INTEGER NOT NULL) WITHOUT ROWID;)",
    R"(CREATE TABLE audit (id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
                           object TEXT NOT NULL, outcome TEXT NOT NULL, detail TEXT NOT NULL);
       CREATE INDEX audit_object ON audit (object, id);)",
    R"(CREATE TABLE tokens (name TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, hash TEXT NOT NULL, role INTEGER NOT NULL,
                            created INTEGER NOT NULL, expires INTEGER NOT NULL) WITHOUT ROWID;)",
};
constexpr int kSchemaVersion = std::size(kMigrations);

Error to_error(const SQLite::Exception& failed, std::string_view what) {
  const int code = failed.getErrorCode();
  const bool damaged = code == SQLITE_CORRUPT || code == SQLITE_NOTADB;
  return make_error(damaged ? ControlErrc::store_damaged : ControlErrc::store_failed,
                    std::string(what) + ": " + failed.what());
}

class SqliteStore final : public Store {
 public:
  explicit SqliteStore(const std::string& file)
      : database_(file, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE | SQLite::OPEN_FULLMUTEX, kBusyTimeoutMs) {}

  Result<void> prepare() {
    return guarded<void>("open the job store", [&]() -> Result<void> {
      const int id = database_.execAndGet("PRAGMA application_id").getInt();
      const int version = database_.execAndGet("PRAGMA user_version").getInt();
      const int tables = database_.execAndGet("SELECT count(*) FROM sqlite_master").getInt();
      if (id != kApplicationId && (id != 0 || tables != 0))
        return make_error(ControlErrc::store_damaged, "the file is a database of another program");
      if (version > kSchemaVersion)
        return make_error(ControlErrc::store_damaged, "the file was written by a newer version (schema " +
                                                          std::to_string(version) + ", known up to " +
                                                          std::to_string(kSchemaVersion) + ")");
      database_.exec("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;");
      if (id == 0) database_.exec("PRAGMA application_id=" + std::to_string(kApplicationId));
      for (int from = version; from < kSchemaVersion; ++from) {
        SQLite::Transaction transaction(database_, SQLite::TransactionBehavior::IMMEDIATE);
        database_.exec(kMigrations[from]);
        database_.exec("PRAGMA user_version=" + std::to_string(from + 1));
        transaction.commit();
      }
      return {};
    });
  }

  Result<std::optional<StoredObject>> get(std::string_view kind, std::string_view id) override {
    return guarded<std::optional<StoredObject>>("read", [&]() -> Result<std::optional<StoredObject>> {
      SQLite::Statement query(database_, "SELECT version, body FROM objects WHERE kind = ? AND id = ?");
      query.bind(1, std::string(kind));
      query.bind(2, std::string(id));
      if (!query.executeStep()) return std::optional<StoredObject>();
      return std::optional<StoredObject>(
          {std::string(kind), std::string(id), unsigned_of(query.getColumn(0)), query.getColumn(1).getString()});
    });
  }

  Result<std::vector<StoredObject>> list(std::string_view kind) override {
    return guarded<std::vector<StoredObject>>("list", [&]() -> Result<std::vector<StoredObject>> {
      SQLite::Statement query(database_, "SELECT id, version, body FROM objects WHERE kind = ? ORDER BY id");
      query.bind(1, std::string(kind));
      std::vector<StoredObject> objects;
      while (query.executeStep())
        objects.push_back({std::string(kind), query.getColumn(0).getString(), unsigned_of(query.getColumn(1)),
                           query.getColumn(2).getString()});
      return objects;
    });
  }

  Result<void> commit(std::span<const StoreWrite> writes, Durability durability) override {
    return guarded<void>("commit", [&]() -> Result<void> {
      set_synchronous(durability);
      SQLite::Transaction transaction(database_, SQLite::TransactionBehavior::IMMEDIATE);
      for (const auto& write : writes)
        if (!apply(write)) return make_error(ControlErrc::conflict, write.kind + " " + write.id);  // rolls back
      transaction.commit();
      return {};
    });
  }

  Result<std::uint64_t> next_number(std::string_view name) override {
    return guarded<std::uint64_t>("count", [&]() -> Result<std::uint64_t> {
      set_synchronous(Durability::durable);
      SQLite::Statement query(
          database_,
          "INSERT INTO numbers VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value");
      query.bind(1, std::string(name));
      query.executeStep();
      const auto value = unsigned_of(query.getColumn(0));
      query.executeStep();  // to its end, so that it commits
      return value;
    });
  }

  Result<Lease> acquire_lease(std::string_view name, std::string_view owner, std::int64_t ttl_s,
                              std::int64_t now_unix_s) override {
    return guarded<Lease>("lease", [&]() -> Result<Lease> {
      set_synchronous(Durability::durable);
      SQLite::Transaction transaction(database_, SQLite::TransactionBehavior::IMMEDIATE);
      Lease lease{std::string(name), std::string(owner), 1, now_unix_s + ttl_s};
      {
        SQLite::Statement query(database_, "SELECT owner, fence, expires FROM leases WHERE name = ?");
        query.bind(1, lease.name);
        if (query.executeStep()) {
          const std::string held_by = query.getColumn(0).getString();
          lease.fence = unsigned_of(query.getColumn(1));
          if (held_by != owner) {
            if (!held_by.empty() && query.getColumn(2).getInt64() > now_unix_s)
              return make_error(ControlErrc::conflict, "lease " + lease.name + " is held by " + held_by);
            ++lease.fence;
          }
        }
      }
      SQLite::Statement write(database_, "REPLACE INTO leases VALUES (?, ?, ?, ?)");
      write.bind(1, lease.name);
      write.bind(2, lease.owner);
      write.bind(3, static_cast<std::int64_t>(lease.fence));
      write.bind(4, lease.expires_unix_s);
      write.exec();
      transaction.commit();
      return lease;
    });
  }

  Result<void> release_lease(std::string_view name, std::string_view owner) override {
    return guarded<void>("release a lease", [&]() -> Result<void> {
      SQLite::Statement write(database_, "UPDATE leases SET owner = '' WHERE name = ? AND owner = ?");
      write.bind(1, std::string(name));
      write.bind(2, std::string(owner));
      write.exec();
      return {};
    });
  }

  Result<std::uint64_t> append_audit(const AuditEntry& entry) override {
    return guarded<std::uint64_t>("write the audit log", [&]() -> Result<std::uint64_t> {
      set_synchronous(Durability::durable);
      SQLite::Statement write(
          database_, "INSERT INTO audit (at, actor, action, object, outcome, detail) VALUES (?, ?, ?, ?, ?, ?)");
      write.bind(1, entry.at_unix_s);
      const std::string* texts[] = {&entry.actor, &entry.action, &entry.object, &entry.outcome, &entry.detail};
      for (int i = 0; i < 5; ++i) write.bind(i + 2, *texts[i]);
      write.exec();
      return static_cast<std::uint64_t>(database_.getLastInsertRowid());
    });
  }

  Result<std::vector<AuditEntry>> list_audit(std::string_view object, std::uint64_t before,
                                             std::size_t limit) override {
    return guarded<std::vector<AuditEntry>>("read the audit log", [&]() -> Result<std::vector<AuditEntry>> {
      SQLite::Statement query(
          database_,
          "SELECT id, at, actor, action, object, outcome, detail FROM audit WHERE (?1 = 0 OR id < ?1) AND "
          "(?2 = '' OR object = ?2) ORDER BY id DESC LIMIT ?3");
      query.bind(1, static_cast<std::int64_t>(before));
      query.bind(2, std::string(object));
      query.bind(3, static_cast<std::int64_t>(limit));
      std::vector<AuditEntry> entries;
      while (query.executeStep())
        entries.push_back({unsigned_of(query.getColumn(0)), query.getColumn(1).getInt64(),
                           query.getColumn(2).getString(), query.getColumn(3).getString(),
                           query.getColumn(4).getString(), query.getColumn(5).getString(),
                           query.getColumn(6).getString()});
      return entries;
    });
  }

  Result<void> add_token(const TokenRecord& token) override {
    return guarded<void>("write a token", [&]() -> Result<void> {
      set_synchronous(Durability::durable);
      SQLite::Statement write(database_, "INSERT OR IGNORE INTO tokens VALUES (?, ?, ?, ?, ?, ?)");
      write.bind(1, token.name);
      write.bind(2, token.id);
      write.bind(3, token.hash);
      write.bind(4, static_cast<int>(token.role));
      write.bind(5, token.created_unix_s);
      write.bind(6, token.expires_unix_s);
      if (write.exec() == 0) return make_error(ControlErrc::conflict, "token " + token.name + " exists");
      return {};
    });
  }

  Result<std::vector<TokenRecord>> list_tokens() override { return tokens("ORDER BY name", {}); }

  Result<std::optional<TokenRecord>> find_token(std::string_view id) override {
    if (id.empty()) return std::optional<TokenRecord>();
    BH_TRY(auto found, tokens("WHERE id = ?", id));
    return found.empty() ? std::optional<TokenRecord>() : std::optional<TokenRecord>(std::move(found.front()));
  }

  Result<bool> remove_token(std::string_view name) override {
    return guarded<bool>("remove a token", [&]() -> Result<bool> {
      set_synchronous(Durability::durable);
      SQLite::Statement write(database_, "DELETE FROM tokens WHERE name = ?");
      write.bind(1, std::string(name));
      return write.exec() > 0;
    });
  }

 private:
  static std::uint64_t unsigned_of(const SQLite::Column& column) {
    return static_cast<std::uint64_t>(column.getInt64());
  }

  // The library reports by exceptions; none leaves this class.
  template <class T, class Function>
  Result<T> guarded(std::string_view what, Function&& function) {
    std::lock_guard lock(mutex_);
    try {
      return function();
    } catch (const SQLite::Exception& failed) {
      return to_error(failed, what);
    }
  }

  void set_synchronous(Durability durability) {
    if (durability == durability_) return;
    database_.exec(durability == Durability::durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL");
    durability_ = durability;
  }

  bool apply(const StoreWrite& write) {
    const auto expected = static_cast<std::int64_t>(write.expected_version);
    if (!write.body) {
      SQLite::Statement statement(database_, "DELETE FROM objects WHERE kind = ? AND id = ? AND version = ?");
      statement.bind(1, write.kind);
      statement.bind(2, write.id);
      statement.bind(3, expected);
      return statement.exec() == 1;
    }
    SQLite::Statement statement(
        database_,
        expected == 0
            ? "INSERT OR IGNORE INTO objects VALUES (?1, ?2, 1 + ?3, ?4)"
            : "UPDATE objects SET version = version + 1, body = ?4 WHERE kind = ?1 AND id = ?2 AND version = ?3");
    statement.bind(1, write.kind);
    statement.bind(2, write.id);
    statement.bind(3, expected);
    statement.bind(4, *write.body);
    return statement.exec() == 1;
  }

  Result<std::vector<TokenRecord>> tokens(const std::string& clause, std::string_view id) {
    return guarded<std::vector<TokenRecord>>("read tokens", [&]() -> Result<std::vector<TokenRecord>> {
      SQLite::Statement query(database_, "SELECT name, id, hash, role, created, expires FROM tokens " + clause);
      if (!id.empty()) query.bind(1, std::string(id));
      std::vector<TokenRecord> found;
      while (query.executeStep()) {
        const int role = query.getColumn(3).getInt();
        if (role < 0 || role > static_cast<int>(Role::admin))
          return make_error(ControlErrc::store_damaged, "a token has an unknown role");
        found.push_back({query.getColumn(0).getString(), query.getColumn(1).getString(), query.getColumn(2).getString(),
                         static_cast<Role>(role), query.getColumn(4).getInt64(), query.getColumn(5).getInt64()});
      }
      return found;
    });
  }

  std::mutex mutex_;
  SQLite::Database database_;
  Durability durability_ = Durability::durable;
};

}  // namespace

Result<std::unique_ptr<Store>> open_sqlite_store(const std::filesystem::path& file) {
  std::unique_ptr<SqliteStore> store;
  try {
    store = std::make_unique<SqliteStore>(file.string());
  } catch (const SQLite::Exception& failed) {
    return to_error(failed, "open " + file.string());
  }
  BH_RETURN_IF_ERROR(store->prepare());
  // The file holds token hashes and VM settings; a file system without permissions is not refused.
  std::error_code ignored;
  std::filesystem::permissions(file, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write, ignored);
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace backhaul
